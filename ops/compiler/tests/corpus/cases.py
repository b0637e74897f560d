"""Calls of the corpus' kernels, with what NumPy expects of them. Tolerances follow from the type: a few units in the last place where a
function or a sum is involved, none where the result is exact."""
import numpy as np
from ml_dtypes import bfloat16, float8_e4m3fn, float8_e5m2

import kernels as k
import kernels_more as m
from support import Case, changed, given, made

rng = np.random.default_rng(20240229)
F32, F64 = np.float32, np.float64
CASES = []


def case(name, kernel, grid, arguments, **rest):
    constants = {key: value for key, value in rest.items() if key != "aligned"}
    CASES.append(Case(name, kernel, grid, arguments, constants, rest.get("aligned", True)))


def normal(*shape, dtype=F32):
    return rng.standard_normal(shape).astype(dtype)


def small_ints(*shape, dtype=F32, top=4):
    """Whole numbers, so that sums of products are exact in any order."""
    return rng.integers(-top, top + 1, shape).astype(dtype)


# Elementwise, masks, types.
x, y = normal(300), normal(300)
case("add", k.add, (3,), dict(x=given(x), y=given(y), z=made(x + y), n=300), B=128)
xi, yi = rng.integers(-(2**62), 2**62, 100), rng.integers(-(2**62), 2**62, 100)
case("add_i64_unaligned", k.add, (2,), dict(x=given(xi), y=given(yi), z=made(xi + yi), n=100), B=64, aligned=False)
for dtype, rel in ((F32, 1e-6), (np.float16, 1e-3), (bfloat16, 8e-3)):
    v = normal(200, dtype=dtype)
    w = v.astype(F64)
    with np.errstate(over="ignore"):
        out = np.where(w > 0, w * 0.75, 1 / (1 + np.exp(-w))) + np.clip(w, -0.5, 0.25)
    case(f"pointwise_{np.dtype(dtype).name}", k.pointwise, (4,), dict(x=given(v), y=made(out.astype(dtype), rel, rel), n=200, alpha=0.75), B=64)

# Reductions.
v = normal(16, 32)
case("sum_columns", k.sum_columns, (1,), dict(x=given(v), y=made(v.sum(0, dtype=F64).astype(F32), 1e-5, 1e-5)), M=16, N=32)
case("reduce_rows", k.reduce_rows, (1,), dict(x=given(v), lo=made(v.min(1)), hi=made(v.max(1)), total=made(v.sum(1, dtype=F64).astype(F32), 1e-5, 1e-5),
     every=made(v.sum(dtype=F64).astype(F32).reshape(1), 1e-5, 1e-4)), M=16, N=32)
v = rng.integers(-1000, 1000, (8, 16), dtype=np.int32)
case("reduce_ints", k.reduce_ints, (1,), dict(x=given(v), xors=made(np.bitwise_xor.reduce(v, 1)), both=made(v.max(0) - v.min(0))), M=8, N=16)
v = rng.integers(-5, 6, (8, 32)).astype(F32)
case("argmax_rows", k.argmax_rows, (1,), dict(x=given(v), at=made(v.argmax(1).astype(np.int32)), low=made(v.argmin(0).astype(np.int32))), M=8, N=32)
v = normal(4, 64) + F32(3)
case("welford", k.welford, (1,), dict(x=given(v), mean=made(v.mean(1, dtype=F64).astype(F32), 1e-5), var=made(v.astype(F64).var(1).astype(F32), 1e-4)), M=4, N=64)

# Softmax and norms.
for dtype, rel in ((F32, 1e-5), (np.float16, 2e-3)):
    v = normal(5, 100, dtype=dtype) * dtype(3)
    e = np.exp(v.astype(F64) - v.astype(F64).max(1, keepdims=True))
    case(f"softmax_{np.dtype(dtype).name}", k.softmax, (5,), dict(x=given(v), y=made((e / e.sum(1, keepdims=True)).astype(dtype), rel, rel), stride=100, n=100), B=128)
v, w, b = normal(3, 100), normal(100), normal(100)
mu, r = v.mean(1, dtype=F64), 1 / np.sqrt(v.astype(F64).var(1) + 1e-5)
hat = (v - mu[:, None]) * r[:, None]
case("layer_norm", k.layer_norm, (3,), dict(x=given(v), w=given(w), b=given(b), y=made((hat * w + b).astype(F32), 1e-4, 1e-5),
     mean=made(mu.astype(F32), 1e-4, 1e-6), rstd=made(r.astype(F32), 1e-4), n=100, eps=1e-5), B=64)
g = normal(3, 100)
wg = g.astype(F64) * w
dx = (wg - hat * (hat * wg).mean(1, keepdims=True) - wg.mean(1, keepdims=True)) * r[:, None]
case("layer_norm_backward", k.layer_norm_backward, (3,), dict(x=given(v), w=given(w), dy=given(g), mean=given(mu.astype(F32)), rstd=given(r.astype(F32)),
     dx=made(dx.astype(F32), 1e-4, 1e-5), dw=made((g * hat).sum(0).astype(F32), 1e-4, 1e-5), db=made(g.sum(0, dtype=F64).astype(F32), 1e-4, 1e-5), n=100), B=128)
v16, w16 = normal(3, 100, dtype=np.float16), normal(100, dtype=np.float16)
r = 1 / np.sqrt((v16.astype(F64) ** 2).mean(1, keepdims=True) + 1e-6)
case("rms_norm", k.rms_norm, (3,), dict(x=given(v16), w=given(w16), y=made((v16 * r * w16).astype(np.float16), 3e-3, 1e-3), n=100, eps=1e-6), B=128)
r = 1 / np.sqrt((v.astype(F64) ** 2).mean(1, keepdims=True) + 1e-6)
dx = r * wg - v * r**3 * (wg * v).mean(1, keepdims=True)
case("rms_norm_backward", k.rms_norm_backward, (3,), dict(x=given(v), w=given(w), dy=given(g), dx=made(dx.astype(F32), 1e-4, 1e-5), n=100, eps=1e-6), B=128)

# Products.
a, b, bias = normal(40, 50, dtype=np.float16), normal(50, 36, dtype=np.float16), normal(36)
c = a.astype(F64) @ b.astype(F64)
blocks = dict(BM=16, BN=32, BK=16)
case("matmul", k.matmul, (3, 2), dict(a=given(a), b=given(b), c=made(c.astype(np.float16), 2e-3, 2e-3), bias=given(bias), M=40, N=36, K=50), ACTIVATION=False, **blocks)
e = c + bias
case("matmul_epilogue", k.matmul, (3, 2), dict(a=given(a), b=given(b), c=made(np.where(e >= 0, e, 0.01 * e).astype(F32), 1e-4, 1e-4), bias=given(bias),
     M=40, N=36, K=50), ACTIVATION=True, **blocks)
case("matmul_block_pointers", k.matmul_block_pointers, (3, 2), dict(a=given(a), b=given(b), c=made(c.astype(F32), 1e-4, 1e-4), M=40, N=36, K=50), **blocks)
a, b = small_ints(40, 56), small_ints(56, 40)
case("matmul_descriptors", k.matmul_descriptors, (3, 2), dict(a=given(a), b=given(b), c=made((a @ b).astype(F32)), M=40, N=40, K=56), **blocks)
for name, dtype, out in (("i8", np.int8, np.int32), ("f8e4m3", float8_e4m3fn, F32), ("f8e5m2", float8_e5m2, F32), ("bf16", bfloat16, F32), ("f32", F32, F32), ("f16", np.float16, F32)):
    a, b = small_ints(32, 32, dtype=dtype), small_ints(32, 16, dtype=dtype)
    case(f"matmul_{name}", k.matmul_plain, (1,), dict(a=given(a), b=given(b), c=made((a.astype(F64) @ b.astype(F64)).astype(out))), M=32, N=16, K=32)
a, b = normal(2, 16, 32), normal(2, 32, 16)
case("matmul_batched", k.matmul_batched, (1,), dict(a=given(a), b=given(b), c=made((a.astype(F64) @ b).astype(F32), 1e-4, 1e-5)), Z=2, M=16, N=16, K=32)
a, b = small_ints(16, 64), small_ints(64, 32)
case("matmul_split_k", k.matmul_split_k, (4,), dict(a=given(a), b=given(b), c=made(a @ b), K=64), M=16, N=32, BK=16)
v, w = small_ints(8, 16), small_ints(16, 16)
out = w.copy()
for i in range(2):
    out[8 * i : 8 * i + 8] += v
out = np.maximum(out, np.concatenate([v, v]))
vi, wi = v.astype(np.int32), w.astype(np.int32)
case("descriptor_reduce", k.descriptor_reduce, (2,), dict(x=given(vi), y=changed(wi, out.astype(np.int32)), M=16, N=16), BM=8, BN=16)

# Scans, sorts, gathers.
v = rng.choice(np.array([0.5, 1, 2, -1], F32), (8, 16))
flipped = np.cumsum(v[:, ::-1], 1, dtype=F32)[:, ::-1]
case("scans", k.scans, (1,), dict(x=given(v), y=made(np.cumsum(v, 1, dtype=F32)), z=made(np.cumprod(v, 0, dtype=F32)), w=made(flipped)), M=8, N=16)
f, v = rng.uniform(0, 1, 64).astype(F32), normal(64)
h, hs = 0.0, []
for fi, vi in zip(f.astype(F64), v.astype(F64)):
    h = h * fi + vi
    hs.append(h)
case("recurrence", k.recurrence, (1,), dict(f=given(f), x=given(v), y=made(np.array(hs, F32), 1e-5, 1e-5)), N=64)
v = normal(4, 32)
case("sort_rows", k.sort_rows, (1,), dict(x=given(v), y=made(np.sort(v, 1))), M=4, N=32, DESCENDING=False)
vi = rng.integers(-100, 100, (4, 16), dtype=np.int32)
case("sort_rows_descending", k.sort_rows, (1,), dict(x=given(vi), y=made(-np.sort(-vi, 1))), M=4, N=16, DESCENDING=True)
case("top_k", k.top_k, (1,), dict(x=given(v), y=made(-np.sort(-v, 1)[:, :8])), M=4, N=32, K=8)
v, index = normal(10, 20), rng.integers(0, 10, 6, dtype=np.int64)
case("gather_rows", k.gather_rows, (6,), dict(x=given(v), index=given(index), y=made(v[index]), n=20), B=32)
v, index = small_ints(50), rng.integers(0, 12, 50, dtype=np.int32)
out = np.zeros(12, F32)
np.add.at(out, index, v)
case("scatter_add", k.scatter_add, (1,), dict(x=given(v), index=given(index), y=made(out), n=50), B=64)
v, index = normal(4, 16), rng.integers(0, 16, (4, 16), dtype=np.int32)
case("gather_tile", k.gather_tile, (1,), dict(x=given(v), index=given(index), y=made(np.take_along_axis(v, index, 1))), M=4, N=16)
v = rng.integers(0, 16, 200, dtype=np.int32)
case("histogram", k.histogram, (4,), dict(x=given(v), y=made(np.bincount(v, minlength=16).astype(np.int32)), n=200), B=64, BINS=16)

# Attention, position embedding, random numbers.
for causal in (False, True):
    q, key, val = (normal(2, 40, 16, dtype=np.float16) for _ in range(3))
    s = q.astype(F64) @ key.astype(F64).transpose(0, 2, 1) * 0.25
    if causal:
        s = np.where(np.tril(np.ones((40, 40), bool)), s, -np.inf)
    p = np.exp(s - s.max(-1, keepdims=True))
    out = (p / p.sum(-1, keepdims=True)) @ val.astype(F64)
    case("flash_attention_causal" if causal else "flash_attention", k.flash_attention, (3, 2), dict(q=given(q), k=given(key), v=given(val),
         out=made(out.astype(np.float16), 4e-3, 2e-3), n=40, scale=0.25), B=16, D=16, CAUSAL=causal)
v, angle = normal(3, 32), rng.uniform(0, 6, (3, 16))
c, s = np.cos(angle).astype(F32), np.sin(angle).astype(F32)
a, b = v[:, :16], v[:, 16:]
case("rope", k.rope, (3,), dict(x=given(v), cos=given(c), sin=given(s), y=made(np.concatenate([a * c - b * s, b * c + a * s], 1), 1e-5, 1e-6)), H=16)
a, b = v[:, ::2], v[:, 1::2]
out = np.stack([a * c - b * s, b * c + a * s], -1).reshape(3, 32)
case("rope_interleaved", k.rope_interleaved, (3,), dict(x=given(v), cos=given(c), sin=given(s), y=made(out, 1e-5, 1e-6)), H=16)


def philox(seed, count):
    """Philox 4x32-10 of counters (i, 0, 0, 0)."""
    c = [np.arange(count, dtype=np.uint64)] + [np.zeros(count, np.uint64) for _ in range(3)]
    low = np.uint64(0xFFFFFFFF)
    k0, k1 = np.uint64(seed) & low, np.uint64(seed) >> np.uint64(32)
    for _ in range(10):
        p0, p1 = c[0] * np.uint64(0xD2511F53), c[2] * np.uint64(0xCD9E8D57)
        c = [(p1 >> np.uint64(32)) ^ c[1] ^ k0, p1 & low, (p0 >> np.uint64(32)) ^ c[3] ^ k1, p0 & low]
        k0, k1 = (k0 + np.uint64(0x9E3779B9)) & low, (k1 + np.uint64(0xBB67AE85)) & low
    return [n.astype(np.uint32).view(np.int32) for n in c]


words = philox(1234, 128)
case("philox", k.philox, (1,), dict(y=made(np.concatenate([w[:32] for w in words])), seed=1234), B=32)
v = normal(120)
u = np.where(words[0] < 0, -words[0] - 1, words[0]).astype(F32) * F32(4.6566127342e-10)
case("dropout", k.dropout, (2,), dict(x=given(v), y=made(np.where(u[:120] > F32(0.4), v / (F32(1) - F32(0.4)), F32(0)), 1e-6), n=120, p=0.4, seed=1234), B=64)

# Control flow.
n = rng.integers(1, 1000, 8, dtype=np.int32)


def collatz(n):
    steps = 0
    while n != 1:
        n, steps = (n // 2 if n % 2 == 0 else 3 * n + 1), steps + 1
    return steps


case("collatz", m.collatz, (8,), dict(x=given(n), y=made(np.array([collatz(int(i)) for i in n], np.int32))), B=1)
v = rng.uniform(1, 9, 16).astype(F32)
case("newton", m.newton, (1,), dict(x=given(v), y=made(np.sqrt(v), 1e-3)), B=16)
v = normal(70)
case("early_return", m.early_return, (4,), dict(x=given(v), y=made(v + F32(1)), n=70, flag=np.int32(3)), B=32)
case("early_return_taken", m.early_return, (4,), dict(x=given(v), y=made(np.zeros(70, F32)), n=70, flag=np.int32(0)), B=32)
v = np.array([1.5, -2, 0, 4], F32)
case("calls", m.calls, (4,), dict(x=given(v), y=made((v * 2 + 1) * F32(0.5) + 1 + F32(100 - 10))))
v, acc = normal(24), np.zeros(8, F32)
for i in range(5):
    for j in range(i, 9, 2):
        if (i + j) % 3 == 0:
            acc = acc + v[j : j + 8]
        elif j > i:
            acc = acc * F32(0.5)
case("nested", m.nested, (1,), dict(x=given(v), y=made(acc), n=5, m=9), B=8)
v = rng.uniform(-1, 1, 8).astype(F32)
w = v
for i in range(4):
    w = w * w + F32(i)
case("static_range", m.static_range, (1,), dict(x=given(v), y=made(w + F32(6), 1e-6)), B=8)

# Shapes.
v = np.arange(64, dtype=np.int32) * 3
a, b = v[:32], v[32:]
case("shapes", m.shapes, (1,), dict(x=given(v), joined=made(np.stack([a, b], 1).ravel()), swapped=made(a.reshape(8, 4).T), cat=made(v),
     three=made(a.reshape(4, 2, 4).transpose(2, 0, 1))), N=32)
v = normal(20, 28)
case("transpose", m.transpose, (2, 2), dict(x=given(v), y=made(v.T), M=20, N=28), BM=16, BN=16)
v = normal(4, 8)
case("flips", m.flips, (1,), dict(x=given(v), y=made(v[:, ::-1]), z=made(v.ravel()[::-1])), M=4, N=8)

# Atomics.
ints = np.array([3, 3, 0x7F, 1, 9, 100, 50], np.int32)
i = np.arange(16)
after = np.array([max(3, 10), min(3, -5), 0x70, 0xFFFF, np.bitwise_xor.reduce(np.concatenate([[9], i * 3])), 100 + i[::2].sum(), 1], np.int32)
case("atomics", m.atomics, (1,), dict(ints=changed(ints, after), floats=changed(np.array([0.5, 0.5, 1.0], F32), np.array([12.5, -2.5, 1.25], F32)),
     old=made(np.array([50], np.int32))), B=16)
case("compare_and_swap", m.compare_and_swap, (6,), dict(lock=changed(np.zeros(1, np.int32), np.zeros(1, np.int32)),
     count=changed(np.zeros(1, np.int32), np.full(1, 6, np.int32)), seen=made(np.arange(6, dtype=np.int32), any_order=True)))

# Others.
v = normal(32)
case("map_elementwise", m.map_elementwise, (1,), dict(x=given(v), y=made(np.where(v > 1, v * 2, -v)), z=made(v.reshape(-1, 2)[:, ::-1])), B=32)
case("debug", m.debug, (1,), dict(x=given(v), y=made(v), n=32), B=32)
v = rng.uniform(0.1, 5, 32).astype(F32)
w = v.astype(F64)
from math import erf  # noqa: E402
out = [np.exp(w), np.exp2(w), np.log(w), np.log2(w), np.sin(w), np.cos(w), np.sqrt(w), 1 / np.sqrt(w), [erf(i) for i in w], np.floor(w), np.ceil(w),
       np.abs(v - 2), w * w - w, np.maximum(w, 2), np.minimum(w, 2)]
case("functions", m.functions, (1,), dict(x=given(v), y=made(np.array(out).astype(F32), 1e-6, 1e-6), n=32), N=32)
w = w[::4]
out = [np.exp(w), np.exp2(w), np.log(w), np.log2(w), np.sin(w), np.cos(w), np.sqrt(w), 1 / np.sqrt(w), [erf(i) for i in w], np.floor(w), np.ceil(w),
       np.abs(w - 2), w * w - w, np.maximum(w, 2), np.minimum(w, 2)]
case("functions_f64", m.functions, (1,), dict(x=given(w), y=made(np.array(out), 1e-13, 1e-13), n=8), N=8)
v, d = rng.uniform(0.1, 100, 32).astype(F32), rng.uniform(-10, -1, 32).astype(F32)
case("precise", m.precise, (1,), dict(x=given(v), y=given(d), z=made(np.concatenate([np.sqrt(v), v / d]))), N=32)
v = rng.uniform(0.05, 0.95, 16).astype(F32)


def library(w, one):
    return [np.tan(w), np.arcsin(w), np.arccos(w), np.arctan(w), np.sinh(w), np.cosh(w), np.tanh(w), np.arcsinh(w), np.arccosh(w + one), np.arctanh(w), np.expm1(w),
            np.log1p(w), np.log10(w + one / 2), np.cbrt(w), (w + one) ** w, np.arctan2(w, w - one / 2), np.copysign(w, w - one / 2), np.fmod(w * 10, w + one),
            np.rint(w * 4), np.trunc(w * 4)]


case("library", m.library, (1,), dict(x=given(v), y=made(np.array(library(v.astype(F64), F64(1))).astype(F32), 2e-6, 2e-6), n=16), N=16)
w = rng.uniform(0.05, 0.95, 8)
case("library_f64", m.library, (1,), dict(x=given(w), y=made(np.array(library(w, F64(1))), 1e-12, 1e-12), n=8), N=8)
for dtype in (np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64):
    limits = np.iinfo(dtype)
    a = rng.integers(limits.min, limits.max, 32, dtype=dtype, endpoint=True)
    b = rng.integers(max(limits.min, -50), min(limits.max, 50), 32, dtype=dtype, endpoint=True)
    b[b == 0] = 3
    with np.errstate(over="ignore"):
        quotient = (np.abs(a.astype(object)) // np.abs(b.astype(object)) * np.where((a < 0) != (b < 0), -1, 1)).astype(dtype) if limits.min < 0 else a // b
        remainder = (a - quotient * b).astype(dtype)
        shift = (b & 7).astype(dtype)
        compared = ((a < b) + (a == b) * 2 + (a >= b) * 4).astype(dtype)
        out = [a + b, a - b, a * b, quotient, remainder, a & b, a | b, a ^ b, a << shift, a >> shift, np.maximum(a, b), np.minimum(a, b), compared, -a, ~a]
    case(f"integers_{np.dtype(dtype).name}", m.integers, (1,), dict(x=given(a), y=given(b), out=made(np.array(out, dtype)), n=32), N=32)
for dtype in (np.uint32, np.uint64):
    a, b = (rng.integers(0, np.iinfo(dtype).max, 32, dtype=dtype) for _ in range(2))
    high = ((a.astype(object) * b.astype(object)) >> np.iinfo(dtype).bits).astype(dtype)
    case(f"high_products_{np.dtype(dtype).name}", m.high_products, (1,), dict(x=given(a), y=given(b), out=made(high)), N=32)

# Conversions: every pair of types, on values both hold in range; floats in between representable ones round to nearest even.
NUMBERS = {"i1": np.bool_, "i8": np.int8, "i16": np.int16, "i32": np.int32, "i64": np.int64, "u8": np.uint8, "u32": np.uint32, "f16": np.float16,
           "bf16": bfloat16, "f8e4m3": float8_e4m3fn, "f8e5m2": float8_e5m2, "f32": F32, "f64": F64}


def values(dtype):
    if dtype is np.bool_:
        return rng.integers(0, 2, 32).astype(np.bool_)
    if np.dtype(dtype).kind in "iu":
        limits = np.iinfo(dtype)
        near = rng.integers(max(limits.min, -100), 100, 16, dtype=dtype)
        return np.concatenate([near, rng.integers(limits.min, limits.max, 16, dtype=dtype)])
    return np.concatenate([rng.uniform(-100, 100, 26).astype(dtype), np.array([0.0, -0.0, 1.0, -1.5, 2.5, 0.001], dtype)])


for source, a in NUMBERS.items():
    for target, b in NUMBERS.items():
        small = "f8" in source or "f8" in target
        if source == target or (small and (source[0] in "iu" or target[0] in "iu" or "64" in source + target)):
            continue  # Triton converts fp8 from and to floats of up to 32 bits only
        v = values(a)
        if np.dtype(b).kind in "iu" and source[:1] in "fb":
            v = np.abs(v) if target[0] == "u" else v
            v = np.where(np.isfinite(v.astype(F64)), v, np.zeros(1, a))
        with np.errstate(over="ignore", invalid="ignore"):
            if np.dtype(a).kind in "iu" and np.dtype(b).kind not in "iub":
                out = v.astype(F64).astype(b) if np.dtype(a).itemsize < 8 else (v.astype(b) if b in (F32, F64) else v.astype(F32).astype(b))
            elif b is np.bool_:
                out = v != np.zeros(1, a)
            elif source[:1] in "fb" and target[:1] in "fb":
                out = v.astype(F32).astype(b) if a is not F64 else v.astype(b)
            else:
                out = v.astype(F64).astype(b) if source[:1] in "fb" else v.astype(b)
        case(f"cast_{source}_{target}", m.cast, (1,), dict(x=given(v), y=made(out)), N=32)
v = normal(32) * F32(10)
case("cast_toward_zero", m.cast_toward_zero, (1,), dict(x=given(v), y=made((v.view(np.uint32) >> 16).astype(np.uint16).view(bfloat16))), N=32)
case("bits", m.bits, (1,), dict(x=given(v), y=made(v.view(np.int32) ^ 1)), N=32)
for dtype in (np.float16, bfloat16, F64):
    a, b = normal(32, dtype=dtype), rng.uniform(1, 2, 32).astype(dtype)
    w = F64 if dtype is F64 else F32
    aw, bw = a.astype(w), b.astype(w)
    out = [aw + bw, aw - bw, aw * bw, aw / bw, np.fmod(aw, bw)]
    tolerance = {np.float16: 1e-3, bfloat16: 8e-3, F64: 1e-15}[dtype]
    case(f"arithmetic_{np.dtype(dtype).name}", m.arithmetic, (1,), dict(x=given(a), y=given(b), out=made(np.array(out, w).astype(dtype), tolerance, tolerance / 16)), N=32)
