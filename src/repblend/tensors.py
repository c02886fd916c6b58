"""Tensors on disk: checked safetensors, written whole or part by part, never pickled.

A file is either whole or absent (`repblend.store`); what takes longer to make than a run may last is written part by
part (`TensorFile`).
"""

import contextlib
import itertools
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import safetensors

from repblend.files import HEAD, named, open_given, parse_json
from repblend.store import JSON, atomic_path

# The safetensors format, which the library only writes from memory: the header's length (8 bytes, little-endian), the
# header (JSON, filled up with spaces to a multiple of 8 bytes), the tensors in the order of their types and names.

METADATA_KEY = "repblend"
ALIGNMENT = 8
TORCH_ALIGNMENT = 64
"""Bytes of which the address of a tensor in torch's own memory is a multiple."""
FORMAT_NAMES = {"uint64": "U64", "int64": "I64", "float64": "F64", "float32": "F32", "uint32": "U32", "int32": "I32",
                "float16": "F16", "uint16": "U16", "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL"}
"""NumPy's name of a type -> the format's, in the order in which the library writes them."""


class TensorSpec(NamedTuple):
    """A tensor that is going to be written."""

    dtype: str
    """A key of `FORMAT_NAMES`."""
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        """Bytes of its values."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


class TensorFile:
    """A safetensors file that is written part by part, by one run or several, to the bytes that the library gives.

    Nothing is buffered; `sync` makes what was written last.
    """

    def __init__(self, path: Path, specs: Mapping[str, TensorSpec], metadata: JSON | None = None,
                 shown: object = None) -> None:
        """Open a file for writing; what an earlier run wrote into it stays. Its folder must exist.

        Args:
            metadata: anything JSON can hold. It is kept in the header under one key, because the library writes
                several keys in an order that changes from process to process.
            shown: what errors call the file; by default its name.
        """
        self.name, self._shown, self._specs = path.name, shown or path.name, dict(specs)
        order = list(FORMAT_NAMES)
        names = sorted(specs, key=lambda name: (order.index(specs[name].dtype), name))
        ends = list(itertools.accumulate((specs[name].num_bytes for name in names), initial=0))
        header = {"__metadata__": {METADATA_KEY: json.dumps(metadata or {}, sort_keys=True)}} | {
            name: {"dtype": FORMAT_NAMES[specs[name].dtype], "shape": list(specs[name].shape),
                   "data_offsets": list(span)}
            for name, span in zip(names, itertools.pairwise(ends), strict=True)}
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        text += b" " * (-len(text) % ALIGNMENT)
        self._starts = {name: 8 + len(text) + start for name, start in zip(names, ends, strict=False)}
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        os.truncate(self._descriptor, 8 + len(text) + ends[-1])
        self._write_at(0, len(text).to_bytes(8, "little") + text)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def write(self, name: str, row: int, values: Any) -> None:
        """Write rows that follow one another in a tensor.

        Args:
            row: number of the first one, all axes but the last counted as one; of a tensor with one axis, its position.
            values: torch tensor (any device) or NumPy array of a type that the tensor's can hold; converted to it.

        Raises:
            ValueError: a value is NaN or infinite (as float16: above 65,504); nothing is written.
        """
        dtype, shape = self._specs[name]
        with np.errstate(over="ignore"):  # refused below
            array = _array(values, dtype)
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ValueError(f"{self._shown}: tensor '{name}' holds NaN or infinity as {dtype}, expected finite "
                             "numbers; the computation before it diverged. Lower its learning rates")
        first = row * (shape[-1] if len(shape) > 1 else 1)
        assert first + array.size <= math.prod(shape), f"{name}: {array.shape} from row {row} on leaves {shape}"
        self._write_at(self._starts[name] + first * array.itemsize, array.reshape(-1).view(np.uint8).data)

    def sync(self) -> None:
        """Return when everything written is on the disk."""
        os.fsync(self._descriptor)

    def _write_at(self, offset: int, content: bytes | memoryview) -> None:
        """`pwrite` may write less than it is given, as when the disk gets full; then it says so the next time."""
        rest = memoryview(content)
        while rest:
            written = os.pwrite(self._descriptor, rest, offset)
            rest, offset = rest[written:], offset + written


def write_tensors(path: Path, tensors: Mapping[str, Any], metadata: JSON | None = None) -> None:
    """Write tensors as safetensors, atomically and with the same bytes for the same content.

    Args:
        tensors: name to torch tensor (any device) or NumPy array.
        metadata: anything JSON can hold.

    Raises:
        ValueError: a floating-point tensor holds NaN or infinity; nothing is written.
    """
    arrays = {name: _array(tensor) for name, tensor in tensors.items()}
    specs = {name: TensorSpec(array.dtype.name, array.shape) for name, array in arrays.items()}
    stream_tensors(path, specs, arrays.items(), metadata)


def stream_tensors(path: Path, specs: Mapping[str, TensorSpec], tensors: Iterable[tuple[str, Any]],
                   metadata: JSON | None = None) -> None:
    """Write tensors as `write_tensors` does, to the same bytes, with one at a time in memory.

    Args:
        specs: all tensors by their names.
        tensors: each name with its tensor, in any order.

    Raises:
        ValueError: as `write_tensors`.
    """
    with atomic_path(path) as aside, TensorFile(aside, specs, metadata, path) as file:
        for name, tensor in tensors:
            file.write(name, 0, tensor)


def _array(tensor: Any, dtype: str | None = None) -> "np.ndarray[Any, Any]":
    if hasattr(tensor, "detach"):
        tensor = tensor.detach().cpu().numpy()
    return np.require(tensor, dtype, "C")  # unlike `ascontiguousarray`, leaves a scalar a scalar


@contextlib.contextmanager
def open_tensors(path: Path, framework: str = "pt") -> Iterator[Any]:
    """Open a safetensors file for reading single tensors or slices without loading the rest.

    Args:
        framework: `"pt"` for torch tensors, `"np"` for NumPy arrays (does not import torch).

    Raises:
        ValueError: the file is missing, truncated or not safetensors, or a tensor asked for is not in it.
    """
    expected = "a whole safetensors file"
    remedy = "It is truncated or damaged: delete it and run `repro run`"
    try:
        with open_given(path, "tensors") as given:
            head = given.read(HEAD)
    except FileNotFoundError as error:
        raise ValueError(f"{path}: no such file. Run the stage that writes it (`repro run`)") from error
    with named(path, expected, remedy, head):
        opened = safetensors.safe_open(path, framework=framework)
    try:
        with opened as file:
            yield file
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path}: expected {expected} ({error}). {remedy}") from error


def read_tensors(path: Path, framework: str = "pt", mapped: bool = False) -> tuple[dict[str, Any], JSON]:
    """Read a whole safetensors file: its tensors, `aligned`, and its metadata.

    Args:
        mapped: leave tensors where they lie in the file, and read what is used of them when it is.

    Raises:
        ValueError: as `open_tensors`.
    """
    with open_tensors(path, framework) as file:
        metadata = read_metadata(file, path)
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        return tensors if mapped else {name: aligned(value) for name, value in tensors.items()}, metadata


def aligned(tensor: Any) -> Any:
    """Return a tensor that was read where torch puts its own: a copy, unless it lies there already.

    Products of small matrices have other last bits elsewhere, and what was read, as by a resumed run, must give the
    bytes of what was computed.
    """
    if hasattr(tensor, "data_ptr") and tensor.data_ptr() % TORCH_ALIGNMENT:
        return tensor.clone()
    return tensor


def read_metadata(file: Any, path: Path) -> JSON:
    """Return the metadata that `write_tensors` put into an open safetensors file (empty if it put none)."""
    text = (file.metadata() or {}).get(METADATA_KEY, "{}")
    metadata = parse_json(text, f"{path}, metadata")
    if not isinstance(metadata, dict):
        raise ValueError(f"{path}, metadata: expected an object, found {text[:80]!r}. Make it again")
    return metadata
