#!/usr/bin/env python3
"""Times PyTorch eager, and FlagGems where it can be imported, on one GPU: median device time by CUDA events, one JSON document out.

Usage: torch_peers.py [--rows NAME,...] [--out FILE]. Rows are named as in the reports of `flagos bench`; bytes count each input read once and each
output written once, flops count a multiply-add as two."""
import argparse, json, statistics, sys, time

import torch
import torch.nn.functional as F

HALF, SINGLE = torch.float16, torch.float32
G = torch.Generator(device="cuda").manual_seed(1)


def rand(*shape, dtype=HALF):
    return torch.randn(*shape, device="cuda", dtype=SINGLE, generator=G).to(dtype)


def size(*tensors):
    return sum(t.numel() * t.element_size() for t in tensors)


def rows():
    """Name -> (maker of (function, bytes, flops)); memory is freed between rows."""
    n, big = 1 << 28, 1 << 26
    square = (16384, 8192)

    def unary(f, dtype, shape=(n,)):
        def make():
            x = rand(*shape, dtype=dtype)
            y = f(x)
            return (lambda: f(x)), size(x, y), 0
        return make

    def add():
        a, b = rand(n), rand(n)
        return (lambda: a + b), 3 * size(a), 0

    def copy():
        a, b = rand(n), torch.empty(n, device="cuda", dtype=HALF)
        return (lambda: b.copy_(a)), 2 * size(a), 0

    def norm(kind):
        def make():
            x, w, b = rand(*square), rand(square[1]), rand(square[1])
            f = (lambda: F.layer_norm(x, (square[1],), w, b)) if kind == "layer" else (lambda: F.rms_norm(x, (square[1],), w))
            return f, 2 * size(x) + 2 * size(w), 0
        return make

    def top(k):
        def make():
            x = rand(4096, 32768, dtype=SINGLE)
            return (lambda: torch.topk(x, k)), size(x), 0
        return make

    def index():
        x, i = rand(1 << 20, 128), torch.randint(0, 1 << 20, (1 << 20,), device="cuda", generator=G)
        return (lambda: torch.index_select(x, 0, i)), 2 * size(x) + size(i), 0

    def where():
        a, b = rand(n), rand(n)
        c = a > 0
        return (lambda: torch.where(c, a, b)), size(c) + 3 * size(a), 0

    def transpose():
        x = rand(16384, 16384)
        return (lambda: x.t().contiguous()), 2 * size(x), 0

    def mm(m, dtype):
        def make():
            a, b = rand(m, m, dtype=dtype), rand(m, m, dtype=dtype)
            return (lambda: a @ b), 3 * size(a), 2 * m**3
        return make

    def bmm():
        a, b = rand(64, 2048, 2048), rand(64, 2048, 2048)
        return (lambda: torch.bmm(a, b)), 3 * size(a), 2 * 64 * 2048**3

    def conv():
        x, w = rand(32, 64, 128, 128), rand(64, 64, 3, 3)
        return (lambda: F.conv2d(x, w, padding=1)), 2 * size(x) + size(w), 2 * 32 * 64 * 64 * 9 * 128 * 128

    def sdpa():
        q, k, v = (rand(4, 32, 2048, 128) for _ in range(3))
        return (lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True)), 4 * size(q), 2 * 4 * 32 * 2048 * 2048 * 128

    return {
        "copy f16": copy, "add f16": add, "gelu f16": unary(F.gelu, HALF), "exp f32": unary(torch.exp, SINGLE, (n // 2,)),
        "softmax f16": unary(lambda x: torch.softmax(x, -1), HALF, square), "layer_norm f16": norm("layer"), "rms_norm f16": norm("rms"),
        "sum all f32": unary(torch.sum, SINGLE, (n // 2,)), "sum dim0 f32": unary(lambda x: x.sum(0), SINGLE, square),
        "sum dim1 f32": unary(lambda x: x.sum(1), SINGLE, square), "cumsum f32": unary(lambda x: x.cumsum(1), SINGLE, square),
        "argmax f32": unary(lambda x: x.argmax(1), SINGLE, square), "topk-32 f32": top(32),
        "sort f32": unary(lambda x: x.sort()[0], SINGLE, (big,)), "index_select f16": index, "where f16": where, "transpose f16": transpose,
        "mm f16 4096": mm(4096, HALF), "mm f32 4096": mm(4096, SINGLE), "bmm f16": bmm, "conv2d f16": conv, "sdpa causal f16": sdpa,
    }


def device_us(f, budget_s=0.5):
    """Median device time of one call in µs; at least 30 samples after a warm-up."""
    for _ in range(5):
        f()
    torch.cuda.synchronize()
    samples, end = [], time.monotonic() + budget_s
    while len(samples) < 30 or (time.monotonic() < end and len(samples) < 500):
        a, b = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        a.record()
        f()
        b.record()
        b.synchronize()
        samples.append(a.elapsed_time(b) * 1e3)
    return statistics.median(samples), len(samples)


def host_us():
    """Host time of add into an existing output of 1,024 f32, enqueue included, no synchronisation."""
    a, b, y = (rand(1024, dtype=SINGLE) for _ in range(3))
    samples = []
    for _ in range(20):
        torch.cuda.synchronize()
        start = time.perf_counter_ns()
        for _ in range(500):
            torch.add(a, b, out=y)
        samples.append((time.perf_counter_ns() - start) / 500e3)
    torch.cuda.synchronize()
    return statistics.median(samples)


def measure(names, out, write):
    """Fills `out` row by row; `write` saves what there is, so that a run that is cut short has not been for nothing."""
    for name, make in rows().items():
        if names and name not in names:
            continue
        try:
            f, moved, flops = make()
            us, count = device_us(f)
            out[name] = {"us": us, "samples": count, "gb_s": moved / us / 1e3, "tflop_s": flops / us / 1e6}
            del f
        except Exception as e:  # a row that a library cannot run is a result too
            out[name] = {"error": f"{type(e).__name__}: {e}"}
        torch.cuda.empty_cache()
        write()


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--rows", default="")
    p.add_argument("--out", default="-")
    args = p.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    names = {r.strip() for r in args.rows.split(",") if r.strip()}
    report = {"date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "device": torch.cuda.get_device_name(), "torch": torch.__version__,
              "host_us_add_1024_f32": {"torch": host_us()}, "eager": {}, "flag_gems": {}}

    def write():
        if args.out != "-":
            with open(args.out, "w") as f:
                f.write(json.dumps(report, indent=1) + "\n")

    measure(names, report["eager"], write)
    try:
        import flag_gems
    except Exception as e:
        report["flag_gems"] = {"error": f"{type(e).__name__}: {e}"}
    else:
        report["flag_gems_version"] = getattr(flag_gems, "__version__", "?")
        with flag_gems.use_gems():
            report["host_us_add_1024_f32"]["flag_gems"] = host_us()
            measure(names, report["flag_gems"], write)
    write()
    if args.out == "-":
        print(json.dumps(report, indent=1))


if __name__ == "__main__":
    sys.exit(main())
