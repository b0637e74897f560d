"""More of the corpus' kernels: control flow, shapes, atomics, and every function and conversion there is."""
import triton
import triton.language as tl
from triton.language.extra import libdevice


@triton.jit
def collatz(x, y, B: tl.constexpr):
    i = tl.program_id(0)
    n = tl.load(x + i)
    steps = 0
    while n != 1:
        if n % 2 == 0:
            n = n // 2
        else:
            n = 3 * n + 1
        steps += 1
    tl.store(y + i, steps)


@triton.jit
def newton(x, y, B: tl.constexpr):
    i = tl.arange(0, B)
    v = tl.load(x + i)
    r = v
    error = tl.max(tl.abs(r * r - v), axis=0)
    while error > 1e-3:
        r = 0.5 * (r + v / r)
        error = tl.max(tl.abs(r * r - v), axis=0)
    tl.store(y + i, r)


@triton.jit
def early_return(x, y, n, flag, B: tl.constexpr):
    pid = tl.program_id(0)
    if flag == 0:
        return
    if pid * B >= n:
        return
    i = pid * B + tl.arange(0, B)
    tl.store(y + i, tl.load(x + i, mask=i < n) + 1, mask=i < n)


@triton.jit(noinline=True)
def _scaled(v, factor):
    return v * factor + 1


@triton.jit(noinline=True)
def _sign(a):
    if a > 0:
        return 1
    if a < 0:
        return -1
    return 0


@triton.jit
def calls(x, y):
    i = tl.program_id(0)
    v = _scaled(tl.load(x + i), 2.0)
    s = _sign(tl.load(x)) * 100 + _sign(tl.load(x + 1)) * 10 + _sign(tl.load(x + 2))
    tl.store(y + i, _scaled(v, 0.5) + s)


@triton.jit
def nested(x, y, n, m, B: tl.constexpr):
    acc = tl.zeros((B,), tl.float32)
    for i in range(0, n):
        for j in range(i, m, 2):
            if (i + j) % 3 == 0:
                acc += tl.load(x + tl.arange(0, B) + j)
            else:
                if j > i:
                    acc = acc * 0.5
    tl.store(y + tl.arange(0, B), acc)


@triton.jit
def static_range(x, y, B: tl.constexpr):
    i = tl.arange(0, B)
    v = tl.load(x + i)
    for k in tl.static_range(4):
        v = v * v + k
    for k in tl.range(3, 0, -1, num_stages=2):
        v += k
    tl.store(y + i, v)


@triton.jit
def shapes(x, joined, swapped, cat, three, N: tl.constexpr):
    i = tl.arange(0, N)
    a = tl.load(x + i)
    b = tl.load(x + N + i)
    tl.store(joined + tl.arange(0, 2 * N), tl.reshape(tl.join(a, b), (2 * N,)))
    square = tl.reshape(a, (N // 4, 4))
    tl.store(swapped + tl.arange(0, 4)[:, None] * (N // 4) + tl.arange(0, N // 4)[None, :], tl.trans(square))
    tl.store(cat + tl.arange(0, 2 * N), tl.cat(a, b, can_reorder=True))
    cube = tl.permute(tl.reshape(a, (N // 8, 2, 4)), (2, 0, 1))
    at = tl.arange(0, 4)[:, None, None] * (N // 4) + tl.arange(0, N // 8)[None, :, None] * 2 + tl.arange(0, 2)[None, None, :]
    tl.store(three + at, cube)


@triton.jit
def transpose(x, y, M, N, BM: tl.constexpr, BN: tl.constexpr):
    rm = tl.program_id(0) * BM + tl.arange(0, BM)
    rn = tl.program_id(1) * BN + tl.arange(0, BN)
    v = tl.load(x + rm[:, None] * N + rn[None, :], mask=(rm[:, None] < M) & (rn[None, :] < N))
    tl.store(y + rn[:, None] * M + rm[None, :], tl.trans(v), mask=(rn[:, None] < N) & (rm[None, :] < M))


@triton.jit
def flips(x, y, z, M: tl.constexpr, N: tl.constexpr):
    at = tl.arange(0, M)[:, None] * N + tl.arange(0, N)[None, :]
    v = tl.load(x + at)
    tl.store(y + at, tl.flip(v, 1))
    tl.store(z + at, tl.flip(tl.flip(v, 1), 0))


@triton.jit
def atomics(ints, floats, old, B: tl.constexpr):
    i = tl.arange(0, B)
    ip, fp = ints + i * 0, floats + i * 0
    tl.atomic_max(ip, i - 5)
    tl.atomic_min(ip + 1, i - 5)
    tl.atomic_and(ip + 2, i | 0x70)
    tl.atomic_or(ip + 3, 1 << (i % 16))
    tl.atomic_xor(ip + 4, i * 3)
    tl.atomic_add(ip + 5, i, mask=i % 2 == 0)
    tl.store(old + tl.program_id(0), tl.atomic_xchg(ints + 6, tl.program_id(0) + 1))
    tl.atomic_max(fp, i.to(tl.float32) - 2.5)
    tl.atomic_min(fp + 1, i.to(tl.float32) - 2.5)
    tl.atomic_add(floats + 2, 0.25)


@triton.jit
def compare_and_swap(lock, count, seen):
    while tl.atomic_cas(lock, 0, 1) == 1:
        pass
    n = tl.load(count)
    tl.store(seen + tl.program_id(0), n)
    tl.store(count, n + 1)
    tl.atomic_xchg(lock, 0)


@triton.jit
def _pair_swap(a, b):
    return b, a


@triton.jit
def _classify(x):
    if x > 1.0:
        return x * 2
    return -x


@triton.jit
def map_elementwise(x, y, z, B: tl.constexpr):
    i = tl.arange(0, B)
    v = tl.load(x + i)
    classified = tl.map_elementwise(_classify, v)
    tl.store(y + i, classified)
    swapped = tl.map_elementwise(_pair_swap, v, pack=2)
    tl.store(z + i, swapped[0])


@triton.jit
def debug(x, y, n, B: tl.constexpr):
    i = tl.arange(0, B)
    v = tl.load(x + i)
    tl.device_assert(v < 100.0, "too large")
    tl.device_print("value", v, i)
    tl.assume(n > 0)
    tl.debug_barrier()
    tl.store(y + i, v)


@triton.jit
def functions(x, y, n, N: tl.constexpr):
    i = tl.arange(0, N)
    v = tl.load(x + i)
    tl.store(y + i, tl.exp(v))
    tl.store(y + n + i, tl.exp2(v))
    tl.store(y + 2 * n + i, tl.log(v))
    tl.store(y + 3 * n + i, tl.log2(v))
    tl.store(y + 4 * n + i, tl.sin(v))
    tl.store(y + 5 * n + i, tl.cos(v))
    tl.store(y + 6 * n + i, tl.sqrt(v))
    tl.store(y + 7 * n + i, tl.rsqrt(v))
    tl.store(y + 8 * n + i, tl.erf(v))
    tl.store(y + 9 * n + i, tl.floor(v))
    tl.store(y + 10 * n + i, tl.ceil(v))
    tl.store(y + 11 * n + i, tl.abs(v - 2))
    tl.store(y + 12 * n + i, tl.fma(v, v, -v))
    tl.store(y + 13 * n + i, tl.maximum(v, 2.0, propagate_nan=tl.PropagateNan.ALL))
    tl.store(y + 14 * n + i, tl.minimum(v, 2.0))


@triton.jit
def precise(x, y, z, N: tl.constexpr):
    i = tl.arange(0, N)
    tl.store(z + i, tl.sqrt_rn(tl.load(x + i)))
    tl.store(z + N + i, tl.div_rn(tl.load(x + i), tl.load(y + i)))


@triton.jit
def library(x, y, n, N: tl.constexpr):
    i = tl.arange(0, N)
    v = tl.load(x + i)
    tl.store(y + i, libdevice.tan(v))
    tl.store(y + n + i, libdevice.asin(v))
    tl.store(y + 2 * n + i, libdevice.acos(v))
    tl.store(y + 3 * n + i, libdevice.atan(v))
    tl.store(y + 4 * n + i, libdevice.sinh(v))
    tl.store(y + 5 * n + i, libdevice.cosh(v))
    tl.store(y + 6 * n + i, libdevice.tanh(v))
    tl.store(y + 7 * n + i, libdevice.asinh(v))
    tl.store(y + 8 * n + i, libdevice.acosh(v + 1))
    tl.store(y + 9 * n + i, libdevice.atanh(v))
    tl.store(y + 10 * n + i, libdevice.expm1(v))
    tl.store(y + 11 * n + i, libdevice.log1p(v))
    tl.store(y + 12 * n + i, libdevice.log10(v + 0.5))
    tl.store(y + 13 * n + i, libdevice.cbrt(v))
    tl.store(y + 14 * n + i, libdevice.pow(v + 1, v))
    tl.store(y + 15 * n + i, libdevice.atan2(v, v - 0.5))
    tl.store(y + 16 * n + i, libdevice.copysign(v, v - 0.5))
    tl.store(y + 17 * n + i, libdevice.fmod(v * 10, v + 1))
    tl.store(y + 18 * n + i, libdevice.rint(v * 4))
    tl.store(y + 19 * n + i, libdevice.trunc(v * 4))


@triton.jit
def integers(x, y, out, n, N: tl.constexpr):
    i = tl.arange(0, N)
    a = tl.load(x + i)
    b = tl.load(y + i)
    tl.store(out + i, a + b)
    tl.store(out + n + i, a - b)
    tl.store(out + 2 * n + i, a * b)
    tl.store(out + 3 * n + i, a // b)
    tl.store(out + 4 * n + i, a % b)
    tl.store(out + 5 * n + i, a & b)
    tl.store(out + 6 * n + i, a | b)
    tl.store(out + 7 * n + i, a ^ b)
    tl.store(out + 8 * n + i, a << (b & 7))
    tl.store(out + 9 * n + i, a >> (b & 7))
    tl.store(out + 10 * n + i, tl.maximum(a, b))
    tl.store(out + 11 * n + i, tl.minimum(a, b))
    tl.store(out + 12 * n + i, (a < b).to(a.dtype) + (a == b).to(a.dtype) * 2 + (a >= b).to(a.dtype) * 4)
    tl.store(out + 13 * n + i, -a)
    tl.store(out + 14 * n + i, ~a)


@triton.jit
def high_products(x, y, out, N: tl.constexpr):
    i = tl.arange(0, N)
    tl.store(out + i, tl.umulhi(tl.load(x + i), tl.load(y + i)))


@triton.jit
def cast(x, y, N: tl.constexpr):
    i = tl.arange(0, N)
    tl.store(y + i, tl.load(x + i).to(y.dtype.element_ty))


@triton.jit
def cast_toward_zero(x, y, N: tl.constexpr):
    i = tl.arange(0, N)
    tl.store(y + i, tl.load(x + i).to(y.dtype.element_ty, fp_downcast_rounding="rtz"))


@triton.jit
def bits(x, y, N: tl.constexpr):
    i = tl.arange(0, N)
    tl.store(y + i, tl.load(x + i).to(tl.int32, bitcast=True) ^ 1)


@triton.jit
def arithmetic(x, y, out, N: tl.constexpr):
    i = tl.arange(0, N)
    a, b = tl.load(x + i), tl.load(y + i)
    tl.store(out + i, a + b)
    tl.store(out + N + i, a - b)
    tl.store(out + 2 * N + i, a * b)
    tl.store(out + 3 * N + i, (a / b).to(out.dtype.element_ty))
    tl.store(out + 4 * N + i, (a % b).to(out.dtype.element_ty))

