"""Philox 4x32-10 written from its paper (Salmon et al., SC 2011), and the numbers made of its words at 50 digits."""

import torch
from mpmath import mp, mpf

from .exact import rounded
from .store import Book

MASK = 2**32 - 1
SOURCE = "Philox from its paper, checked with its authors' known answers; mpmath, 50 digits"


def philox(counter, key):
    c, k = list(counter), list(key)
    for _ in range(10):
        low, high = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(high >> 32) ^ c[1] ^ k[0], high & MASK, (low >> 32) ^ c[3] ^ k[1], low & MASK]
        k = [(k[0] + 0x9E3779B9) & MASK, (k[1] + 0xBB67AE85) & MASK]
    return c


# Known answers, from kat_vectors of Random123.
for counter, key, words in (
    ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    ([MASK] * 4, [MASK] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    ([0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344], [0xA4093822, 0x299F31D0], [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]),
):
    assert philox(counter, key) == words


def block(seed, offset, i):
    counter = (offset + i) % 2**64
    return philox([counter & MASK, counter >> 32, 0, 0], [seed & MASK, seed >> 32])


def unit53(a, b):
    return mpf((a >> 5) * 2**26 + (b >> 6)) / 2**53


def uniforms(seed, offset, n, wide, low, high):
    for i in range(n):
        w = block(seed, offset, i // (2 if wide else 4))
        u = unit53(*w[i % 2 * 2 :][:2]) if wide else mpf(w[i % 4] >> 8) / 2**24
        yield mpf(low) + (mpf(high) - mpf(low)) * u


def normals(seed, offset, n, wide, mean, std):
    for i in range(n):
        w = block(seed, offset, i // (2 if wide else 4))
        if wide:
            u1, u2 = unit53(w[0], w[1]) + mpf(2) ** -53, unit53(w[2], w[3])
        else:
            pair = w[i % 4 // 2 * 2 :][:2]
            u1, u2 = mpf((pair[0] >> 8) + 1) / 2**24, mpf(pair[1] >> 8) / 2**24
        turn = mp.sin if i % 2 else mp.cos
        yield mpf(mean) + mpf(std) * mp.sqrt(-2 * mp.log(u1)) * turn(2 * mp.pi * u2)


def books():
    for name, f, defaults, changed in (("uniform", uniforms, (0.0, 1.0), (-2.5, 5.25)), ("normal", normals, (0.0, 1.0), (-3.0, 0.25))):
        book = Book(name)
        names = ("low", "high") if name == "uniform" else ("mean", "std")

        def case(label, seed, offset, shape, dtype, bounds=defaults):
            n = torch.Size(shape).numel()
            y = rounded(f(seed, offset, n, dtype == torch.float64, *bounds), dtype, shape)
            attrs = {} if bounds == defaults else dict(zip(names, bounds))
            book.case(label, [torch.tensor([seed, offset], dtype=torch.uint64)], [y], SOURCE, attrs)

        case("zeros", 0, 0, (10,), torch.float32)
        case("seed", 0x0123456789ABCDEF, 0, (3, 7), torch.float32)
        case("offset", 42, 2**32 - 2, (13,), torch.float32)
        case("offset-wraps", 2**64 - 1, 2**64 - 2, (13,), torch.float32)
        case("changed", 7, 5, (9,), torch.float32, changed)
        case("f64", 42, 3, (11,), torch.float64)
        case("f64-changed", 42, 3, (2, 5), torch.float64, changed)
        case("f16", 99, 1, (9,), torch.float16)
        case("bf16", 99, 1, (9,), torch.bfloat16)
        case("scalar", 5, 5, (), torch.float32)
        case("empty", 5, 5, (2, 0), torch.float32)
        yield book
