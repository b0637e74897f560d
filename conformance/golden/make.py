#!/usr/bin/env python3
"""Makes golden vectors: make.py [OPERATOR…] writes `<operator>.safetensors` beside this file; all of them without arguments."""

import pathlib
import sys

import torch

from sources import contraction, elementwise, philox, pointwise, tensors, transforms

SOURCES = [pointwise, elementwise, tensors, philox, contraction, transforms]


def main():
    torch.set_num_threads(1)
    wanted = set(sys.argv[1:])
    books = [book for source in SOURCES for book in source.books()]
    unknown = wanted - {book.operator for book in books}
    if unknown:
        sys.exit(f"no golden cases for {', '.join(sorted(unknown))}")
    folder = pathlib.Path(__file__).parent
    total = 0
    for book in books:
        if not wanted or book.operator in wanted:
            total += book.write(folder)
    print(f"{len(books)} operators, {sum(len(b.cases) for b in books)} cases, {total} bytes written")


if __name__ == "__main__":
    main()
