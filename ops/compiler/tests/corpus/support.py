"""What cases.py is written with: buffers, calls, and Triton stopped after the Triton dialect."""
import re

import ml_dtypes
import numpy as np
import triton
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import CUDABackend
from triton.compiler import ASTSource

TYPES = {  # NumPy's type: Triton's name, the IR's name
    np.dtype(np.bool_): ("i1", "i1"),
    np.dtype(np.int8): ("i8", "i8"),
    np.dtype(np.uint8): ("u8", "i8"),
    np.dtype(np.int16): ("i16", "i16"),
    np.dtype(np.uint16): ("u16", "i16"),
    np.dtype(np.int32): ("i32", "i32"),
    np.dtype(np.uint32): ("u32", "i32"),
    np.dtype(np.int64): ("i64", "i64"),
    np.dtype(np.uint64): ("u64", "i64"),
    np.dtype(np.float16): ("fp16", "f16"),
    np.dtype(ml_dtypes.bfloat16): ("bf16", "bf16"),
    np.dtype(ml_dtypes.float8_e4m3fn): ("fp8e4nv", "f8E4M3FN"),
    np.dtype(ml_dtypes.float8_e5m2): ("fp8e5", "f8E5M2"),
    np.dtype(np.float32): ("fp32", "f32"),
    np.dtype(np.float64): ("fp64", "f64"),
}


class Captured(Exception):
    pass


_add_stages = CUDABackend.add_stages


def _only_ttir(self, stages, *rest):
    _add_stages(self, stages, *rest)
    make = stages["ttir"]

    def stop(source, metadata):
        raise Captured(str(make(source, metadata)))

    stages["ttir"] = stop


CUDABackend.add_stages = _only_ttir


def ttir(kernel, signature, constants, attributes):
    try:
        source = ASTSource(kernel, {**signature, **{name: "constexpr" for name in constants}}, constants, attributes)
        triton.compile(source, target=GPUTarget("cuda", 90, 32))
    except Captured as captured:
        # Locations name files by their full path; the name alone is enough.
        return re.sub(r'"[^"\n]*/([^"/\n]+\.py)"', r'"\1"', captured.args[0])
    raise RuntimeError("Triton did not stop after the Triton dialect")


class Buffer:
    def __init__(self, before, after, relative=0.0, absolute=0.0, any_order=False):
        self.before, self.after, self.relative, self.absolute, self.any_order = before, after, relative, absolute, any_order


def given(array):
    """A buffer that is only read."""
    return Buffer(np.ascontiguousarray(array), None)


def made(array, relative=0.0, absolute=0.0, any_order=False):
    """A buffer of zeros in which the kernel leaves `array`, its elements in any order where blocks write them as they come to run."""
    return Buffer(None, np.ascontiguousarray(array), relative, absolute, any_order)


def changed(before, after, relative=0.0, absolute=0.0):
    return Buffer(np.ascontiguousarray(before), np.ascontiguousarray(after), relative, absolute)


class Case:
    def __init__(self, name, kernel, grid, arguments, constants, aligned=True):
        self.name, self.kernel, self.arguments, self.constants, self.aligned = name, kernel, arguments, constants, aligned
        self.grid = tuple(grid) + (1,) * (3 - len(grid))

    def write(self, folder, text_only=False):
        signature, attributes, header, data = {}, {}, [], []
        header.append(f"entry {self.kernel.fn.__name__}")
        header.append("grid {} {} {}".format(*self.grid))
        # Constants are counted among the parameters by their place.
        places = {name: i for i, name in enumerate(self.kernel.arg_names)}
        for name, value in self.arguments.items():
            if isinstance(value, Buffer):
                array = value.before if value.before is not None else value.after
                triton_name, ir_name = TYPES[array.dtype]
                signature[name] = "*" + triton_name
                if self.aligned:
                    attributes[(places[name],)] = [["tt.divisibility", 16]]
                kind = "in" if value.after is None else "out" if value.before is None else "inout"
                header.append(f"buffer {ir_name} {array.size} {kind} {value.relative!r} {value.absolute!r}" + (" any-order" if value.any_order else ""))
                data += [a.tobytes() for a in (value.before, value.after) if a is not None]
            else:
                value = np.int32(value) if isinstance(value, int) else np.float32(value) if isinstance(value, float) else value
                triton_name, ir_name = TYPES[value.dtype]
                signature[name] = triton_name
                header.append(f"scalar {ir_name} {int.from_bytes(value.tobytes(), 'little'):x}")
        order = [n for n in self.kernel.arg_names if n in signature or n in self.constants]
        signature = {n: signature.get(n, "constexpr") for n in order}
        text = ttir(self.kernel, signature, self.constants, attributes)
        (folder / f"{self.name}.ttir").write_text(text)
        if not text_only:
            (folder / f"{self.name}.case").write_bytes(("\n".join(header) + "\n\n").encode() + b"".join(data))
