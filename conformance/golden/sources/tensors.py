"""Copies, reductions, scans, softmax, norms, indexing, creation and sorting: PyTorch in double precision and in integers."""

import torch
from torch.nn import functional

from .exact import fraction, rounded
from .store import TORCH, Book

F64, F32, F16, BF16 = torch.float64, torch.float32, torch.float16, torch.bfloat16
INF, NAN = float("inf"), float("nan")
DOUBLE, DEFINITION = f"{TORCH} float64", "definition"


def values(*shape):
    """Both signs, magnitudes from 1e-2 to 1e2, no two alike; the same at every call."""
    generator = torch.Generator().manual_seed(sum((i + 3) * n for i, n in enumerate(shape)))
    x = torch.randn(shape, generator=generator, dtype=F64)
    return x * 10 ** (2 * torch.rand(shape, generator=generator, dtype=F64) - 1)


def small_ints(*shape, dtype=torch.int64, low=-9, high=10):
    generator = torch.Generator().manual_seed(7 + sum(shape))
    return torch.randint(low, high, shape, generator=generator).to(dtype)


SPECIAL_ROWS = torch.tensor([[1.0, NAN, 3.0], [INF, 1.0, 2.0], [-INF, 1.0, 2.0], [INF, -INF, 0.0], [0.0, -0.0, 0.0], [-INF, -INF, -INF], [5e-324, 1e-310, -5e-324],
                             [1e308, 1e308, -1e308]], dtype=F64)


def casts():
    book = Book("cast")
    x = torch.tensor([1.0, 1.00048828125, 1.0004882812500002, 1.0014648437500, 65504.0, 65519.99, 65520.0, -1e-8, 2.980232238769531e-08, 2.98023223876954e-08, 6e-8, 0.1, NAN,
                      INF, -INF, -0.0, 1.0039062500000002, 1.00390625, 3.3961775292304957e38, 1e300, 1e-46, 7.1e-46, 1.000000059604644775390625, 1.0000000596046449],
                     dtype=F64)
    for dtype in (F32, F16, BF16):
        book.case(f"f64-{str(dtype)[6:]}", [x], [rounded(x.tolist(), dtype)], "rational arithmetic, rounded once")
    fit = torch.tensor([0.0, -0.0, 0.99, -0.99, 1.5, -1.5, 100.9, -100.9, 127.99, -128.99], dtype=F64)
    for dtype in (torch.int8, torch.int16, torch.int32, torch.int64):
        book.case(f"f64-{str(dtype)[6:]}", [fit], [fit.to(dtype)], DOUBLE)
    book.case("f64-uint8", [fit.abs()], [fit.abs().to(torch.uint8)], DOUBLE)
    book.case("f64-bool", [x], [x.to(torch.bool)], DOUBLE)
    x = torch.tensor([2**60 + 2**36 + 1, -(2**60) - 2**36 - 1, 2**53 + 1, 2**24 + 1, 2**24 + 3, 2**63 - 1, -(2**63), 0, -7])
    for dtype in (F64, F32, BF16):
        book.case(f"i64-{str(dtype)[6:]}", [x], [rounded([fraction(v) for v in x.tolist()], dtype)], "rational arithmetic, rounded once")
    x = torch.tensor([2**30 + 2**22 + 1, 2**24 + 1, -1], dtype=torch.int32)
    book.case("i32-bfloat16", [x], [rounded([fraction(v) for v in x.tolist()], BF16)], "rational arithmetic, rounded once")
    x = torch.tensor([-129, 128, 255, 256, 2**33 + 5, -1])
    for dtype in (torch.int8, torch.uint8, torch.int32, torch.bool):
        book.case(f"i64-{str(dtype)[6:]}", [x], [x.to(dtype)], f"{TORCH} int64")
    truth = torch.tensor([[True], [False]])
    book.case("bool-float16", [truth], [truth.to(F16)], TORCH)
    x = torch.tensor([0.1, 1e-8, 65504.0, NAN, -INF], dtype=F16)
    book.case("f16-float64", [x], [x.double()], TORCH)
    book.case("scalar", [torch.tensor(2.75, dtype=BF16)], [torch.tensor(2, dtype=torch.int16)], TORCH)
    book.case("empty", [torch.empty(0, 3, dtype=F32)], [torch.empty(0, 3, dtype=torch.int64)], DEFINITION)
    yield book


def copies():
    book = Book("copy")
    x = torch.tensor([[NAN], [-0.0], [5e-324]], dtype=F64)
    book.case("same", [x], [x], DEFINITION)
    book.case("broadcast", [x], [x.expand(2, 3, 4)], f"{TORCH} expand")
    for x in (torch.tensor([True, False]), torch.tensor(-(2**63)), torch.tensor([0.1, -3.0], dtype=BF16), torch.tensor([255, 0], dtype=torch.uint8)):
        book.case(str(x.dtype)[6:], [x], [x], DEFINITION)
    book.case("empty", [torch.empty(1, 0, dtype=F32)], [torch.empty(5, 0, dtype=F32)], f"{TORCH} expand")
    book.case("rank8", [small_ints(2, 1, 2, 1, 2, 1, 2, 1)], [small_ints(2, 1, 2, 1, 2, 1, 2, 1)], DEFINITION)
    yield book

    book = Book("permute_copy")
    x = values(2, 3, 4)
    for name, dims in (("rotate", [1, 2, 0]), ("reverse", [2, 1, 0]), ("negative", [-1, 0, -2]), ("identity", [0, 1, 2])):
        book.case(name, [x], [x.permute(dims)], f"{TORCH} permute", {"dims": dims})
    book.case("scalar", [torch.tensor(5)], [torch.tensor(5)], DEFINITION, {"dims": []})
    book.case("empty", [torch.empty(3, 0, 2, dtype=F16)], [torch.empty(0, 2, 3, dtype=F16)], f"{TORCH} permute", {"dims": [1, 2, 0]})
    x = small_ints(2, 1, 3, 2, 1, 2, 2, 1, dtype=torch.int8)
    book.case("rank8", [x], [x.permute(7, 0, 6, 1, 5, 2, 4, 3)], f"{TORCH} permute", {"dims": [7, 0, 6, 1, 5, 2, 4, 3]})
    yield book

    book = Book("cat")
    for name, dim, shapes in (("first", 0, [(2, 3), (1, 3), (4, 3)]), ("last", -1, [(2, 2, 1), (2, 2, 3)]), ("middle", 1, [(2, 1, 2), (2, 2, 2)]),
                              ("with-empty", 1, [(2, 0), (2, 3), (2, 0)]), ("one", 0, [(4,)]), ("all-empty", 0, [(0, 2), (0, 2)])):
        parts = [values(*shape) for shape in shapes]
        book.case(name, parts, [torch.cat(parts, dim)], DOUBLE, {"dim": dim})
    parts = [torch.tensor([True, False]), torch.tensor([True])]
    book.case("bool", parts, [torch.cat(parts)], TORCH)
    parts = [small_ints(2, 2, dtype=torch.int32), small_ints(3, 2, dtype=torch.int32)]
    book.case("i32", parts, [torch.cat(parts)], TORCH)
    yield book


AXES = (("all", [], False), ("inner", [-1], False), ("outer", [0], True), ("two", [0, 2], False), ("three-kept", [-3, 1, 2], True), ("unsorted", [2, -2], False))


def over(f, x, dims, keepdim):
    """`f` along axes; none given: all of them, as in the catalogue."""
    return f(x, dim=list(dims) or list(range(x.dim())), keepdim=keepdim)


def product(x, dim, keepdim):
    for d in sorted((d % x.dim() for d in dim), reverse=True):
        x = torch.prod(x, d, keepdim=keepdim)
    return x


def reductions():
    truth = torch.tensor([[True, False, False], [True, True, True], [False, False, False]])
    table = {"sum": torch.sum, "mean": torch.mean, "prod": product, "amax": torch.amax, "amin": torch.amin, "any": torch.any, "all": torch.all}
    for name, f in table.items():
        book = Book(name)
        for label, dims, keepdim in AXES:
            x = values(3, 4, 2)
            if name in ("any", "all"):
                x = x * (small_ints(3, 4, 2, low=0, high=2))
            book.case(label, [x], [over(f, x, dims, keepdim)], DOUBLE, {"dims": dims, "keepdim": keepdim})
        inner = {"dims": [1]}
        book.case("special", [SPECIAL_ROWS], [over(f, SPECIAL_ROWS, [1], False)], DOUBLE, inner)
        x = torch.tensor(-2.5, dtype=F64)
        book.case("scalar", [x], [torch.tensor(name in ("any", "all")) if name in ("any", "all") else x], DEFINITION)
        empty = torch.empty(0, 3, dtype=F64)
        kind = torch.bool if name in ("any", "all") else F64
        book.case("no-rows", [empty], [torch.empty(0, dtype=kind)], DEFINITION, inner)
        if name not in ("amax", "amin"):
            book.case("empty-axis", [empty], [over(f, empty, [0], True)], DOUBLE, {"dims": [0], "keepdim": True})
        if name != "mean":
            for dtype in (torch.int64, torch.int8, torch.uint8):
                x = small_ints(3, 5, dtype=dtype, low=0 if dtype == torch.uint8 else -9)
                x[0, 0] = torch.iinfo(dtype).max
                x[0, 1] = torch.iinfo(dtype).min
                # PyTorch's any and all of u8 are u8.
                y = over(f, x, [1], False)
                book.case(str(dtype)[6:], [x], [y.bool() if kind == torch.bool else y], f"{TORCH} {str(dtype)[6:]}", inner)
        if name in ("sum", "prod", "any", "all"):
            book.case("bool", [truth], [over(f, truth, [1], False)], f"{TORCH} bool", inner)
        if name == "sum":
            x = torch.tensor([2**62, 2**62, 2**62, 5])
            book.case("wrapping", [x], [x.sum()], f"{TORCH} int64, wrapping")
            x = torch.tensor([1e16, 1.0, -1e16, 1e-3], dtype=F64)
            book.case("cancelling", [x], [rounded([sum(map(fraction, x.tolist()))], F64, ())], "rational arithmetic, rounded once")
            x = torch.tensor([60000.0, 60000.0, -60000.0], dtype=F16)
            book.case("f16", [x], [torch.tensor(60000.0, dtype=F16)], "rational arithmetic: sums pass through wider types")
        yield book

    for name, f in (("argmax", torch.argmax), ("argmin", torch.argmin)):
        book = Book(name)
        x = values(3, 4, 2)
        ties = small_ints(6, 9, dtype=F64, low=0, high=3)
        book.case("flat", [x], [f(x)], DOUBLE)
        book.case("flat-kept", [x], [f(x).reshape(1, 1, 1)], DOUBLE, {"keepdim": True})
        book.case("inner", [x], [f(x, -1)], DOUBLE, {"dims": [-1]})
        book.case("outer", [x], [f(x, 0, keepdim=True)], DOUBLE, {"dims": [0], "keepdim": True})
        book.case("special", [SPECIAL_ROWS], [f(SPECIAL_ROWS, 1)], DOUBLE, {"dims": [1]})
        book.case("nans", [torch.tensor([1.0, NAN, INF, NAN], dtype=F64)], [torch.tensor(1)], DEFINITION)
        best = [[row.index((max if name == "argmax" else min)(row))] for row in ties.tolist()]
        book.case("ties", [ties], [torch.tensor(best)], "list.index: the first", {"dims": [1], "keepdim": True})
        for dtype in (torch.int64, torch.uint8):
            x = small_ints(4, 5, dtype=dtype, low=0)
            x[2, 3] = torch.iinfo(dtype).max
            best = [row.index((max if name == "argmax" else min)(row)) for row in x.tolist()]
            book.case(str(dtype)[6:], [x], [torch.tensor(best)], "list.index: the first", {"dims": [1]})
        book.case("scalar", [torch.tensor(3.0, dtype=F64)], [torch.tensor(0)], DEFINITION)
        book.case("no-rows", [torch.empty(0, 3, dtype=F64)], [torch.empty(0, dtype=torch.int64)], DEFINITION, {"dims": [1]})
        yield book


def softmaxes():
    for name, f in (("softmax", torch.softmax), ("log_softmax", torch.log_softmax)):
        book = Book(name)
        x = values(3, 4, 2)
        for dim in (-1, 0, 1):
            book.case(f"dim{dim}", [x], [f(x, dim)], DOUBLE, {"dim": dim})
        book.case("special", [SPECIAL_ROWS], [f(SPECIAL_ROWS, -1)], DOUBLE)
        x = torch.tensor([[0.0, -700.0, -740.0], [1e5, 1e5 - 1, 0.0], [-INF, 2.0, 3.0]], dtype=F64)
        book.case("wide", [x], [f(x, -1)], DOUBLE)
        book.case("scalar", [torch.tensor(3.0, dtype=F64)], [f(torch.tensor(3.0, dtype=F64), 0)], DOUBLE)
        book.case("empty", [torch.empty(2, 0, dtype=F64)], [torch.empty(2, 0, dtype=F64)], DEFINITION)
        for dtype in (F16, BF16):
            x = values(2, 6).to(dtype)
            book.case(str(dtype)[6:], [x], [f(x.double(), -1).to(F32).to(dtype)], DOUBLE + ", rounded")
        yield book


def norms():
    book = Book("layer_norm")

    def layer(name, x, shape, weight=None, bias=None, eps=1e-5, dtype=F64):
        y, mean, rstd = torch.native_layer_norm(x.double(), shape, None if weight is None else weight.double(), None if bias is None else bias.double(), eps)
        statistics = F64 if dtype == F64 else F32
        attrs = {"normalized_shape": shape} | ({"eps": eps} if eps != 1e-5 else {})
        book.case(name, [x, weight, bias], [y.to(dtype), mean.to(statistics), rstd.to(statistics)], DOUBLE + ("" if dtype == F64 else ", rounded"), attrs)

    layer("plain", values(3, 5), [5])
    layer("affine", values(2, 3, 4), [4], values(4), values(4) + 1)
    layer("two-axes", values(2, 3, 4), [3, 4], values(3, 4), values(3, 4) + 1)
    layer("weight-only", values(4, 6), [6], values(6))
    layer("eps", values(2, 4) * 1e-3, [4], eps=0.1)
    layer("constant", torch.full((2, 4), 3.0, dtype=F64), [4])
    layer("shifted", values(2, 8) + 1e6, [8])
    layer("nan", torch.tensor([[1.0, NAN, 2.0], [1.0, 2.0, 3.0]], dtype=F64), [3])
    # PyTorch's running mean makes NaN of it; a mean by definition does not.
    infinite, nan = torch.tensor([[INF, 1.0, 2.0]], dtype=F64), torch.full((1, 1), NAN, dtype=F64)
    book.case("infinite", [infinite], [nan.expand(1, 3), torch.full((1, 1), INF, dtype=F64), nan], DEFINITION, {"normalized_shape": [3]})
    layer("whole", values(6), [6])
    layer("no-rows", torch.empty(0, 3, dtype=F64), [3])
    layer("f16", values(2, 4).to(F16), [4], values(4).to(F16), values(4).to(F16), dtype=F16)
    yield book

    book = Book("rms_norm")

    def rms(name, x, shape, weight=None, eps=1e-6, dtype=F64):
        y = functional.rms_norm(x.double(), shape, None if weight is None else weight.double(), eps)
        attrs = {"normalized_shape": shape} | ({"eps": eps} if eps != 1e-6 else {})
        book.case(name, [x, weight], [y.to(dtype)], DOUBLE + ("" if dtype == F64 else ", rounded"), attrs)

    rms("plain", values(3, 5), [5])
    rms("weight", values(2, 3, 4), [4], values(4))
    rms("two-axes", values(2, 3, 4), [3, 4], values(3, 4))
    rms("eps", values(2, 4) * 1e-3, [4], eps=0.1)
    rms("zero", torch.zeros(2, 3, dtype=F64), [3])
    rms("special", torch.tensor([[1.0, NAN, 2.0], [INF, 1.0, 2.0], [1.0, 2.0, 3.0]], dtype=F64), [3])
    rms("no-rows", torch.empty(0, 3, dtype=F64), [3])
    rms("bf16", values(2, 4).to(BF16), [4], values(4).to(BF16), dtype=BF16)
    yield book


def scans():
    book = Book("cumsum")

    def scan(name, x, dim, exclusive=False, reverse=False, source=DOUBLE):
        y = x.flip(dim) if reverse else x
        y = torch.cumsum(y, dim) - (y if exclusive else 0) if not x.is_floating_point() else torch.cumsum(y, dim)
        if exclusive and x.is_floating_point():
            y = torch.cat([torch.zeros_like(y.narrow(dim, 0, 1)), y.narrow(dim, 0, y.shape[dim] - 1)], dim)
        attrs = {"dim": dim} | ({"exclusive": True} if exclusive else {}) | ({"reverse": True} if reverse else {})
        book.case(name, [x], [y.flip(dim) if reverse else y], source, attrs)

    x = values(3, 4, 2)
    scan("inner", x, -1)
    scan("outer", x, 0)
    scan("middle-reverse", x, 1, reverse=True)
    scan("middle-exclusive", x, 1, exclusive=True)
    scan("both", x, 0, exclusive=True, reverse=True)
    scan("special", SPECIAL_ROWS, 1)
    x = small_ints(2, 5, dtype=torch.int8)
    x[0, :3] = 100
    scan("int8", x, 1, source=f"{TORCH} int8")
    scan("int8-exclusive", x, 1, exclusive=True, source=f"{TORCH} int8")
    scan("wrapping", torch.tensor([2**62, 2**62, 2**62]), 0, source=f"{TORCH} int64")
    scan("bool", torch.tensor([True, False, True, True]), 0, source=f"{TORCH} bool")
    book.case("scalar", [torch.tensor(3.0, dtype=F64)], [torch.tensor(3.0, dtype=F64)], DEFINITION, {"dim": 0})
    book.case("empty", [torch.empty(2, 0, dtype=F64)], [torch.empty(2, 0, dtype=F64)], DEFINITION, {"dim": 1})
    yield book


def indexing():
    I32 = torch.int32
    book = Book("gather")
    x = values(4, 3, 2)
    for dim in (0, 1, -1):
        # The index may be smaller than x off the axis.
        index = small_ints(3, 2, 2, low=0, high=x.shape[dim]) if dim else small_ints(5, 2, 1, low=0, high=4)
        book.case(f"dim{dim}", [x, index], [torch.gather(x, dim, index)], DOUBLE, {"dim": dim})
    index = small_ints(2, 7, low=0, high=3)
    for x in (small_ints(4, 3, dtype=torch.uint8, low=0), small_ints(4, 3) > 0, values(4, 3).to(BF16)):
        book.case(str(x.dtype)[6:], [x, index.to(I32)], [torch.gather(x, 1, index)], TORCH, {"dim": 1})
    book.case("special", [SPECIAL_ROWS, torch.tensor([[1, 1, 0]] * 8)], [torch.gather(SPECIAL_ROWS, 1, torch.tensor([[1, 1, 0]] * 8))], DOUBLE, {"dim": 1})
    book.case("empty", [values(4, 3), index[:0]], [torch.empty(0, 7, dtype=F64)], DEFINITION, {"dim": 1})
    yield book

    book = Book("scatter_add")
    x, source = values(4, 3), values(6, 3)
    index = small_ints(6, 3, low=0, high=4)
    book.case("outer", [x, index, source], [x.scatter_add(0, index, source)], DOUBLE, {"dim": 0})
    index = small_ints(4, 7, low=0, high=3)
    source = values(4, 7)
    book.case("inner", [x, index.to(I32), source], [x.scatter_add(1, index, source)], DOUBLE, {"dim": -1})
    book.case("part", [x, index[:2, :2], source], [x.scatter_add(1, index[:2, :2], source)], DOUBLE, {"dim": 1})
    for dtype in (torch.int64, torch.int8):
        y, s = small_ints(4, 3, dtype=dtype), small_ints(4, 7, dtype=dtype)
        y[0] = torch.iinfo(dtype).max
        book.case(str(dtype)[6:], [y, index, s], [y.scatter_add(1, index, s)], f"{TORCH} {str(dtype)[6:]}, wrapping", {"dim": 1})
    book.case("special", [SPECIAL_ROWS, torch.zeros(8, 3, dtype=torch.int64), SPECIAL_ROWS], [SPECIAL_ROWS.scatter_add(1, torch.zeros(8, 3, dtype=torch.int64), SPECIAL_ROWS)],
              DOUBLE, {"dim": 1})
    book.case("nothing", [x, index[:0], source[:0]], [x], DEFINITION, {"dim": 1})
    yield book

    book = Book("index_select")
    x, index = values(4, 3, 2), torch.tensor([2, 0, 2, 1])
    for dim in (0, 1, -2):
        book.case(f"dim{dim}", [x, index], [torch.index_select(x, dim, index)], DOUBLE, {"dim": dim})
    for x in (small_ints(4, 3, dtype=torch.int16), small_ints(4, 3) > 0, values(4, 3).to(F16)):
        book.case(str(x.dtype)[6:], [x, index.to(I32)], [torch.index_select(x, 0, index)], TORCH, {"dim": 0})
    book.case("empty", [x, index[:0]], [x[:0]], DEFINITION, {"dim": 0})
    yield book

    book = Book("embedding")
    weight = values(5, 3)
    for name, index in (("vector", torch.tensor([4, 0, 4])), ("matrix", torch.tensor([[1, 2], [3, 0]])), ("scalar", torch.tensor(2)), ("empty", torch.empty(0, 2, dtype=torch.int64))):
        book.case(name, [weight, index], [functional.embedding(index, weight)], DOUBLE)
    index = torch.tensor([1, 0, 1])
    book.case("padding", [weight, index.to(I32)], [functional.embedding(index, weight, padding_idx=1)], DOUBLE, {"padding_idx": 1})
    book.case("bf16", [weight.to(BF16), index], [functional.embedding(index, weight.to(BF16))], TORCH)
    yield book


def creation():
    book = Book("arange")

    def line(name, start, end, step, dtype, source=None):
        y = torch.arange(start, end, step, dtype=dtype)
        book.case(name, [], [y], source or f"{TORCH} {str(dtype)[6:]}", {"start": start, "end": end, "step": step})

    line("ints", 0, 7, 1, torch.int64)
    line("backwards", 5, -4, -2, torch.int64)
    line("uneven", 1, 10, 4, torch.int32)
    line("u8", 250, 256, 1, torch.uint8)
    line("none", 3, 3, 1, torch.int64)
    line("reals", 0.5, 3.25, 0.25, F64)
    line("exact-end", 0.0, 2.0, 0.5, F64)
    line("down", 1.0, -1.0, -0.125, F32)
    # start + i·step, rounded once.
    y = rounded([fraction(-1.0) + i * fraction(0.1) for i in range(20)], F64)
    book.case("tenths", [], [y], "rational arithmetic, rounded once", {"start": -1.0, "end": 0.95, "step": 0.1})
    book.case("f16", [], [rounded([fraction(2040) + i for i in range(20)], F16)], "rational arithmetic, rounded once", {"start": 2040, "end": 2060, "step": 1})
    book.case("defaults", [], [torch.arange(4)], TORCH, {"end": 4})
    yield book

    book = Book("fill")
    for name, shape, value, dtype in (("reals", (2, 3), 0.1, F64), ("nan", (3,), "nan", F32), ("infinity", (2,), "-inf", F16), ("rounded", (2,), 0.1, BF16),
                                      ("scalar", (), -2.5, F64), ("empty", (2, 0), 1.0, F64), ("i64", (2,), 2**53 + 1, torch.int64), ("u8", (3,), 255, torch.uint8),
                                      ("i8", (2,), -128, torch.int8), ("true", (2, 1), 1, torch.bool), ("false", (2,), 0, torch.bool), ("fraction", (2,), 2.75, torch.int32)):
        number = float(value) if isinstance(value, str) else value
        book.case(name, [], [torch.full(shape, number, dtype=F64).to(F32).to(dtype) if dtype == BF16 else torch.full(shape, number, dtype=dtype)], TORCH, {"value": value})
    yield book


def sorting():
    ties = torch.tensor([[2.0, 1.0, 2.0, -0.0, 0.0, 1.0], [NAN, 3.0, INF, NAN, -INF, 3.0]], dtype=F64)
    book = Book("sort")

    def sort(name, x, dim=-1, descending=False, source=DOUBLE):
        y, index = torch.sort(x, dim=dim, descending=descending, stable=True)
        attrs = ({"dim": dim} if dim != -1 else {}) | ({"descending": True} if descending else {})
        book.case(name, [x], [y, index], source, attrs)

    x = values(3, 4, 2)
    sort("inner", x)
    sort("outer", x, 0)
    sort("middle", x, 1, True)
    sort("ties", ties)
    sort("ties-descending", ties, -1, True)
    for dtype in (torch.int64, torch.int8, torch.uint8):
        y = small_ints(2, 9, dtype=dtype, low=0 if dtype == torch.uint8 else -3, high=4)
        y[0, 4], y[1, 2] = torch.iinfo(dtype).min, torch.iinfo(dtype).max
        sort(str(dtype)[6:], y, source=f"{TORCH} {str(dtype)[6:]}")
        sort(f"{str(dtype)[6:]}-descending", y, -1, True, source=f"{TORCH} {str(dtype)[6:]}")
    sort("bf16", values(2, 7).to(BF16), source=TORCH)
    sort("empty", torch.empty(2, 0, dtype=F64))
    sort("scalar", torch.tensor(3.0, dtype=F64))
    yield book

    book = Book("topk")

    def topk(name, x, k, dim=-1, largest=True, source=DOUBLE):
        # A stable sort's first k: among equals the lower index comes first, which PyTorch's topk leaves open.
        y, index = torch.sort(x, dim=dim, descending=largest, stable=True)
        attrs = {"k": k} | ({"dim": dim} if dim != -1 else {}) | ({"largest": False} if not largest else {})
        values_, indices = (y, index) if x.dim() == 0 else (y.narrow(dim, 0, k), index.narrow(dim, 0, k))
        if x.dim() and k:
            assert torch.equal(torch.topk(x, k, dim, largest).values.nan_to_num(7e99), values_.nan_to_num(7e99))
        book.case(name, [x], [values_, indices], source + ": stable sort, agrees with topk", attrs)

    topk("inner", values(3, 7), 3)
    topk("outer", values(5, 2), 2, 0)
    topk("smallest", values(3, 7), 4, 1, False)
    topk("ties", ties, 4)
    topk("ties-smallest", ties, 4, -1, False)
    topk("all", values(2, 5), 5)
    topk("none", values(2, 5), 0)
    topk("int64", small_ints(2, 9, high=3), 5, source=f"{TORCH} int64")
    topk("uint8", small_ints(2, 9, dtype=torch.uint8, low=0, high=4), 3, -1, False, source=f"{TORCH} uint8")
    topk("f16", values(2, 6).to(F16), 2, source=TORCH)
    topk("scalar", torch.tensor(3.0, dtype=F64), 1)
    x = torch.tensor([3.0, 9.0, 1.0, 7.0], dtype=F64)
    book.case("unsorted", [x], [torch.tensor([9.0, 7.0, 3.0], dtype=F64), torch.tensor([1, 3, 0])], "definition: sorted all the same", {"k": 3, "sorted": False})
    yield book


def books():
    for group in (casts, copies, reductions, softmaxes, norms, scans, indexing, creation, sorting):
        yield from group()
