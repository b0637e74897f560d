"""BLAS by SciPy's (OpenBLAS, f64 and complex128), Fourier transforms by SciPy in extended precision.

A case's description holds the fields of the descriptor (`flagos_blas_desc_t`, `flagos_fft_desc_t`) that are not 0, enumerations by value, and alpha and
beta as [re, im]. Tensors are memory from the binding on, gaps included: `in<i>` the bindings before the call, `out0` the one written, after it. Complex
numbers are pairs of reals along a last axis of 2.
"""

import itertools

import numpy
import scipy
from scipy import fft
from scipy.linalg import blas

from .store import Book

BLAS = f"scipy {scipy.__version__} (OpenBLAS)"
FFT = f"scipy.fft {scipy.__version__}, long double, rounded once"
ROW, COLUMN, PLAIN, TRANSPOSED, CONJUGATED, UPPER, LOWER, NON_UNIT, UNIT, LEFT, RIGHT = 101, 102, 111, 112, 113, 121, 122, 131, 132, 141, 142
TYPES = {"d": numpy.float64, "z": numpy.complex128}


def memory(array):
    array = numpy.ascontiguousarray(array)
    return array.view(numpy.float64).reshape(array.shape + (2,)) if numpy.iscomplexobj(array) else array


class Blas:
    def __init__(self):
        self.book, self.random = Book("blas"), numpy.random.default_rng(20)

    def numbers(self, letter, n):
        x = self.random.standard_normal(n)
        return x + 1j * self.random.standard_normal(n) if letter == "z" else x

    def case(self, label, letter, routine, inputs, output, alpha=None, beta=None, **fields):
        kind = {"d": "f64", "z": "c128"}[letter]
        more = {name: [complex(v).real, complex(v).imag] for name, v in (("alpha", alpha), ("beta", beta)) if v is not None}
        real = "f64" if routine in (4, 5) else kind
        description = {"routine": routine, "dtype": kind, "out_dtype": real, "compute_dtype": real, "batch": 1} | fields
        self.book.case(f"{letter}{label}", [memory(i) for i in inputs], [memory(output)], BLAS, desc=description, **more)

    def level1(self, letter):
        n, alpha = 7, 1.5 if letter == "d" else 1.5 - 0.5j
        get = lambda name: getattr(blas, name)
        for incx, incy in ((1, 1), (2, 3), (-1, 2), (3, -2), (-2, -1)):
            x, y = self.numbers(letter, 1 + (n - 1) * abs(incx)), self.numbers(letter, 1 + (n - 1) * abs(incy))
            at = f"-{incx}-{incy}"
            self.case(f"axpy{at}", letter, 1, [x, y], get(f"{letter}axpy")(x, y.copy(), n=n, a=alpha, incx=incx, incy=incy), alpha, n=n, incx=incx, incy=incy)
            for name, routine in ((("dot", 3),) if letter == "d" else (("dotu", 3), ("dotc", 6))):
                value = get(f"{letter}{name}")(x, y, n=n, incx=incx, incy=incy)
                self.case(f"{name}{at}", letter, routine, [x, y], numpy.array([value]), n=n, incx=incx, incy=incy)
        for inc in (1, 3):
            x = self.numbers(letter, 1 + (n - 1) * inc)
            self.case(f"scal-{inc}", letter, 2, [x], get(f"{letter}scal")(alpha, x.copy(), n=n, incx=inc), alpha, n=n, incx=inc)
            name = {"d": "", "z": "z"}[letter]
            self.case(f"nrm2-{inc}", letter, 4, [x], numpy.array([get(f"d{name}nrm2")(x, n=n, incx=inc)]), n=n, incx=inc)
            self.case(f"asum-{inc}", letter, 5, [x], numpy.array([get(f"d{name}asum")(x, n=n, incx=inc)]), n=n, incx=inc)
        tiny, huge = numpy.array([3e-300, 4e-300]).astype(TYPES[letter]), numpy.array([3e300, 4e300]).astype(TYPES[letter])
        for label, x, value in (("tiny", tiny, 5e-300), ("huge", huge, 5e300)):
            self.case(f"nrm2-{label}", letter, 4, [x], numpy.array([value]), n=2, incx=1)

    def level2(self, letter):
        m, n, alpha, beta = 4, 3, 0.75, -1.25 if letter == "d" else -1.25 + 0.5j
        f = getattr(blas, f"{letter}gemv")
        for order, trans in itertools.product((COLUMN, ROW), (PLAIN, TRANSPOSED, CONJUGATED)):
            incx, incy, lda = (2, -1, 6) if trans == PLAIN else (-1, 3, 5)
            columns = n if order == COLUMN else m
            a = self.numbers(letter, lda * columns)
            stored = a.reshape(columns, lda)
            matrix = stored.T[:m] if order == COLUMN else stored[:, :n]
            length = (n, m) if trans == PLAIN else (m, n)
            x, y = (self.numbers(letter, 1 + (k - 1) * abs(i)) for k, i in zip(length, (incx, incy)))
            after = f(alpha, numpy.asfortranarray(matrix), x, beta, y.copy(), incx=incx, incy=incy, trans=trans - PLAIN)
            self.case(f"gemv-{order}-{trans}", letter, 101, [a, x, y], after, alpha, beta, order=order, trans_a=trans, m=m, n=n, lda=lda, incx=incx, incy=incy)

    def level3(self, letter):
        m, n, k, alpha, beta = 3, 4, 5, -0.5, 2.0 if letter == "d" else 2.0 - 1.0j
        f = getattr(blas, f"{letter}gemm")
        for order, ta, tb in itertools.product((COLUMN, ROW), (PLAIN, TRANSPOSED, CONJUGATED), (PLAIN, TRANSPOSED, CONJUGATED)):
            if letter == "d" and CONJUGATED in (ta, tb) and ta != tb:
                continue
            shapes = [(m, k) if ta == PLAIN else (k, m), (k, n) if tb == PLAIN else (n, k), (m, n)]
            stored, matrices, leading = [], [], []
            for i, (rows, columns) in enumerate(shapes):
                ld = (rows if order == COLUMN else columns) + i
                outer = columns if order == COLUMN else rows
                flat = self.numbers(letter, ld * outer)
                grid = flat.reshape(outer, ld)
                stored.append(flat)
                leading.append(ld)
                matrices.append(grid.T[:rows] if order == COLUMN else grid[:, :columns])
            after = stored[2].copy()
            product = f(alpha, matrices[0], matrices[1], beta, numpy.asfortranarray(matrices[2]), trans_a=ta - PLAIN, trans_b=tb - PLAIN)
            grid = after.reshape(-1, leading[2])
            (grid.T[:m] if order == COLUMN else grid[:, :n])[...] = product
            self.case(f"gemm-{order}-{ta}-{tb}", letter, 201, stored, after, alpha, beta, order=order, trans_a=ta, trans_b=tb, m=m, n=n, k=k,
                      lda=leading[0], ldb=leading[1], ldc=leading[2])
        f = getattr(blas, f"{letter}trsm")
        transpositions = (PLAIN, TRANSPOSED) if letter == "d" else (PLAIN, TRANSPOSED, CONJUGATED)
        for side, uplo, trans, diag in itertools.product((LEFT, RIGHT), (UPPER, LOWER), transpositions, (NON_UNIT, UNIT)):
            order = COLUMN if (side == LEFT) == (uplo == UPPER) else ROW
            size = m if side == LEFT else n
            triangle = self.numbers(letter, size * size).reshape(size, size) + 3 * numpy.eye(size)
            right = self.numbers(letter, m * n).reshape(m, n)
            after = f(alpha, triangle, right, side=side - LEFT, lower=uplo - UPPER, trans_a=trans - PLAIN, diag=diag - NON_UNIT)
            # The other triangle holds what no routine may look at.
            keep = numpy.triu(numpy.ones((size, size), bool)) if uplo == UPPER else numpy.tril(numpy.ones((size, size), bool))
            if diag == UNIT:
                keep &= ~numpy.eye(size, dtype=bool)
            triangle = numpy.where(keep, triangle, numpy.nan)
            flat = (lambda x: x.T.reshape(-1)) if order == COLUMN else (lambda x: x.reshape(-1))
            self.case(f"trsm-{side}-{uplo}-{trans}-{diag}", letter, 202, [flat(triangle), flat(right)], flat(after), alpha, order=order, side=side, uplo=uplo, trans_a=trans,
                      diag=diag, m=m, n=n, lda=size, ldb=m if order == COLUMN else n)


def fourier():
    book, random = Book("fft"), numpy.random.default_rng(70)
    wide = {numpy.float64: numpy.longdouble, numpy.complex128: numpy.clongdouble}

    def case(label, kind, shape, direction=1, batch=1, scale=1.0, gap=(1, 1), apart=(0, 0)):
        """`gap`: element strides; `apart`: further elements between transforms."""
        axes = tuple(range(1, len(shape) + 1))
        half = shape[:-1] + (shape[-1] // 2 + 1,)
        shapes = {"c2c": (shape, shape), "r2c": (shape, half), "c2r": (half, shape)}[kind]
        x = random.standard_normal((batch,) + shapes[0])
        if kind == "c2r" and len(shape) > 1:
            # Of several axes, only spectra of real numbers have a meaning that does not depend on the order of axes.
            x = fft.rfftn(random.standard_normal((batch,) + shape), axes=axes)
        elif kind != "r2c":
            x = x + 1j * random.standard_normal(x.shape)
        w = x.astype(wide[x.dtype.type])
        if kind == "c2c":
            y = fft.fftn(w, axes=axes) if direction == 1 else fft.ifftn(w, axes=axes, norm="forward")
        elif kind == "r2c":
            y = fft.rfftn(w, axes=axes)
        else:
            y = fft.irfftn(w, s=shape, axes=axes, norm="forward")
        y = (y * numpy.longdouble(scale)).astype(numpy.float64 if kind == "c2r" else numpy.complex128)

        def spread(data, stride, more):
            """Memory of `data` with gaps of NaN, and the distance of transforms."""
            size = data[0].size
            distance = size * stride + more
            flat = numpy.full(distance * batch, numpy.nan, data.dtype)
            flat.reshape(batch, distance)[:, : size * stride : stride] = data.reshape(batch, size)
            return flat, distance

        source, in_dist = spread(x, gap[0], apart[0])
        target, out_dist = spread(y, gap[1], apart[1])
        description = {"transform": {"c2c": 1, "r2c": 2, "c2r": 3}[kind], "direction": direction, "precision": "f64", "rank": len(shape), "n": list(shape) + [0] * (3 - len(shape)),
                       "batch": batch, "in_stride": gap[0], "in_dist": in_dist, "out_stride": gap[1], "out_dist": out_dist, "scale": scale}
        book.case(label, [memory(source)], [memory(target)], FFT, desc=description)

    for n in (1, 2, 3, 4, 5, 7, 8, 11, 12, 13, 16, 17, 30, 31, 49, 64, 97, 100, 128, 210, 243, 257, 1024):
        case(f"c2c-{n}", "c2c", (n,), 1 + n % 2)
    for n in (1, 2, 3, 4, 6, 9, 15, 16, 32, 37, 60, 128):
        case(f"r2c-{n}", "r2c", (n,))
        case(f"c2r-{n}", "c2r", (n,), 2)
    for shape in ((3, 5), (4, 6), (8, 8), (2, 3, 4), (5, 1, 7)):
        label = "x".join(map(str, shape))
        case(f"c2c-{label}", "c2c", shape)
        case(f"c2c-{label}-inverse", "c2c", shape, 2, scale=1 / numpy.prod(shape))
        case(f"r2c-{label}", "r2c", shape)
        case(f"c2r-{label}", "c2r", shape, 2)
    case("batch", "c2c", (6,), batch=4)
    case("batch-2d", "r2c", (3, 4), batch=2)
    case("gaps", "c2c", (8,), batch=3, gap=(2, 3), apart=(5, 1))
    case("gaps-r2c", "r2c", (10,), batch=2, gap=(3, 2), apart=(1, 4))
    case("gaps-c2r", "c2r", (9,), 2, batch=2, gap=(1, 2), apart=(2, 0))
    case("scaled", "c2c", (10,), scale=0.1)
    return book


def books():
    routines = Blas()
    for letter in "dz":
        routines.level1(letter)
        routines.level2(letter)
        routines.level3(letter)
    return [routines.book, fourier()]
