"""Matrix products, convolution and attention: PyTorch in double precision and integers, rationals where sums cancel."""

import itertools

import torch
from torch.nn import functional

from .exact import fraction, rounded
from .store import TORCH, Book
from .tensors import BF16, DEFINITION, DOUBLE, F16, F32, F64, INF, NAN, small_ints, values

RATIONAL = "rational arithmetic, rounded once"


def exactly(a, b, dtype):
    """The product of two matrices, rounded once."""
    rows = [[fraction(v) for v in row] for row in a.double().tolist()]
    columns = [[fraction(v) for v in column] for column in b.double().t().tolist()]
    return rounded([sum((x * y for x, y in zip(r, c)), fraction(0)) for r in rows for c in columns], dtype, (a.shape[0], b.shape[1]))


def hard(m, k, n):
    """Products whose sums cancel to a small part of their terms."""
    a, b = values(m, k), values(k, n)
    return torch.cat([a, -a + 1e-9 * values(m, k + 1)[:, :k]], 1), torch.cat([b, b])


def matrices():
    special = torch.tensor([[NAN, 1.0], [INF, 0.0], [1.0, -INF], [0.0, -0.0]], dtype=F64)
    finite = torch.tensor([[1.0, 0.0, -1.0], [2.0, 1.0, 1.0]], dtype=F64)
    for name, f in (("mm", torch.mm), ("bmm", torch.bmm), ("matmul", torch.matmul)):
        book = Book(name)
        up = (lambda *t: [x.unsqueeze(0) for x in t]) if name == "bmm" else (lambda *t: list(t))

        def case(label, a, b, source=DOUBLE):
            book.case(label, [a, b], [f(a, b)], source)

        case("plain", *up(values(3, 5), values(5, 4)))
        case("row", *up(values(1, 7), values(7, 1)))
        case("outer", *up(values(4, 1), values(1, 3)))
        case("special", *up(special, finite))
        case("no-terms", *up(torch.empty(2, 0, dtype=F64), torch.empty(0, 3, dtype=F64)))
        case("no-rows", *up(torch.empty(0, 2, dtype=F64), values(2, 3)))
        a, b = hard(3, 6, 4)
        book.case("cancelling", up(a, b), up(exactly(a, b, F64)), RATIONAL)
        for dtype in (F32, F16, BF16):
            a, b = values(2, 6).to(dtype), values(6, 3).to(dtype)
            book.case(str(dtype)[6:], up(a, b), up(exactly(a, b, dtype)), RATIONAL)
        for dtype in (torch.int64, torch.int8, torch.uint8):
            a, b = small_ints(2, 5, dtype=dtype, low=0), small_ints(5, 3, dtype=dtype, low=0)
            a[0, 0] = torch.iinfo(dtype).max
            case(str(dtype)[6:], *up(a, b), f"{TORCH} {str(dtype)[6:]}, wrapping")
        if name == "bmm":
            case("batch", values(4, 2, 3), values(4, 3, 5))
            case("no-batch", torch.empty(0, 2, 3, dtype=F64), torch.empty(0, 3, 5, dtype=F64))
        if name == "matmul":
            for label, left, right in (("dot", (4,), (4,)), ("matrix-vector", (3, 4), (4,)), ("vector-matrix", (4,), (4, 2)), ("batch-vector", (2, 3, 4), (4,)),
                                       ("vector-batch", (4,), (2, 4, 3)), ("batch", (2, 3, 4), (2, 4, 2)), ("broadcast", (3, 1, 2, 4), (2, 4, 3)), ("batch-matrix", (2, 2, 3), (3, 2))):
                case(label, values(*left), values(*right))
        yield book

    book = Book("addmm")

    def add(label, c, a, b, alpha=1, beta=1, source=DOUBLE):
        attrs = ({"alpha": alpha} if alpha != 1 else {}) | ({"beta": beta} if beta != 1 else {})
        book.case(label, [c, a, b], [torch.addmm(c, a, b, alpha=alpha, beta=beta)], source, attrs)

    a, b = values(3, 5), values(5, 4)
    add("plain", values(3, 4), a, b)
    add("row-bias", values(4), a, b)
    add("column-bias", values(3, 1), a, b)
    add("scalar-bias", torch.tensor(2.5, dtype=F64), a, b)
    add("factors", values(3, 4), a, b, -0.5, 2.25)
    add("no-c", torch.full((3, 4), NAN, dtype=F64), a, b, 1, 0)
    book.case("no-product", [values(3, 4), torch.full((3, 5), NAN, dtype=F64), b], [values(3, 4) * 2], DEFINITION, {"alpha": 0, "beta": 2})
    add("no-terms", values(2, 3), torch.empty(2, 0, dtype=F64), torch.empty(0, 3, dtype=F64), 1, -2)
    add("special", values(3), special, finite)
    add("int64", small_ints(2, 3), small_ints(2, 4), small_ints(4, 3), 3, -2, f"{TORCH} int64")
    c, a, b = values(2, 3).to(F16), values(2, 4).to(F16), values(4, 3).to(F16)
    wide = [fraction(x) + sum((fraction(p) * fraction(q) for p, q in zip(a.double()[i // 3].tolist(), b.double()[:, i % 3].tolist())), fraction(0))
            for i, x in enumerate(c.double().flatten().tolist())]
    book.case("f16", [c, a, b], [rounded(wide, F16, (2, 3))], RATIONAL)
    yield book


def convolutions():
    book = Book("conv2d")

    def conv(label, x, w, bias=None, dtype=F64, **attrs):
        y = functional.conv2d(x.double(), w.double(), None if bias is None else bias.double(), **attrs)
        lists = {k: list(v) if isinstance(v, tuple) else v for k, v in attrs.items()}
        book.case(label, [x, w, bias], [y.to(dtype)], DOUBLE + ("" if dtype == F64 else ", rounded"), lists)

    x = values(2, 3, 5, 6)
    conv("plain", x, values(4, 3, 3, 3))
    conv("bias", x, values(4, 3, 2, 3), values(4))
    conv("stride", x, values(2, 3, 3, 2), stride=(2, 3))
    conv("padding", x, values(2, 3, 3, 3), values(2), padding=(1, 2))
    conv("dilation", x, values(2, 3, 2, 3), dilation=(3, 2))
    conv("everything", x, values(2, 3, 2, 2), stride=(2, 1), padding=(2, 1), dilation=(2, 3))
    conv("groups", values(1, 4, 4, 4), values(6, 2, 3, 3), values(6), groups=2)
    conv("depthwise", values(1, 3, 4, 5), values(3, 1, 2, 2), groups=3, padding=(1, 1))
    conv("pointwise", x, values(2, 3, 1, 1))
    special = torch.zeros(1, 1, 4, 4, dtype=F64)
    special[0, 0, 1, 1], special[0, 0, 3, 3] = NAN, INF
    conv("special", special, values(1, 1, 2, 2), padding=(1, 1))
    conv("no-images", torch.empty(0, 3, 4, 4, dtype=F64), values(2, 3, 3, 3))
    conv("f16", values(1, 2, 3, 3).to(F16), values(2, 2, 2, 2).to(F16), values(2).to(F16), F16)
    yield book


def attention():
    book = Book("scaled_dot_product_attention")

    def attend(label, q, k, v, mask=None, is_causal=False, scale=None, dtype=F64):
        wide = lambda t: t.double() if t is not None and t.is_floating_point() else t
        y = functional.scaled_dot_product_attention(wide(q), wide(k), wide(v), wide(mask), is_causal=is_causal, scale=scale)
        attrs = ({"is_causal": True} if is_causal else {}) | ({"scale": scale} if scale else {})
        book.case(label, [q, k, v, mask], [y.to(dtype)], DOUBLE + ("" if dtype == F64 else ", rounded"), attrs)

    q, k, v = values(2, 3, 4), values(2, 5, 4) / 4, values(2, 5, 3)
    attend("plain", q, k, v)
    attend("heads", values(2, 2, 3, 4), values(2, 2, 3, 4) / 3, values(2, 2, 3, 4))
    attend("scale", q, k, v, scale=0.125)
    attend("causal", values(1, 4, 4), values(1, 4, 4) / 3, values(1, 4, 2), is_causal=True)
    attend("causal-wide", q, k, v, is_causal=True)
    attend("causal-tall", values(1, 5, 2), values(1, 3, 2), values(1, 3, 2), is_causal=True)
    mask = torch.tensor([[True, False, True, True, False], [False, True, False, False, False], [True] * 5])
    attend("bool-mask", q, k, v, mask)
    attend("float-mask", q, k, v, torch.where(mask, values(3, 5), -INF))
    attend("batch-mask", q, k, v, torch.stack([mask, ~mask | torch.tensor([True, False, False, False, False])]))
    attend("row-mask", q, k, v, mask[:1])
    blind = mask.clone()
    blind[1] = False
    attend("blind-row", q, k, v, blind)
    attend("large", values(1, 2, 2) * 300, values(1, 3, 2), values(1, 3, 2))
    attend("matrix", values(3, 2), values(4, 2), values(4, 2))
    attend("nothing-asked", torch.empty(2, 0, 4, dtype=F64), k, v)
    attend("bf16", values(1, 2, 4).to(BF16), values(1, 3, 4).to(BF16), values(1, 3, 2).to(BF16), dtype=BF16)
    yield book


def books():
    return itertools.chain(matrices(), convolutions(), attention())
