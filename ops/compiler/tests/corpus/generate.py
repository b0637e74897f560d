"""Makes the corpus from kernels.py: for every kernel the text that Triton prints (NAME.ttir) and a call with what NumPy expects (NAME.case).

    $(scripts/python-env DIR triton==3.6.0 numpy ml_dtypes) ops/compiler/tests/corpus/generate.py
    $(scripts/python-env DIR triton==3.9.0 numpy ml_dtypes) ops/compiler/tests/corpus/generate.py versions/3.9 NAME…   (texts only)

No GPU is needed: compilation stops after the Triton dialect. `src/case.rs` says what a .case file holds.
"""
import pathlib
import sys

import cases

HERE = pathlib.Path(__file__).parent

if __name__ == "__main__":
    names = sys.argv[2:]
    folder = HERE / (sys.argv[1] if len(sys.argv) > 1 else "data")
    folder.mkdir(parents=True, exist_ok=True)
    for case in cases.CASES:
        if not names or case.name in names:
            case.write(folder, text_only=bool(names))
