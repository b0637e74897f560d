#!/usr/bin/env python3
"""Times the peers and prints JSON lines: peers.py [BENCH…], all without arguments. `scripts/bench/setup` prepares them.

Keys: bench, size, dtype, threads, peer, version, median_ns, p10, p90 (ns), samples, and gflops or gbs (GB/s read and written).
"""

import ctypes
import json
import os
import pathlib
import subprocess
import sys
import time

THREADS = 2
WARM, SPAN, LEAST = 0.5, 1.5, 31


def native():
    """(bench, arguments of the C program)."""
    for dtype in ("f32", "f64"):
        for n in (512, 1024, 2048):
            yield "gemm", ["gemm", dtype, n, THREADS]
    for power in range(8, 21):
        for threads in (1, THREADS):
            yield "fft.c2c", ["fft", "f32", 2**power, threads]


def pytorch():
    """bench → (size, function that makes the work, bytes it reads and writes); outputs are preallocated where PyTorch lets them be."""
    import torch
    from torch._C import _nn
    from torch.nn import functional

    torch.set_num_threads(THREADS)
    # What layer_norm allocates comes from memory already mapped: M_MMAP_MAX = 0, M_TRIM_THRESHOLD beyond any use.
    libc = ctypes.CDLL(None)
    libc.mallopt(-4, 0), libc.mallopt(-1, 2**31 - 1)
    n, rows = 1 << 24, 4096

    def flat():
        return torch.randn(n), torch.randn(n), torch.empty(n)

    def square():
        return torch.randn(rows, rows), torch.empty(rows, rows)

    def add():
        a, b, y = flat()
        return lambda: torch.add(a, b, out=y)

    def exp():
        a, _, y = flat()
        return lambda: torch.exp(a, out=y)

    def gelu():
        a, _, y = flat()
        return lambda: _nn.gelu(a, out=y)

    def total():
        a, y = torch.randn(n), torch.empty(())
        return lambda: torch.sum(a, dim=0, out=y)

    def softmax():
        x, y = square()
        return lambda: torch.softmax(x, -1, out=y)

    def layer_norm():
        # Its variant with outputs computes aside and copies.
        (x, _), w, b = square(), torch.ones(rows), torch.zeros(rows)
        return lambda: functional.layer_norm(x, [rows], w, b)

    return {"add": ("16M", add, 12 * n), "exp": ("16M", exp, 8 * n), "gelu": ("16M", gelu, 8 * n), "sum": ("16M", total, 4 * n),
            "softmax": ("4096x4096", softmax, 8 * n), "layer_norm": ("4096x4096", layer_norm, 8 * n)}


def measure(work):
    """Sorted times in ns."""
    start = time.perf_counter()
    while time.perf_counter() - start < WARM:
        work()
    samples, start = [], time.perf_counter()
    while len(samples) < LEAST or time.perf_counter() - start < SPAN:
        before = time.perf_counter_ns()
        work()
        samples.append(time.perf_counter_ns() - before)
    return sorted(samples)


def main():
    root = pathlib.Path(__file__).resolve().parents[2]
    folder = pathlib.Path(os.environ.get("FLAGOS_BENCH", root / "target/bench"))
    wanted = sys.argv[1:]
    if not (folder / "peers").exists():
        sys.exit(f"{folder}/peers is missing: run scripts/bench/setup")
    names = {"gemm", "fft.c2c", "add", "exp", "gelu", "sum", "softmax", "layer_norm"}
    if unknown := set(wanted) - names:
        sys.exit(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(sorted(names))}")
    for bench, arguments in native():
        if not wanted or bench in wanted:
            subprocess.run([folder / "peers", *map(str, arguments)], check=True)
    if not wanted or set(wanted) - {"gemm", "fft.c2c"}:
        import torch

        with torch.inference_mode():
            for bench, (size, make, moved) in pytorch().items():
                if not wanted or bench in wanted:
                    s = measure(make())
                    median = s[len(s) // 2]
                    line = {"bench": bench, "size": size, "dtype": "f32", "threads": THREADS, "peer": "pytorch", "version": torch.__version__, "median_ns": median,
                            "p10": s[len(s) // 10], "p90": s[len(s) * 9 // 10], "samples": len(s), "gbs": round(moved / median, 2)}
                    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
