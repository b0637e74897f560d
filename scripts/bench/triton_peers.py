#!/usr/bin/env python3
"""Times kernels written in Triton and compiled by Triton itself, on one GPU: the bar for portable kernels. One JSON document out.

Usage: triton_peers.py [--rows NAME,...] [--out FILE]. Rows are named and sized as in gpu.toml and torch_peers.py, whose way of timing is used; every
result is compared with PyTorch's before it is timed. Block sizes come from a short search (`triton.autotune`), so that the bar is not a straw man."""
import argparse, json, sys, time

import torch
import triton
import triton.language as tl

import torch_peers as peers

HALF, SINGLE = torch.float16, torch.float32


def configs(blocks, warps=(4, 8), stages=(1,)):
    return [triton.Config({"BLOCK": b}, num_warps=w, num_stages=s) for b in blocks for w in warps for s in stages]


def flat(f):
    """An element-wise kernel over one axis, tuned."""
    return triton.autotune(configs((1024, 2048, 4096)), key=["n"])(triton.jit(f))


@flat
def k_copy(x, y, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y + i, tl.load(x + i, mask=i < n), mask=i < n)


@flat
def k_exp(x, y, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y + i, tl.exp(tl.load(x + i, mask=i < n)), mask=i < n)


@flat
def k_gelu(x, y, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    v = tl.load(x + i, mask=i < n).to(tl.float32)
    tl.store(y + i, 0.5 * v * (1 + tl.erf(v * 0.70710678118)), mask=i < n)


@flat
def k_add(a, b, y, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y + i, tl.load(a + i, mask=i < n) + tl.load(b + i, mask=i < n), mask=i < n)


@flat
def k_where(c, a, b, y, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    m = i < n
    tl.store(y + i, tl.where(tl.load(c + i, mask=m), tl.load(a + i, mask=m), tl.load(b + i, mask=m)), mask=m)


rows_of = triton.autotune([triton.Config({}, num_warps=w) for w in (4, 8, 16, 32)], key=["n"])


@rows_of
@triton.jit
def k_softmax(x, y, n, BLOCK: tl.constexpr):
    row, i = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    v = tl.load(x + row * n + i, mask=i < n, other=-float("inf")).to(tl.float32)
    e = tl.exp(v - tl.max(v, 0))
    tl.store(y + row * n + i, e / tl.sum(e, 0), mask=i < n)


@rows_of
@triton.jit
def k_layer_norm(x, w, b, y, n, BLOCK: tl.constexpr):
    row, i = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    m = i < n
    v = tl.load(x + row * n + i, mask=m, other=0.0).to(tl.float32)
    d = tl.where(m, v - tl.sum(v, 0) / n, 0.0)
    r = 1 / tl.sqrt(tl.sum(d * d, 0) / n + 1e-5)
    tl.store(y + row * n + i, d * r * tl.load(w + i, mask=m) + tl.load(b + i, mask=m), mask=m)


@rows_of
@triton.jit
def k_rms_norm(x, w, y, n, BLOCK: tl.constexpr):
    row, i = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    m = i < n
    v = tl.load(x + row * n + i, mask=m, other=0.0).to(tl.float32)
    r = 1 / tl.sqrt(tl.sum(v * v, 0) / n + 1e-5)
    tl.store(y + row * n + i, v * r * tl.load(w + i, mask=m), mask=m)


@rows_of
@triton.jit
def k_sum_row(x, y, n, BLOCK: tl.constexpr):
    row, i = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    tl.store(y + row, tl.sum(tl.load(x + row * n + i, mask=i < n, other=0.0), 0))


@rows_of
@triton.jit
def k_argmax(x, y, n, BLOCK: tl.constexpr):
    row, i = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    tl.store(y + row, tl.argmax(tl.load(x + row * n + i, mask=i < n, other=-float("inf")), 0).to(tl.int64))


@rows_of
@triton.jit
def k_cumsum(x, y, n, BLOCK: tl.constexpr):
    row, i = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    tl.store(y + row * n + i, tl.cumsum(tl.load(x + row * n + i, mask=i < n, other=0.0), 0), mask=i < n)


@triton.autotune([triton.Config({"R": r, "BLOCK": c}, num_warps=w) for r in (16, 64) for c in (64, 128, 256) for w in (4, 8)], key=["n"])
@triton.jit
def k_columns(x, y, rows, n, SPLIT: tl.constexpr, R: tl.constexpr, BLOCK: tl.constexpr):
    """Sums of a share of the rows, for each column."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    share = rows // SPLIT
    total = tl.zeros((R, BLOCK), tl.float32)
    for r in range(0, share, R):
        at = tl.program_id(1) * share + r + tl.arange(0, R)
        total += tl.load(x + at[:, None] * n + i[None, :])
    tl.store(y + tl.program_id(1) * n + i, tl.sum(total, 0))


@triton.autotune([triton.Config({"B": b}, num_warps=w) for b in (32, 64, 128) for w in (4, 8)], key=["n"])
@triton.jit
def k_transpose(x, y, n, B: tl.constexpr):
    r, c = tl.program_id(0) * B + tl.arange(0, B), tl.program_id(1) * B + tl.arange(0, B)
    v = tl.load(x + r[:, None] * n + c[None, :])
    tl.store(y + c[:, None] * n + r[None, :], tl.trans(v))


@triton.autotune([triton.Config({"R": r}, num_warps=w) for r in (8, 16, 32) for w in (4, 8)], key=["n"])
@triton.jit
def k_index(x, index, y, n, R: tl.constexpr, BLOCK: tl.constexpr):
    row, i = tl.program_id(0) * R + tl.arange(0, R), tl.arange(0, BLOCK)
    at = tl.load(index + row)
    tl.store(y + row[:, None] * n + i[None, :], tl.load(x + at[:, None] * n + i[None, :]))


MM = [triton.Config({"M": m, "N": n, "K": k, "G": 8}, num_warps=w, num_stages=s)
      for m, n, k, w, s in ((128, 256, 64, 8, 3), (128, 128, 64, 4, 4), (128, 128, 32, 4, 4), (64, 256, 32, 4, 4), (256, 128, 64, 8, 3))]


@triton.autotune(MM, key=["n"])
@triton.jit
def k_mm(a, b, y, n, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr, G: tl.constexpr):
    at, down, across = tl.program_id(0), tl.cdiv(n, M), tl.cdiv(n, N)
    group = at // (G * across)
    size = min(down - group * G, G)
    pm, pn = group * G + (at % (G * across)) % size, (at % (G * across)) // size
    rm, rn, rk = pm * M + tl.arange(0, M), pn * N + tl.arange(0, N), tl.arange(0, K)
    pa, pb = a + rm[:, None] * n + rk[None, :], b + rk[:, None] * n + rn[None, :]
    total = tl.zeros((M, N), tl.float32)
    for _ in range(0, n, K):
        total = tl.dot(tl.load(pa), tl.load(pb), total)
        pa += K
        pb += K * n
    tl.store(y + rm[:, None] * n + rn[None, :], total.to(tl.float16))


def rows():
    """Name -> maker of (function, PyTorch's function, bytes, flops)."""
    n, square = 1 << 28, (16384, 8192)
    rand, size = peers.rand, peers.size

    def wise(kernel, theirs, dtype, inputs, n=n):
        def make():
            x = inputs(n, dtype)
            y = torch.empty(n, device="cuda", dtype=dtype)
            return (lambda: (kernel[lambda m: (triton.cdiv(n, m["BLOCK"]),)](*x, y, n), y)[1]), (lambda: theirs(*x)), size(*x, y), 0
        return make

    one = lambda n, t: [rand(n, dtype=t)]
    two = lambda n, t: [rand(n, dtype=t), rand(n, dtype=t)]
    three = lambda n, t: [rand(n, dtype=t) > 0, rand(n, dtype=t), rand(n, dtype=t)]

    def lines(kernel, theirs, dtype, out=None, beside=0):
        def make():
            x, w = rand(*square, dtype=dtype), [rand(square[1], dtype=dtype) for _ in range(beside)]
            y = torch.empty(square if out is None else square[:1], device="cuda", dtype=out or dtype)
            f = lambda: (kernel[(square[0],)](x, *w, y, square[1], BLOCK=square[1]), y)[1]
            return f, (lambda: theirs(x, *w)), size(x, y, *w), 0
        return make

    def columns(split):
        def make():
            x = rand(*square, dtype=SINGLE)
            part, y = torch.empty(split, square[1], device="cuda"), torch.empty(1, square[1], device="cuda")
            grid = lambda s: lambda m: (square[1] // m["BLOCK"], s)

            def f():
                k_columns[grid(split)](x, part, square[0], square[1], SPLIT=split)
                k_columns[grid(1)](part, y, split, square[1], SPLIT=1)
                return y[0]
            return f, (lambda: x.sum(0)), size(x, y), 0
        return make

    def total():
        x = rand(*square, dtype=SINGLE)
        part, last, y = torch.empty(square[0], device="cuda"), torch.empty(2, device="cuda"), torch.empty(1, device="cuda")

        def f():
            k_sum_row[(square[0],)](x, part, square[1], BLOCK=square[1])
            k_sum_row[(1,)](part, y, square[0], BLOCK=square[0])
            return y[0]
        return f, (lambda: x.sum()), size(x), 0

    def transpose():
        x = rand(16384, 16384)
        y = torch.empty_like(x)
        return (lambda: (k_transpose[lambda m: (16384 // m["B"],) * 2](x, y, 16384), y)[1]), (lambda: x.t().contiguous()), 2 * size(x), 0

    def index():
        x, i = rand(1 << 20, 128), torch.randint(0, 1 << 20, (1 << 20,), device="cuda", generator=peers.G)
        y = torch.empty_like(x)
        return (lambda: (k_index[lambda m: ((1 << 20) // m["R"],)](x, i, y, 128, BLOCK=128), y)[1]), (lambda: x[i]), 2 * size(x) + size(i), 0

    def mm():
        a, b, y = rand(4096, 4096), rand(4096, 4096), torch.empty(4096, 4096, device="cuda", dtype=HALF)
        f = lambda: (k_mm[lambda m: ((4096 // m["M"]) * (4096 // m["N"]),)](a, b, y, 4096), y)[1]
        return f, (lambda: a @ b), 3 * size(a), 2 * 4096**3

    F = torch.nn.functional
    return {
        "copy f16": wise(k_copy, lambda x: x, HALF, one), "add f16": wise(k_add, torch.add, HALF, two), "gelu f16": wise(k_gelu, F.gelu, HALF, one),
        "exp f32": wise(k_exp, torch.exp, SINGLE, one, n // 2), "where f16": wise(k_where, torch.where, HALF, three),
        "softmax f16": lines(k_softmax, lambda x: torch.softmax(x, -1), HALF),
        "layer_norm f16": lines(k_layer_norm, lambda x, w, b: F.layer_norm(x, (square[1],), w, b), HALF, beside=2),
        "rms_norm f16": lines(k_rms_norm, lambda x, w: F.rms_norm(x, (square[1],), w, 1e-5), HALF, beside=1),
        "sum all f32": total, "sum dim0 f32": columns(64), "sum dim1 f32": lines(k_sum_row, lambda x: x.sum(1), SINGLE, SINGLE),
        "cumsum f32": lines(k_cumsum, lambda x: x.cumsum(1), SINGLE), "argmax f32": lines(k_argmax, lambda x: x.argmax(1), SINGLE, torch.int64),
        "transpose f16": transpose, "index_select f16": index, "mm f16 4096": mm,
    }


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--rows", default="")
    p.add_argument("--out", default="-")
    args = p.parse_args()
    names, out = {r.strip() for r in args.rows.split(",") if r.strip()}, {}
    for name, make in rows().items():
        if names and name not in names:
            continue
        try:
            f, theirs, moved, flops = make()
            got, want = f(), theirs()
            loose = dict(atol=0.25, rtol=1e-2) if name.startswith("mm") else dict(atol=0.05, rtol=1e-2)
            torch.testing.assert_close(got, want, **loose)
            del got, want
            us, count = peers.device_us(f)
            out[name] = {"us": us, "samples": count, "gb_s": moved / us / 1e3, "tflop_s": flops / us / 1e6}
        except Exception as e:  # a row that does not run is said, not hidden
            out[name] = {"error": f"{type(e).__name__}: {str(e)[:300]}"}
        torch.cuda.empty_cache()
    report = {"date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "device": torch.cuda.get_device_name(), "triton": triton.__version__, "triton_rows": out}
    text = json.dumps(report, indent=1)
    if args.out == "-":
        print(text)
    else:
        with open(args.out, "w") as f:
            f.write(text + "\n")


if __name__ == "__main__":
    sys.exit(main())
