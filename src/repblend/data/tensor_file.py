"""A safetensors file that is written part by part: its header first, then parts of its tensors, by one run or several.

A whole file has the bytes that `repblend.store.write_tensors` would give it, but its tensors are never in memory. The
format, as safetensors defines it: the header's length (8 bytes, little-endian), the header (JSON, filled up with spaces
to a multiple of 8 bytes), then the tensors, widest type first, then by name.
"""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
from torch import Tensor

from repblend.store import METADATA_KEY

ALIGNMENT = 8
FORMAT_NAMES = {"float16": "F16", "float32": "F32", "int64": "I64"}


class TensorSpec(NamedTuple):
    """A tensor that is going to be written."""

    dtype: str
    """`float16`, `float32` or `int64`."""
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


class TensorFile:
    """Where the tensors of an unfinished file lie. Nothing is buffered; `sync` makes what was written last."""

    def __init__(self, path: Path, specs: Mapping[str, TensorSpec]) -> None:
        """Open a file for writing; what an earlier run wrote into it stays. Its folder must exist."""
        self._path, self._specs = path, dict(specs)
        names = sorted(specs, key=lambda name: (-np.dtype(specs[name].dtype).itemsize, name))
        ends = np.cumsum([specs[name].num_bytes for name in names]).tolist()
        spans = {name: (end - specs[name].num_bytes, end) for name, end in zip(names, ends, strict=True)}
        header = _header(self._specs, spans)
        self._starts = {name: len(header) + start for name, (start, _) in spans.items()}
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        os.truncate(self._descriptor, len(header) + ends[-1])
        _write_all(self._descriptor, header, 0)

    @property
    def name(self) -> str:
        return self._path.name

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def write(self, name: str, row: int, values: Tensor) -> None:
        """Write rows that follow one another in a tensor.

        Args:
            row: number of the first one, all axes but the last counted as one; of a tensor with one axis, its position.
            values: any type that the tensor's can hold; converted to it.

        Raises:
            ValueError: a value is NaN or infinite (as float16: above 65,504); nothing is written.
        """
        dtype, shape = self._specs[name]
        with np.errstate(over="ignore"):  # refused below
            array = np.require(values.detach().cpu().numpy(), dtype, "C")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ValueError(f"{self.name}: tensor '{name}' holds NaN or infinity (as {dtype}); "
                             "the computation before it diverged")
        first = row * (shape[-1] if len(shape) > 1 else 1)
        assert first + array.size <= math.prod(shape), f"{name}: {array.shape} from row {row} on leaves {shape}"
        _write_all(self._descriptor, array.tobytes(), self._starts[name] + first * array.itemsize)

    def sync(self) -> None:
        """Return when everything written is on the disk."""
        os.fsync(self._descriptor)


def _header(specs: Mapping[str, TensorSpec], spans: Mapping[str, tuple[int, int]]) -> bytes:
    entries = {name: {"dtype": FORMAT_NAMES[specs[name].dtype], "shape": list(specs[name].shape),
                      "data_offsets": list(span)} for name, span in spans.items()}
    text = json.dumps({"__metadata__": {METADATA_KEY: "{}"}} | entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def _write_all(descriptor: int, content: bytes, offset: int) -> None:
    """`pwrite` may write less than it is given, as when the disk gets full; then it says so the next time."""
    rest = memoryview(content)
    while rest:
        written = os.pwrite(descriptor, rest, offset)
        rest, offset = rest[written:], offset + written
