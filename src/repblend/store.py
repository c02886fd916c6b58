"""Files that are either whole or absent: atomic writes, canonical JSON, checked safetensors, SHA-256.

Everything is written beside its target and renamed, so a reader (or a run after `kill -9`) never sees half a file.
What takes longer to make than a run may last is written part by part (`TensorFile`). Nothing here is ever pickled.
"""

import contextlib
import errno
import hashlib
import itertools
import json
import math
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import safetensors

from repblend.files import HEAD, named, open_given, parse_json, read_text

JSON = dict[str, Any]


@contextlib.contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield a path beside `target`; on success it replaces the target in one step, on any failure it is removed.

    Works for a file and for a folder (the caller creates which it wants); an existing target folder is replaced. One
    process at a time may write a target (the stages' locks see to that): leftovers of a killed one are removed.

    Raises:
        OSError: the disk is full or not writable; the message names the target and what to do.
        ValueError: as `refuse_links`.
    """
    refuse_links(target).parent.mkdir(parents=True, exist_ok=True)
    for left_by_a_killed_run in target.parent.glob(f".{target.name}.*.partial"):
        _remove(left_by_a_killed_run)
    aside, old = (target.with_name(f".{target.name}.{os.getpid()}{kind}.partial") for kind in ("", ".old"))
    try:
        yield aside
        _sync(aside)
        if target.is_dir():
            target.rename(old)  # removing takes long, and half of a folder must never have its name
        aside.replace(target)
        _sync(target.parent)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OSError(error.errno, f"{target}: no space left while writing. Nothing was kept of it; "
                          "free some disk space and run the same command again") from error
        raise
    finally:
        _remove(aside)
        _remove(old)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Flush a file, or a folder's entries, to the disk: a rename must not survive a power cut that its bytes do not."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_sha256(path: Path, expected: str) -> None:
    """Check the bytes of a file that arrived with a Python package.

    Raises:
        ValueError: the file is missing or has other bytes than expected.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such checkpoint. Install the locked requirements again")
    if (found := sha256(path)) != expected:
        raise ValueError(f"{path}: SHA-256 is {found}, expected {expected}. The file is damaged or of another version: "
                         "install the locked requirements again")


def folder_sha256(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file in a folder, by its relative path."""
    return {str(path.relative_to(folder)): sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically."""
    with atomic_path(path) as aside:
        aside.write_bytes(content)


def write_json(path: Path, content: Any) -> None:
    """Write canonical JSON atomically: sorted keys, UTF-8, a final newline, and no NaN or infinity.

    Raises:
        ValueError: a number is not finite.
    """
    try:
        text = json.dumps(content, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise ValueError(f"{path}: a value to be written is NaN or infinite, expected finite numbers; the computation "
                         "before it diverged. Lower its learning rates") from error
    write_bytes(path, (text + "\n").encode())


def read_json(path: Path, inside: Path | None = None) -> Any:
    """Read a JSON file.

    Args:
        inside: the folder of the set that it belongs to, if somebody gave it to us.

    Raises:
        ValueError: the file is missing, leaves its folder, is too large, not UTF-8 or not JSON; the message names the
            file and the line.
    """
    try:
        return parse_json(read_text(path, "text", inside), path)
    except FileNotFoundError as error:
        raise ValueError(f"{path}: no such file. Put it there, or run the stage that writes it "
                         "(`repro run`)") from error


# The safetensors format, which the library only writes from memory: the header's length (8 bytes, little-endian), the
# header (JSON, filled up with spaces to a multiple of 8 bytes), the tensors in the order of their types and names.

METADATA_KEY = "repblend"
ALIGNMENT = 8
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


def read_tensors(path: Path, framework: str = "pt") -> tuple[dict[str, Any], JSON]:
    """Read a whole safetensors file: its tensors and its metadata.

    Raises:
        ValueError: as `open_tensors`.
    """
    with open_tensors(path, framework) as file:
        return {name: file.get_tensor(name) for name in file.keys()}, read_metadata(file, path)  # noqa: SIM118 (no mapping)


def read_metadata(file: Any, path: Path) -> JSON:
    """Return the metadata that `write_tensors` put into an open safetensors file (empty if it put none)."""
    text = (file.metadata() or {}).get(METADATA_KEY, "{}")
    metadata = parse_json(text, f"{path}, metadata")
    if not isinstance(metadata, dict):
        raise ValueError(f"{path}, metadata: expected an object, found {text[:80]!r}. Make it again")
    return metadata


def quoted(value: object) -> str:
    """Return a value as an error quotes it: the beginning is enough of a long one."""
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."


def fingerprint(content: Any) -> str:
    """Return the SHA-256 of anything JSON can hold, the same for the same content in any order of keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, allow_nan=False).encode()).hexdigest()


# The clone: outputs lie in a workspace inside of it, sources and the locked environment in its own folders.

SOURCES = Path("src/repblend")
"""The package as seen from the clone."""


def repository_of(workspace: Path) -> Path:
    """Return the clone that a workspace lies in: the nearest folder, from the workspace upwards, that has the sources,
    or the workspace itself if none has. A profile's workspace is `profiles/<name>` in the clone.
    """
    return next((folder for folder in (workspace, *workspace.parents) if (folder / SOURCES).is_dir()), workspace)


MAY_BE_LINKS = re.compile(r"data/(?!(prepared|hub)$)[^/]+|\.dvc/cache")
"""In a clone: a user's data sets, and DVC's cache, which may lie on another disk."""


def refuse_links(path: Path) -> Path:
    """Return a path that is going to be written if no part of it, from its clone on downwards, is a link: what writes
    into a clone writes nowhere else, whoever put a link there. Every writer asks this.

    Raises:
        ValueError: a part is a link; the message says how to use a larger disk without one.
    """
    path = path.absolute()
    root = repository_of(path)
    parts = [part for part in (*reversed(path.parents), path) if part.is_relative_to(root) and part != root]
    link = next((part for part in parts if part.is_symlink()), None) if root != path else None
    if link and not MAY_BE_LINKS.fullmatch(link.relative_to(root).as_posix()):
        raise ValueError(f"{link}: a link to {link.readlink()}, expected a plain file or folder: what is written in a "
                         "clone stays there. Remove the link. For a larger disk, put the whole clone there, or DVC's "
                         "cache (`dvc cache dir --local PATH`)")
    return path
