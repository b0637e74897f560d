"""The corpus' kernels, in Triton. cases.py calls them and says what is expected."""
import triton
import triton.language as tl


@triton.jit
def add(x, y, z, n, B: tl.constexpr):
    i = tl.program_id(0) * B + tl.arange(0, B)
    m = i < n
    tl.store(z + i, tl.load(x + i, mask=m) + tl.load(y + i, mask=m), mask=m)


@triton.jit
def pointwise(x, y, n, alpha, B: tl.constexpr):
    i = tl.program_id(0) * B + tl.arange(0, B)
    m = i < n
    v = tl.load(x + i, mask=m, other=-1.0, cache_modifier=".cg").to(tl.float32)
    v = tl.where(v > 0, v * alpha, tl.sigmoid(v)) + tl.clamp(v, -0.5, 0.25)
    tl.store(y + i, v.to(y.dtype.element_ty), mask=m)


@triton.jit
def sum_columns(x, y, M: tl.constexpr, N: tl.constexpr):
    v = tl.load(x + tl.arange(0, M)[:, None] * N + tl.arange(0, N)[None, :])
    tl.store(y + tl.arange(0, N), tl.sum(v, axis=0))


@triton.jit
def reduce_rows(x, lo, hi, total, every, M: tl.constexpr, N: tl.constexpr):
    r = tl.arange(0, M)
    v = tl.load(x + r[:, None] * N + tl.arange(0, N)[None, :])
    tl.store(lo + r, tl.min(v, axis=1))
    tl.store(hi + r, tl.max(v, axis=1))
    tl.store(total + r, tl.sum(v, axis=1))
    tl.store(every, tl.sum(tl.sum(v, axis=1), axis=0))


@triton.jit
def reduce_ints(x, xors, both, M: tl.constexpr, N: tl.constexpr):
    r = tl.arange(0, M)
    v = tl.load(x + r[:, None] * N + tl.arange(0, N)[None, :])
    tl.store(xors + r, tl.xor_sum(v, axis=1))
    tl.store(both + tl.arange(0, N), tl.max(v, axis=0) - tl.min(v, axis=0))


@triton.jit
def argmax_rows(x, at, low, M: tl.constexpr, N: tl.constexpr):
    r = tl.arange(0, M)
    v = tl.load(x + r[:, None] * N + tl.arange(0, N)[None, :])
    tl.store(at + r, tl.argmax(v, axis=1))
    tl.store(low + tl.arange(0, N), tl.argmin(v, axis=0))


@triton.jit
def _welford(mean_a, m2_a, n_a, mean_b, m2_b, n_b):
    delta = mean_b - mean_a
    n = n_a + n_b
    share = tl.where(n == 0.0, 0.0, n_b / n)
    return mean_a + delta * share, m2_a + m2_b + delta * delta * n_a * share, n


@triton.jit
def welford(x, mean, var, M: tl.constexpr, N: tl.constexpr):
    r = tl.arange(0, M)
    v = tl.load(x + r[:, None] * N + tl.arange(0, N)[None, :])
    mu, m2, n = tl.reduce((v, tl.zeros_like(v), tl.full((M, N), 1.0, tl.float32)), 1, _welford)
    tl.store(mean + r, mu)
    tl.store(var + r, m2 / n)


@triton.jit
def softmax(x, y, stride, n, B: tl.constexpr):
    row = tl.program_id(0)
    i = tl.arange(0, B)
    v = tl.load(x + row * stride + i, mask=i < n, other=float("-inf")).to(tl.float32)
    e = tl.exp(v - tl.max(v, axis=0))
    tl.store(y + row * stride + i, (e / tl.sum(e, axis=0)).to(y.dtype.element_ty), mask=i < n)


@triton.jit
def layer_norm(x, w, b, y, mean, rstd, n, eps, B: tl.constexpr):
    row = tl.program_id(0)
    total = tl.zeros((B,), tl.float32)
    for off in range(0, n, B):
        i = off + tl.arange(0, B)
        total += tl.load(x + row * n + i, mask=i < n, other=0.0)
    mu = tl.sum(total, axis=0) / n
    square = tl.zeros((B,), tl.float32)
    for off in range(0, n, B):
        i = off + tl.arange(0, B)
        d = tl.where(i < n, tl.load(x + row * n + i, mask=i < n, other=0.0) - mu, 0.0)
        square += d * d
    r = 1 / tl.sqrt(tl.sum(square, axis=0) / n + eps)
    tl.store(mean + row, mu)
    tl.store(rstd + row, r)
    for off in range(0, n, B):
        i = off + tl.arange(0, B)
        m = i < n
        v = (tl.load(x + row * n + i, mask=m) - mu) * r
        tl.store(y + row * n + i, v * tl.load(w + i, mask=m) + tl.load(b + i, mask=m), mask=m)


@triton.jit
def layer_norm_backward(x, w, dy, mean, rstd, dx, dw, db, n, B: tl.constexpr):
    row = tl.program_id(0)
    i = tl.arange(0, B)
    m = i < n
    g = tl.load(dy + row * n + i, mask=m, other=0.0)
    r = tl.load(rstd + row)
    xhat = tl.where(m, (tl.load(x + row * n + i, mask=m, other=0.0) - tl.load(mean + row)) * r, 0.0)
    wg = g * tl.load(w + i, mask=m, other=0.0)
    c1 = tl.sum(xhat * wg, axis=0) / n
    c2 = tl.sum(wg, axis=0) / n
    tl.store(dx + row * n + i, (wg - xhat * c1 - c2) * r, mask=m)
    tl.atomic_add(dw + i, g * xhat, mask=m)
    tl.atomic_add(db + i, g, mask=m, sem="relaxed")


@triton.jit
def rms_norm(x, w, y, n, eps, B: tl.constexpr):
    row = tl.program_id(0)
    i = tl.arange(0, B)
    v = tl.load(x + row * n + i, mask=i < n, other=0.0).to(tl.float32)
    r = tl.rsqrt(tl.sum(v * v, axis=0) / n + eps)
    tl.store(y + row * n + i, (v * r).to(y.dtype.element_ty) * tl.load(w + i, mask=i < n), mask=i < n)


@triton.jit
def rms_norm_backward(x, w, dy, dx, n, eps, B: tl.constexpr):
    row = tl.program_id(0)
    i = tl.arange(0, B)
    m = i < n
    v = tl.load(x + row * n + i, mask=m, other=0.0)
    g = tl.load(dy + row * n + i, mask=m, other=0.0) * tl.load(w + i, mask=m, other=0.0)
    r = tl.rsqrt(tl.sum(v * v, axis=0) / n + eps)
    tl.store(dx + row * n + i, r * g - v * r * r * r * tl.sum(g * v, axis=0) / n, mask=m)


@triton.jit
def matmul(a, b, c, bias, M, N, K, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, ACTIVATION: tl.constexpr):
    rm = tl.program_id(0) * BM + tl.arange(0, BM)
    rn = tl.program_id(1) * BN + tl.arange(0, BN)
    rk = tl.arange(0, BK)
    acc = tl.zeros((BM, BN), tl.float32)
    for k in range(0, tl.cdiv(K, BK)):
        left = tl.load(a + rm[:, None] * K + (k * BK + rk)[None, :], mask=(rm[:, None] < M) & ((k * BK + rk)[None, :] < K), other=0.0)
        right = tl.load(b + (k * BK + rk)[:, None] * N + rn[None, :], mask=((k * BK + rk)[:, None] < K) & (rn[None, :] < N), other=0.0)
        acc = tl.dot(left, right, acc, input_precision="ieee")
    if ACTIVATION:
        acc += tl.load(bias + rn, mask=rn < N, other=0.0)[None, :]
        acc = tl.where(acc >= 0, acc, 0.01 * acc)
    tl.store(c + rm[:, None] * N + rn[None, :], acc.to(c.dtype.element_ty), mask=(rm[:, None] < M) & (rn[None, :] < N))


@triton.jit
def matmul_plain(a, b, c, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr):
    rm, rn, rk = tl.arange(0, M), tl.arange(0, N), tl.arange(0, K)
    left = tl.load(a + rm[:, None] * K + rk[None, :])
    right = tl.load(b + rk[:, None] * N + rn[None, :])
    out = tl.dot(left, right, out_dtype=c.dtype.element_ty)
    tl.store(c + rm[:, None] * N + rn[None, :], out)


@triton.jit
def matmul_batched(a, b, c, Z: tl.constexpr, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr):
    z, m, n, k = tl.arange(0, Z), tl.arange(0, M), tl.arange(0, N), tl.arange(0, K)
    left = tl.load(a + z[:, None, None] * M * K + m[None, :, None] * K + k[None, None, :])
    right = tl.load(b + z[:, None, None] * K * N + k[None, :, None] * N + n[None, None, :])
    tl.store(c + z[:, None, None] * M * N + m[None, :, None] * N + n[None, None, :], tl.dot(left, right, input_precision="ieee"))


@triton.jit
def matmul_split_k(a, b, c, K, M: tl.constexpr, N: tl.constexpr, BK: tl.constexpr):
    rm, rn, rk = tl.arange(0, M), tl.arange(0, N), tl.program_id(0) * BK + tl.arange(0, BK)
    left = tl.load(a + rm[:, None] * K + rk[None, :])
    right = tl.load(b + rk[:, None] * N + rn[None, :])
    tl.atomic_add(c + rm[:, None] * N + rn[None, :], tl.dot(left, right, input_precision="ieee"))


@triton.jit
def matmul_block_pointers(a, b, c, M, N, K, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    pa = tl.make_block_ptr(a, (M, K), (K, 1), (tl.program_id(0) * BM, 0), (BM, BK), (1, 0))
    pb = tl.make_block_ptr(b, (K, N), (N, 1), (0, tl.program_id(1) * BN), (BK, BN), (1, 0))
    acc = tl.zeros((BM, BN), tl.float32)
    for _ in range(0, K, BK):
        acc += tl.dot(tl.load(pa, boundary_check=(0, 1), padding_option="zero"), tl.load(pb, boundary_check=(0, 1), padding_option="zero"))
        pa = tl.advance(pa, (0, BK))
        pb = tl.advance(pb, (BK, 0))
    pc = tl.make_block_ptr(c, (M, N), (N, 1), (tl.program_id(0) * BM, tl.program_id(1) * BN), (BM, BN), (1, 0))
    tl.store(pc, acc.to(c.dtype.element_ty), boundary_check=(0, 1))


@triton.jit
def matmul_descriptors(a, b, c, M, N, K, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    da = tl.make_tensor_descriptor(a, [M, K], [K, 1], [BM, BK])
    db = tl.make_tensor_descriptor(b, [K, N], [N, 1], [BK, BN])
    dc = tl.make_tensor_descriptor(c, [M, N], [N, 1], [BM, BN])
    m, n = tl.program_id(0) * BM, tl.program_id(1) * BN
    acc = tl.zeros((BM, BN), tl.float32)
    for k in range(0, K, BK):
        acc = tl.dot(da.load([m, k]), db.load([k, n]), acc)
    dc.store([m, n], acc.to(c.dtype.element_ty))


@triton.jit
def descriptor_reduce(x, y, M, N, BM: tl.constexpr, BN: tl.constexpr):
    d = tl.make_tensor_descriptor(y, [M, N], [N, 1], [BM, BN])
    v = tl.load(x + tl.arange(0, BM)[:, None] * BN + tl.arange(0, BN)[None, :])
    d.atomic_add([tl.program_id(0) * BM, 0], v)
    d.atomic_max([tl.program_id(0) * BM, 0], v)


@triton.jit
def scans(x, y, z, w, M: tl.constexpr, N: tl.constexpr):
    at = tl.arange(0, M)[:, None] * N + tl.arange(0, N)[None, :]
    v = tl.load(x + at)
    tl.store(y + at, tl.cumsum(v, axis=1))
    tl.store(z + at, tl.cumprod(v, axis=0))
    tl.store(w + at, tl.cumsum(v, axis=1, reverse=True))


@triton.jit
def _first_order(fl, xl, fr, xr):
    return fl * fr, xl * fr + xr


@triton.jit
def recurrence(f, x, y, N: tl.constexpr):
    i = tl.arange(0, N)
    _, h = tl.associative_scan((tl.load(f + i), tl.load(x + i)), 0, _first_order)
    tl.store(y + i, h)


@triton.jit
def sort_rows(x, y, M: tl.constexpr, N: tl.constexpr, DESCENDING: tl.constexpr):
    at = tl.arange(0, M)[:, None] * N + tl.arange(0, N)[None, :]
    tl.store(y + at, tl.sort(tl.load(x + at), descending=DESCENDING))


@triton.jit
def top_k(x, y, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr):
    v = tl.load(x + tl.arange(0, M)[:, None] * N + tl.arange(0, N)[None, :])
    tl.store(y + tl.arange(0, M)[:, None] * K + tl.arange(0, K)[None, :], tl.topk(v, K))


@triton.jit
def gather_rows(x, index, y, n, B: tl.constexpr):
    row = tl.load(index + tl.program_id(0))
    i = tl.arange(0, B)
    tl.store(y + tl.program_id(0) * n + i, tl.load(x + row * n + i, mask=i < n), mask=i < n)


@triton.jit
def scatter_add(x, index, y, n, B: tl.constexpr):
    i = tl.arange(0, B)
    to = tl.load(index + i, mask=i < n, other=0)
    tl.atomic_add(y + to, tl.load(x + i, mask=i < n, other=0.0), mask=i < n)


@triton.jit
def gather_tile(x, index, y, M: tl.constexpr, N: tl.constexpr):
    at = tl.arange(0, M)[:, None] * N + tl.arange(0, N)[None, :]
    tl.store(y + at, tl.gather(tl.load(x + at), tl.load(index + at), 1))


@triton.jit
def histogram(x, y, n, B: tl.constexpr, BINS: tl.constexpr):
    i = tl.program_id(0) * B + tl.arange(0, B)
    h = tl.histogram(tl.load(x + i, mask=i < n, other=0), BINS, mask=i < n)
    tl.atomic_add(y + tl.arange(0, BINS), h)


@triton.jit
def flash_attention(q, k, v, out, n, scale, B: tl.constexpr, D: tl.constexpr, CAUSAL: tl.constexpr):
    rows = tl.program_id(0) * B + tl.arange(0, B)
    d = tl.arange(0, D)
    head = tl.program_id(1) * n * D
    query = tl.load(q + head + rows[:, None] * D + d[None, :], mask=rows[:, None] < n, other=0.0)
    m = tl.full((B,), float("-inf"), tl.float32)
    total = tl.zeros((B,), tl.float32)
    acc = tl.zeros((B, D), tl.float32)
    end = (tl.program_id(0) + 1) * B if CAUSAL else n
    for start in range(0, end, B):
        cols = start + tl.arange(0, B)
        key = tl.load(k + head + cols[None, :] * D + d[:, None], mask=cols[None, :] < n, other=0.0)
        s = tl.dot(query, key, input_precision="ieee") * scale
        seen = cols[None, :] < n
        if CAUSAL:
            seen = seen & (cols[None, :] <= rows[:, None])
        s = tl.where(seen, s, float("-inf"))
        new = tl.maximum(m, tl.max(s, axis=1))
        p = tl.exp2((s - new[:, None]) * 1.4426950408889634)
        keep = tl.exp2((m - new) * 1.4426950408889634)
        total = total * keep + tl.sum(p, axis=1)
        value = tl.load(v + head + cols[:, None] * D + d[None, :], mask=cols[:, None] < n, other=0.0)
        acc = acc * keep[:, None] + tl.dot(p.to(value.dtype), value, input_precision="ieee")
        m = new
    tl.store(out + head + rows[:, None] * D + d[None, :], (acc / total[:, None]).to(out.dtype.element_ty), mask=rows[:, None] < n)


@triton.jit
def rope(x, cos, sin, y, H: tl.constexpr):
    row = tl.program_id(0)
    i = tl.arange(0, H)
    c, s = tl.load(cos + row * H + i), tl.load(sin + row * H + i)
    a, b = tl.load(x + row * 2 * H + i), tl.load(x + row * 2 * H + H + i)
    tl.store(y + row * 2 * H + i, a * c - b * s)
    tl.store(y + row * 2 * H + H + i, b * c + a * s)


@triton.jit
def rope_interleaved(x, cos, sin, y, H: tl.constexpr):
    row = tl.program_id(0)
    v = tl.load(x + row * 2 * H + tl.arange(0, 2 * H))
    a, b = tl.split(tl.reshape(v, (H, 2)))
    c, s = tl.load(cos + row * H + tl.arange(0, H)), tl.load(sin + row * H + tl.arange(0, H))
    tl.store(y + row * 2 * H + tl.arange(0, 2 * H), tl.interleave(a * c - b * s, b * c + a * s))


@triton.jit
def dropout(x, y, n, p, seed, B: tl.constexpr):
    i = tl.program_id(0) * B + tl.arange(0, B)
    keep = tl.rand(seed, i) > p
    tl.store(y + i, tl.where(keep, tl.load(x + i, mask=i < n) / (1 - p), 0.0), mask=i < n)


@triton.jit
def philox(y, seed, B: tl.constexpr):
    a, b, c, d = tl.randint4x(seed, tl.arange(0, B))
    i = tl.arange(0, B)
    tl.store(y + i, a)
    tl.store(y + B + i, b)
    tl.store(y + 2 * B + i, c)
    tl.store(y + 3 * B + i, d)
