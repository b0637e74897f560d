"""Activations, exponentials, powers: exact reals at difficult points, PyTorch at special values and for shapes."""

import math

import torch
from mpmath import mp, mpf
from torch.nn import functional

from .exact import SOURCE, rounded
from .store import TORCH, Book

F64 = torch.float64
INF, NAN = float("inf"), float("nan")
SPECIAL = [NAN, INF, -INF, 0.0, -0.0]

# Both signs of every scale, neighbours of 1, the bounds of exp, multiples of π, arguments that need long reduction.
LINE = [m * s for m in [5e-324, 2.2250738585072014e-308, 1e-300, 1e-160, 1e-20, 1e-8, 1e-3, 0.1, 0.3, 0.5, 0.84375, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.5,
                        6.0, 9.0, 17.0, 19.0, 27.0, 37.5, 88.7] for s in (1.0, -1.0)]
NEAR_ONE = [1 - 2.0**-53, 1 + 2.0**-52, -1 + 2.0**-53, -1 - 2.0**-52]
LARGE = [104.0, -104.0, 300.0, -300.0, 700.0, -700.0, -708.5, 709.0, -709.5, 709.75]
ANGLES = [math.pi / 4, math.pi / 2, math.pi, 2 * math.pi, 3 * math.pi / 4, -math.pi / 2, 11.0, 22.0, 355.0, 1e5, 1e22, -1e22, 1.7976931348623157e308,
          5.319372648326541e255, 2.0**1000, 6381956970095103 * 2.0**797]
POSITIVE = [abs(x) for x in LINE if x > 0] + [1 - 2.0**-53, 1 + 2.0**-52, 0.7071067811865476, 1e10, 1e100, 1.7976931348623157e308, 3e-310]
INTEGERS = [0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 0.49999999999999994, -0.49999999999999994, 4503599627370495.5, 4503599627370496.5, 9007199254740993.0,
            -4503599627370495.5, 1e300, 2.9999999999999996, 5e-324, -5e-324, 3.0, -7.0]


def sigmoid(x):
    return 1 / (1 + mp.exp(-x))


def gelu(x, approximate="none"):
    if approximate == "none":
        return x * mp.erfc(-x / mp.sqrt(2)) / 2
    inner = mp.sqrt(2 / mp.pi) * (x + mpf("0.044715") * x**3)
    return x / (1 + mp.exp(-2 * inner))


def gelu_slope(x, approximate="none"):
    if approximate == "none":
        return mp.erfc(-x / mp.sqrt(2)) / 2 + x * mp.exp(-x * x / 2) / mp.sqrt(2 * mp.pi)
    inner = mp.sqrt(2 / mp.pi) * (x + mpf("0.044715") * x**3)
    slope = mp.sqrt(2 / mp.pi) * (1 + 3 * mpf("0.044715") * x**2)
    # ½(1 + t) and 1 - t², without cancellation for t near -1.
    half, rest = 1 / (1 + mp.exp(-2 * inner)), 4 / (mp.exp(inner) + mp.exp(-inner)) ** 2
    return half + x * rest * slope / 2


def silu_slope(x):
    return sigmoid(x) * (1 + x / (1 + mp.exp(x)))


def long_trig(f):
    def at(x):
        with mp.workprec(1400):
            return f(x)

    return at


# name: function, its points, PyTorch's.
UNARY = {
    "sigmoid": (sigmoid, LINE + NEAR_ONE + LARGE + [-730.0, -745.0, -746.0], torch.sigmoid),
    "tanh": (mp.tanh, LINE + NEAR_ONE + LARGE, torch.tanh),
    "exp": (mp.exp, LINE + LARGE + [-744.5, -746.0, 709.782712893384, 710.0], torch.exp),
    "expm1": (mp.expm1, LINE + NEAR_ONE + LARGE + [709.782712893384, 0.34657359027997264, -0.2876820724517809], torch.expm1),
    "log": (mp.log, POSITIVE, torch.log),
    "log1p": (mp.log1p, POSITIVE + [-x for x in POSITIVE if x < 1], torch.log1p),
    "log2": (lambda x: mp.log(x) / mp.log(2), POSITIVE + [2.0**k for k in (-1074, -1022, -3, 1, 10, 1023)], torch.log2),
    "sqrt": (mp.sqrt, POSITIVE, torch.sqrt),
    "rsqrt": (lambda x: 1 / mp.sqrt(x), POSITIVE, torch.rsqrt),
    "sin": (long_trig(mp.sin), LINE + ANGLES, torch.sin),
    "cos": (long_trig(mp.cos), LINE + ANGLES, torch.cos),
    "erf": (mp.erf, LINE + NEAR_ONE + [0.4769362762044699, 5.5, 5.921875, -6.5], torch.erf),
    "reciprocal": (lambda x: 1 / x, [x for x in LINE if abs(x) > 1e-320] + NEAR_ONE + [1.7976931348623157e308, 49.0, 3e-308], torch.reciprocal),
    "silu": (lambda x: x * sigmoid(x), LINE + LARGE + [-745.0, -751.0], functional.silu),
    "floor": (mp.floor, INTEGERS, torch.floor),
    "ceil": (mp.ceil, INTEGERS, torch.ceil),
    "trunc": (lambda x: mp.sign(x) * mp.floor(abs(x)), INTEGERS, torch.trunc),
    "round": (mp.nint, INTEGERS, torch.round),
}
INTEGRAL = {"floor", "ceil", "trunc", "round"}
FLOATING_ONLY = INTEGRAL | {"silu", "gelu", "leaky_relu"}
NARROW = [0.1, -0.1, 1.0, -1.5, 2.75, 0.0078125, 3.3, -2.2, 9.0, -11.0]


def signed_zeros(x, y):
    """Zeros of the result take the argument's sign, as in IEEE 754's roundToIntegral; a real function has no such sign."""
    return torch.where(y == 0, torch.copysign(y, x), y)


def exactly(f, x, dtype):
    values = []
    for v in x.reshape(-1).tolist():
        values.append(f(mpf(v)) if math.isfinite(v) else NAN)
    return rounded(values, dtype, x.shape)


def unary(name, f, points, in_torch):
    book = Book(name)
    x = torch.tensor(points, dtype=F64)
    y = exactly(f, x, F64)
    book.case("points", [x], [signed_zeros(x, y) if name in INTEGRAL else y], SOURCE)
    special = torch.tensor(SPECIAL + [-1.0, -2.5], dtype=F64)
    book.case("special", [special], [in_torch(special)], f"{TORCH} float64")
    shaped = torch.linspace(0.25, 2.5, 6, dtype=F64).reshape(2, 1, 3)
    book.case("shaped", [shaped], [exactly(f, shaped, F64)], SOURCE)
    book.case("empty", [torch.empty(0, 3, dtype=F64)], [torch.empty(0, 3, dtype=F64)], "definition")
    book.case("scalar", [torch.tensor(0.625, dtype=F64)], [exactly(f, torch.tensor(0.625), F64)], SOURCE)
    narrow = torch.tensor([v for v in NARROW if v > 0 or name not in ("log", "log2", "sqrt", "rsqrt", "log1p")], dtype=F64)
    for dtype, label in ((torch.float32, "f32"), (torch.float16, "f16"), (torch.bfloat16, "bf16")):
        x = narrow.to(dtype)
        y = exactly(f, x, dtype)
        book.case(label, [x], [signed_zeros(x, y) if name in INTEGRAL else y], SOURCE)
    if name not in FLOATING_ONLY:
        x = torch.tensor([1, 2, 3, 7, 30], dtype=torch.int32)
        book.case("i32", [x], [exactly(f, x, torch.float32)], SOURCE)
    return book


def gelus():
    line = torch.tensor(LINE + [-20.0, 20.0, -38.0, 1e10, 1e100], dtype=F64)
    special = torch.tensor(SPECIAL, dtype=F64)
    book, backward = Book("gelu"), Book("gelu_backward")
    dy = torch.linspace(-2, 3, len(line), dtype=F64)
    for approximate in ("none", "tanh"):
        attrs = {"approximate": approximate}
        book.case(f"points-{approximate}", [line], [exactly(lambda x: gelu(x, approximate), line, F64)], SOURCE, attrs)
        slope = [mpf(d) * gelu_slope(mpf(x), approximate) for d, x in zip(dy.tolist(), line.tolist())]
        backward.case(f"points-{approximate}", [dy, line], [rounded(slope, F64)], SOURCE, attrs)
        for dtype, label in ((torch.float16, "f16"), (torch.bfloat16, "bf16")):
            x = torch.tensor([v for v in NARROW if v > -5], dtype=dtype)
            book.case(f"{label}-{approximate}", [x], [exactly(lambda v: gelu(v, approximate), x, dtype)], SOURCE, attrs)
    # At -∞ PyTorch's formula gives NaN (∞·0); the limit is 0.
    book.case("special", [special], [torch.tensor([NAN, INF, 0.0, 0.0, -0.0], dtype=F64)], "limits; NaN and zeros as " + TORCH)
    book.case("empty", [torch.empty(2, 0, dtype=F64)], [torch.empty(2, 0, dtype=F64)], "definition")
    x, dy = torch.linspace(-3, 3, 6, dtype=F64).reshape(2, 3).requires_grad_(), torch.linspace(1, 2, 3, dtype=F64)
    for approximate in ("none", "tanh"):
        (slope,) = torch.autograd.grad(functional.gelu(x, approximate=approximate).sum(), x)
        backward.case(f"broadcast-{approximate}", [dy, x], [slope * dy], f"{TORCH} float64, autograd", {"approximate": approximate})
    return [book, backward]


def silu_backward():
    book = Book("silu_backward")
    x = torch.tensor(LINE + [-100.0, 100.0, -700.0, 700.0, -740.0], dtype=F64)
    dy = torch.linspace(-2, 3, len(x), dtype=F64)
    book.case("points", [dy, x], [rounded([mpf(d) * silu_slope(mpf(v)) for d, v in zip(dy.tolist(), x.tolist())], F64)], SOURCE)
    x = torch.linspace(-3, 3, 6, dtype=F64).reshape(2, 3).requires_grad_()
    dy = torch.tensor([[2.0], [-0.5]], dtype=F64)
    (slope,) = torch.autograd.grad(functional.silu(x).sum(), x)
    book.case("broadcast", [dy, x], [slope * dy], f"{TORCH} float64, autograd")
    special = torch.tensor(SPECIAL[:2] + SPECIAL[3:], dtype=F64)
    ones = torch.ones(4, dtype=F64)
    book.case("special", [ones, special], [torch.ops.aten.silu_backward(ones, special)], f"{TORCH} float64")
    book.case("empty", [torch.empty(0, dtype=F64)] * 2, [torch.empty(0, dtype=F64)], "definition")
    return book


def relus():
    relu, leaky = Book("relu"), Book("leaky_relu")
    x = torch.tensor(LINE + [NAN, INF, -INF, 0.0, -0.0], dtype=F64)
    relu.case("points", [x], [torch.relu(x)], f"{TORCH} float64")
    leaky.case("points", [x], [functional.leaky_relu(x)], f"{TORCH} float64")
    leaky.case("slope", [x], [functional.leaky_relu(x, 0.25)], f"{TORCH} float64", {"value": 0.25})
    leaky.case("negative-slope", [x], [functional.leaky_relu(x, -1.5)], f"{TORCH} float64", {"value": -1.5})
    for dtype in (torch.int8, torch.int64, torch.uint8):
        info = torch.iinfo(dtype)
        x = torch.tensor([info.min, info.max, 0, 1], dtype=dtype)
        relu.case(str(dtype)[6:], [x], [torch.clamp(x, min=0)], f"{TORCH} {str(dtype)[6:]}")
    for book, f in ((relu, torch.relu), (leaky, functional.leaky_relu)):
        for dtype, label in ((torch.float16, "f16"), (torch.bfloat16, "bf16"), (torch.float32, "f32")):
            x = torch.tensor(NARROW, dtype=dtype)
            # Rounded once from f64: PyTorch rounds the slope to f32 first.
            slope = 0.01
            book.case(label, [x], [rounded([max(v, 0.0) if book is relu else v if v > 0 else mpf(v) * mpf(slope) for v in x.double().tolist()], dtype)], SOURCE)
        x = torch.tensor(-2.0, dtype=F64)
        book.case("scalar", [x], [f(x)], f"{TORCH} float64")
        book.case("empty", [torch.empty(3, 0, dtype=F64)], [torch.empty(3, 0, dtype=F64)], "definition")
    return [relu, leaky]


def power():
    book = Book("pow")
    pairs = [(2.0, 0.5), (10.0, 308.0), (10.0, -308.0), (1 + 2.0**-52, 2.0**52), (1 - 2.0**-53, 2.0**53), (0.1, 3.0), (1e-5, 65.0), (3.0, 40.0), (7.0, -2.5),
             (-2.0, 3.0), (-2.0, 4.0), (-0.5, -1074.0), (1.5, 1750.0), (2.0, -1074.0), (2.0, 1023.5), (1e300, 1.02), (9.0, 0.5), (8.0, 1 / 3), (1.0000001, 1e9),
             (0.9999999, 1e9), (123.456, 78.9)]
    a, b = (torch.tensor(v, dtype=F64) for v in zip(*pairs))
    book.case("points", [a, b], [rounded([mp.power(mpf(x), mpf(y)) for x, y in pairs], F64)], SOURCE)
    grid = torch.tensor(SPECIAL + [1.0, -1.0, 2.0, -2.0, 3.0, -3.0, 0.5, -0.5], dtype=F64)
    book.case("special", [grid[:, None], grid], [torch.pow(grid[:, None], grid)], f"{TORCH} float64")
    x = torch.tensor([2, 3, 10], dtype=torch.int32)
    book.case("ints", [x, x], [torch.tensor([4.0, 27.0, 1e10], dtype=torch.float32)], "definition: integers become f32")
    x, y = torch.tensor([1.5, 2.0, 0.1], dtype=torch.float16), torch.tensor([3.0, -2.0, 0.5], dtype=torch.float16)
    exact = [mp.power(mpf(u), mpf(v)) for u, v in zip(x.tolist(), y.tolist())]
    book.case("f16", [x, y], [rounded(exact, torch.float16)], SOURCE)
    book.case("by-scalar", [grid[5:].reshape(2, 4), torch.tensor(2.0, dtype=F64)], [grid[5:].reshape(2, 4) ** 2], f"{TORCH} float64")
    book.case("empty", [torch.empty(0, 2, dtype=F64), torch.ones(2, dtype=F64)], [torch.empty(0, 2, dtype=F64)], "definition")
    return book


def books():
    return [unary(name, *row) for name, row in UNARY.items()] + gelus() + relus() + [silu_backward(), power()]
