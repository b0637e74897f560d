"""Cases of an operator, and their safetensors file."""

import json
import struct

import numpy
import torch

NAMES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8",
    torch.uint64: "U64", torch.bool: "BOOL", torch.complex64: "C64", torch.complex128: "C128",
}
TORCH = f"pytorch {torch.__version__.split('+')[0]}"


def tensor(value):
    """A contiguous tensor from a tensor, an array or numbers (Python floats become f64, ints i64)."""
    if isinstance(value, torch.Tensor):
        return value.detach().contiguous()
    array = numpy.asarray(value)
    # ascontiguousarray would turn rank 0 into rank 1.
    return torch.from_numpy(array.copy(order="C"))


class Book:
    """The golden cases of one operator (or of `blas`, `fft`)."""

    def __init__(self, operator):
        self.operator, self.cases, self.tensors = operator, [], {}

    def case(self, name, inputs, outputs, source, attrs=None, **more):
        """Adds a case. Inputs may be None (absent). `attrs` are in the catalogue's names; reals that JSON lacks are strings."""
        assert all(c["name"] != name for c in self.cases), f"{self.operator}/{name} exists"
        for kind, group in (("in", inputs), ("out", outputs)):
            for i, value in enumerate(group):
                if value is not None:
                    self.tensors[f"{name}/{kind}{i}"] = tensor(value)
        first = next(t for n, t in self.tensors.items() if n.startswith(f"{name}/"))
        self.cases.append({"name": name, "attrs": attrs or {}, "source": source, "dtype": NAMES[first.dtype].lower(), **more})

    def write(self, folder):
        """Writes `<operator>.safetensors`; equal cases give equal bytes. Returns the size."""
        header = {"__metadata__": {"cases": json.dumps(self.cases, allow_nan=False), "made_by": "conformance/golden/make.py"}}
        body = bytearray()
        # Wide types first, so that every tensor is aligned.
        for name, t in sorted(self.tensors.items(), key=lambda item: (-item[1].element_size(), item[0])):
            data = t.reshape(-1).view(torch.uint8).numpy().tobytes() if t.numel() else b""
            header[name] = {"dtype": NAMES[t.dtype], "shape": list(t.shape), "data_offsets": [len(body), len(body) + len(data)]}
            body += data
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        blob = struct.pack("<Q", len(text)) + text + bytes(body)
        (folder / f"{self.operator}.safetensors").write_bytes(blob)
        return len(blob)
