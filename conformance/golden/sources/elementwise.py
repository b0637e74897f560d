"""Arithmetic, comparisons, logic, bits and selection: PyTorch in the operand's own type, rationals where rounding matters."""

import math
from fractions import Fraction

import torch

from .exact import fraction, rounded
from .store import TORCH, Book

F64, F32, F16, BF16 = torch.float64, torch.float32, torch.float16, torch.bfloat16
INF, NAN = float("inf"), float("nan")
LINE = [NAN, INF, -INF, 0.0, -0.0, 5e-324, -5e-324, 2.2250738585072014e-308, 1.0, -1.0, 0.1, -0.1, 2.5, -7.0, 3.0, 1e16, -1.7976931348623157e308]
GRID = (torch.tensor(LINE, dtype=F64)[:, None], torch.tensor(LINE, dtype=F64))
RATIONAL = "rational arithmetic, rounded once"


def ints(dtype):
    """A column and a row of a type: bounds, 0 and small numbers."""
    info = torch.iinfo(dtype)
    values = [info.min, info.max, 0, 1, 2, 5, info.max // 2 + 1] + ([-1, -3] if info.min < 0 else [])
    v = torch.tensor(values, dtype=dtype)
    return v[:, None], v


def name_of(dtype):
    return str(dtype).removeprefix("torch.")


def shapes(book, f, dtype=F64, attrs=None):
    """Broadcasting over three axes, rank 0, empty."""
    a = (torch.arange(6).reshape(2, 3, 1) - 2.5).to(dtype)
    b = (torch.arange(4) * 0.75 + 0.5).to(dtype)
    for name, x, y in (("broadcast", a, b), ("scalar", a[0, 0, 0], b[1]), ("by-scalar", a, b[2]), ("empty", a[:, :0], b)):
        book.case(name, [x, y], [f(x, y)], f"{TORCH} {name_of(dtype)}", attrs)


def narrow(book, f, dtypes=(F32, F16, BF16)):
    """Values of narrow types that need rounding."""
    for dtype in dtypes:
        a = torch.tensor([1.0, 0.1, 3.3, -2.7, 1024.0, -0.333, 17.0], dtype=dtype)
        b = torch.tensor([0.001, 0.7, -1.1, 0.013, 0.75, -9.1, 3.0], dtype=dtype)
        exact = [f(fraction(x), fraction(y)) for x, y in zip(a.tolist(), b.tolist())]
        book.case({F32: "f32", F16: "f16", BF16: "bf16"}[dtype], [a, b], [rounded(exact, dtype)], RATIONAL)


def mixed(book, f):
    """Promotion between types of tensors."""
    for name, x, y in (
        ("i32-f16", torch.tensor([1, -2, 3], dtype=torch.int32), torch.tensor([0.5, 0.25, -4.0], dtype=F16)),
        ("u8-i8", torch.tensor([200, 7, 255], dtype=torch.uint8), torch.tensor([-100, 3, 127], dtype=torch.int8)),
        ("i32-f32", torch.tensor([16777217, -33554435], dtype=torch.int32), torch.tensor([16777216.0, -33554436.0])),
        ("f16-bf16", torch.tensor([1.5, 65504.0], dtype=F16), torch.tensor([2.0, -3.0], dtype=BF16)),
    ):
        book.case(name, [x, y], [f(x, y)], f"{TORCH}, promoted")


def sums():
    for name, f, sign in (("add", torch.add, 1), ("sub", torch.sub, -1)):
        book = Book(name)
        book.case("grid", GRID, [f(*GRID)], f"{TORCH} float64")
        shapes(book, f)
        # Halving never overflows: whether alpha·b is rounded before it is added is left open.
        book.case("alpha", GRID[::-1], [f(GRID[1], GRID[0], alpha=-0.5)], f"{TORCH} float64", {"alpha": -0.5})
        x, y = torch.tensor([1.0, -2.3, 1e9], dtype=F64), torch.tensor([0.7, 1.1, -3e-4], dtype=F64)
        exact = [fraction(u) + sign * fraction(2.3) * fraction(v) for u, v in zip(x.tolist(), y.tolist())]
        book.case("alpha-finite", [x, y], [rounded(exact, F64)], RATIONAL, {"alpha": 2.3})
        for dtype in (torch.int64, torch.int8, torch.uint8):
            a, b = ints(dtype)
            book.case(name_of(dtype), [a, b], [f(a, b, alpha=3)], f"{TORCH} {name_of(dtype)}, wrapping", {"alpha": 3})
        narrow(book, lambda x, y: x + sign * y)
        mixed(book, f)
        yield book


def products():
    book = Book("mul")
    book.case("grid", GRID, [torch.mul(*GRID)], f"{TORCH} float64")
    shapes(book, torch.mul)
    for dtype in (torch.int64, torch.int16, torch.uint8):
        a, b = ints(dtype)
        book.case(name_of(dtype), [a, b], [a * b], f"{TORCH} {name_of(dtype)}, wrapping")
    narrow(book, lambda x, y: x * y)
    mixed(book, torch.mul)
    yield book


def quotients():
    book = Book("div")
    book.case("grid", GRID, [torch.div(*GRID)], f"{TORCH} float64")
    shapes(book, torch.div)
    # Finite operands: of the exact quotient, here below 2^53. PyTorch rounds a/b before truncating it, which is 1 too many for 1/0.1.
    finite = torch.tensor([1.0, -1.0, 0.1, -0.1, 7.0, -7.5, 6.0, 0.3, 1e14, 900719925474099.0, 2.2250738585072014e-308, 5e-324], dtype=F64)
    a, b = finite[:, None], finite[:9]
    for mode, whole in (("trunc", math.trunc), ("floor", math.floor)):
        exact = [Fraction(whole(fraction(x) / fraction(y))) for x in finite.tolist() for y in b.tolist()]
        # A quotient that becomes 0 keeps its sign.
        y = torch.copysign(rounded(map(abs, exact), F64, (len(finite), 9)), a / b)
        book.case(mode, [a, b], [y], RATIONAL, {"rounding_mode": mode})
        special = torch.tensor([INF, -INF, NAN, 0.0, -0.0], dtype=F64)
        x, y = special[:, None], torch.tensor([2.0, -2.0, 0.0, -0.0, INF, -INF, NAN], dtype=F64)
        book.case(f"{mode}-special", [x, y], [getattr(torch, mode)(x / y)], "definition: IEEE 754 quotient, rounded", {"rounding_mode": mode})
        x = torch.tensor([7, -7, 9], dtype=torch.int32)
        y = torch.tensor([2, 2, -3], dtype=torch.int32)
        book.case(f"{mode}-i32", [x, y], [torch.div(x, y, rounding_mode=mode).float()], f"{TORCH} int32, as f32", {"rounding_mode": mode})
    narrow(book, lambda x, y: x / y)
    x = torch.tensor([1, -2, 3, 10, 16777217], dtype=torch.int64)
    y = torch.tensor([3, 7, 2, -4, 1], dtype=torch.int64)
    exact = [fraction(u) / v for u, v in zip(rounded(map(fraction, x.tolist()), F32).tolist(), y.tolist())]
    book.case("i64", [x, y], [rounded(exact, F32)], RATIONAL + ": integers become f32 first")
    yield book


def remainders():
    for name, f in (("remainder", torch.remainder), ("fmod", torch.fmod)):
        book = Book(name)
        finite = torch.tensor([1.0, -1.0, 0.1, -0.1, 7.5, -7.5, 6.0, 1e22, 5e-324, 1.7976931348623157e308], dtype=F64)
        a, b = finite[:, None], finite[:6]

        def exactly(x, y):
            r = math.fmod(x, y)
            return fraction(r) + fraction(y) if name == "remainder" and r and (r < 0) != (y < 0) else fraction(r)

        exact = rounded([exactly(x, y) for x in finite.tolist() for y in b.tolist()], F64, (len(finite), 6))
        # An exact zero has the dividend's sign.
        book.case("finite", [a, b], [torch.where(exact == 0, torch.copysign(exact, a.expand_as(exact)), exact)], "C's fmod, rationals")
        special = torch.tensor([NAN, INF, -INF, 0.0, -0.0, 1.0, -1.0], dtype=F64)
        book.case("special", [special[:, None], special], [f(special[:, None], special)], f"{TORCH} float64")
        shapes(book, f)
        for dtype in (torch.int64, torch.int8, torch.uint8):
            x, y = ints(dtype)
            y = y[y != 0]
            if dtype != torch.uint8:
                y = y[y != -1]
            book.case(name_of(dtype), [x, y], [f(x, y)], f"{TORCH} {name_of(dtype)}")
        x = torch.tensor([5, -5, 0], dtype=torch.int32)
        book.case("by-zero", [x, torch.tensor(0, dtype=torch.int32)], [torch.zeros(3, dtype=torch.int32)], "definition: PyTorch raises")
        mixed(book, f)
        yield book


def extremes():
    for name, f in (("maximum", torch.maximum), ("minimum", torch.minimum)):
        book = Book(name)
        book.case("grid", GRID, [f(*GRID)], f"{TORCH} float64")
        shapes(book, f)
        for dtype in (torch.int64, torch.int8, torch.uint8):
            a, b = ints(dtype)
            book.case(name_of(dtype), [a, b], [f(a, b)], f"{TORCH} {name_of(dtype)}")
        mixed(book, f)
        yield book


def unary():
    line = torch.tensor(LINE, dtype=F64)
    for name, f in (("neg", torch.neg), ("abs", torch.abs), ("sign", torch.sign)):
        book = Book(name)
        book.case("line", [line], [f(line)], f"{TORCH} float64")
        for dtype in (torch.int64, torch.int8, torch.uint8):
            x = ints(dtype)[1]
            book.case(name_of(dtype), [x], [f(x)], f"{TORCH} {name_of(dtype)}")
        for dtype in (F32, F16, BF16):
            x = torch.tensor([0.1, -2.0, INF, -0.0], dtype=dtype)
            book.case(name_of(dtype), [x], [f(x)], f"{TORCH} {name_of(dtype)}")
        book.case("scalar", [line[9]], [f(line[9])], f"{TORCH} float64")
        book.case("empty", [line[:0].reshape(0, 2)], [line[:0].reshape(0, 2)], "definition")
        yield book


def compositions():
    book = Book("addcmul")
    a, b, c = torch.tensor(LINE, dtype=F64)[:, None], torch.tensor([1.5, -2.0, NAN, INF, 0.0], dtype=F64), torch.tensor([[3.0], [-0.1]], dtype=F64)[:, :, None]
    book.case("grid", [a, b, c], [torch.addcmul(a, b, c)], f"{TORCH} float64")
    book.case("value", [a, b, c], [torch.addcmul(a, b, c, value=-0.5)], f"{TORCH} float64", {"value": -0.5})
    x, y = ints(torch.int64)
    book.case("int64", [x, y, x], [torch.addcmul(x, y, x, value=7)], f"{TORCH} int64, wrapping", {"value": 7})
    x = torch.tensor([0.1, 1.0, -3.0], dtype=F16)
    v, w = torch.tensor([2.5, 0.01, 7.0], dtype=F16), torch.tensor([0.3, 0.5, 1.1], dtype=F16)
    exact = [fraction(p) + fraction(q) * fraction(r) for p, q, r in zip(x.tolist(), v.tolist(), w.tolist())]
    book.case("f16", [x, v, w], [rounded(exact, F16)], RATIONAL)
    book.case("empty", [a[:0], b, c[0]], [torch.empty(0, 5, dtype=F64)], "definition")
    book.case("scalar", [a[8, 0], b[0], c[0, 0, 0]], [torch.tensor(5.5, dtype=F64)], "definition")
    yield book

    book = Book("lerp")
    a, b = torch.tensor([-3.0, 0.1, 1e10, 7.0], dtype=F64), torch.tensor([5.0, 0.7, -1e-3, 7.0], dtype=F64)
    w = torch.tensor([0.0, 1.0, 0.25, 0.5, 0.75, -1.0, 2.0], dtype=F64)[:, None]
    exact = [fraction(x) + fraction(t) * (fraction(y) - fraction(x)) for t in w[:, 0].tolist() for x, y in zip(a.tolist(), b.tolist())]
    book.case("grid", [a, b, w], [rounded(exact, F64, (7, 4))], RATIONAL)
    book.case("nan", [torch.tensor([NAN, 1.0, 1.0], dtype=F64), torch.tensor([1.0, NAN, 1.0], dtype=F64), torch.tensor([0.5, 0.5, NAN], dtype=F64)],
              [torch.full((3,), NAN, dtype=F64)], "definition")
    book.case("scalar", [a[0], b[0], w[3, 0]], [torch.lerp(a[0], b[0], w[3, 0])], f"{TORCH} float64")
    book.case("empty", [a[:0], b[:0], w], [torch.empty(7, 0, dtype=F64)], "definition")
    yield book

    book = Book("clamp")
    line = torch.tensor(LINE, dtype=F64)
    book.case("both", [line], [torch.clamp(line, -2.0, 1.5)], f"{TORCH} float64", {"min": -2.0, "max": 1.5})
    book.case("low", [line], [torch.clamp(line, min=0.5)], f"{TORCH} float64", {"min": 0.5})
    book.case("high", [line], [torch.clamp(line, max=-0.05)], f"{TORCH} float64", {"max": -0.05})
    book.case("crossed", [line], [torch.clamp(line, 3.0, -3.0)], f"{TORCH} float64", {"min": 3.0, "max": -3.0})
    book.case("neither", [line], [line], "definition", {"min": "-inf", "max": "inf"})
    for dtype in (torch.int64, torch.int8, torch.uint8):
        x = ints(dtype)[1]
        book.case(name_of(dtype), [x], [torch.clamp(x, 1, 4)], f"{TORCH} {name_of(dtype)}", {"min": 1, "max": 4})
    x = ints(torch.int64)[1]
    book.case("int64-low", [x], [torch.clamp(x, min=-1)], f"{TORCH} int64", {"min": -1})
    x = torch.tensor([0.3, -4.0, 9.0], dtype=BF16)
    book.case("bf16", [x], [torch.tensor([0.5, 0.5, 8.0], dtype=BF16)], "definition", {"min": 0.5, "max": 8.0})
    book.case("scalar", [line[12]], [torch.clamp(line[12], 0.0, 1.0)], f"{TORCH} float64", {"min": 0.0, "max": 1.0})
    book.case("empty", [line[:0]], [line[:0]], "definition", {"min": 0.0})
    yield book


def tests():
    truth = torch.tensor([False, True])
    for name in ("eq", "ne", "lt", "le", "gt", "ge", "logical_and", "logical_or", "logical_xor"):
        f, book = getattr(torch, name), Book(name)
        book.case("grid", GRID, [f(*GRID)], f"{TORCH} float64")
        shapes(book, f)
        for dtype in (torch.int64, torch.uint8):
            a, b = ints(dtype)
            book.case(name_of(dtype), [a, b], [f(a, b)], f"{TORCH} {name_of(dtype)}")
        book.case("bool", [truth[:, None], truth], [f(truth[:, None], truth)], f"{TORCH} bool")
        mixed(book, f)
        yield book
    line = torch.tensor(LINE, dtype=F64)
    for name in ("isnan", "isinf", "logical_not"):
        f, book = getattr(torch, name), Book(name)
        book.case("line", [line], [f(line)], f"{TORCH} float64")
        for dtype in (F32, F16, BF16):
            x = torch.tensor([NAN, INF, -INF, 0.0, -0.0, 1.0, -2.0], dtype=dtype)
            book.case(name_of(dtype), [x], [f(x)], f"{TORCH} {name_of(dtype)}")
        if name == "logical_not":
            for x in (ints(torch.int64)[1], truth):
                book.case(name_of(x.dtype), [x], [f(x)], f"{TORCH} {name_of(x.dtype)}")
        book.case("scalar", [line[1]], [f(line[1])], f"{TORCH} float64")
        book.case("empty", [line[:0]], [f(line[:0])], "definition")
        yield book


def bits():
    truth = torch.tensor([False, True])
    for name in ("bitwise_and", "bitwise_or", "bitwise_xor", "bitwise_not"):
        f, book = getattr(torch, name), Book(name)
        for dtype in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8):
            a, b = ints(dtype)
            operands = [b] if name == "bitwise_not" else [a, b]
            book.case(name_of(dtype), operands, [f(*operands)], f"{TORCH} {name_of(dtype)}")
        operands = [truth] if name == "bitwise_not" else [truth[:, None], truth]
        book.case("bool", operands, [f(*operands)], f"{TORCH} bool")
        if name != "bitwise_not":
            x, y = torch.tensor([200, 7], dtype=torch.uint8), torch.tensor([-100, 3], dtype=torch.int8)
            book.case("u8-i8", [x, y], [f(x, y)], f"{TORCH}, promoted")
            book.case("bool-i64", [truth, torch.tensor([6, 7])], [f(truth, torch.tensor([6, 7]))], f"{TORCH}, promoted")
        empty = [torch.empty(0, dtype=torch.int32)] * len(operands)
        book.case("empty", empty, [empty[0]], "definition")
        scalar = [torch.tensor(-6)] * len(operands)
        book.case("scalar", scalar, [f(*scalar)], f"{TORCH} int64")
        yield book


def selection():
    book = Book("where")
    choice = torch.tensor([[True], [False]])
    line = torch.tensor(LINE, dtype=F64)
    book.case("special", [choice, line, -line], [torch.where(choice, line, -line)], f"{TORCH} float64")
    three = torch.tensor([[[True, False, True]], [[False, False, True]]])
    a, b = torch.arange(4.0, dtype=F64)[:, None], torch.tensor(-1.5, dtype=F64)
    book.case("broadcast", [three, a, b], [torch.where(three, a, b)], f"{TORCH} float64")
    for name, x, y in (("i32-f16", torch.tensor([1, 2], dtype=torch.int32), torch.tensor([0.5, -3.0], dtype=F16)),
                       ("i64-f32", torch.tensor([16777217, 2**60 + 2**36 + 1]), torch.tensor([0.5, 3.0])),
                       ("u8-i8", torch.tensor([200, 255], dtype=torch.uint8), torch.tensor([-1, -128], dtype=torch.int8)),
                       ("i64", torch.tensor([2**62, -2**63]), torch.tensor([2**63 - 1, -1])),
                       ("bool", torch.tensor([True, False]), torch.tensor([False, True])),
                       ("bf16", torch.tensor([0.1, NAN], dtype=BF16), torch.tensor([-INF, 3.0], dtype=BF16))):
        book.case(name, [choice, x, y], [torch.where(choice, x, y)], TORCH)
    book.case("scalar", [choice[0, 0], a[1, 0], b], [a[1, 0]], "definition")
    book.case("empty", [choice[:, :0], a[:0, 0], b], [torch.empty(2, 0, dtype=F64)], "definition")
    yield book


def books():
    for group in (sums, products, quotients, remainders, extremes, unary, compositions, tests, bits, selection):
        yield from group()
