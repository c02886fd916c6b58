"""Files that are either whole or absent: atomic writes, canonical JSON, checked safetensors, SHA-256.

Everything is written beside its target and renamed, so a reader (or a run after `kill -9`) never sees half a file.
Nothing here is ever pickled.
"""

import contextlib
import errno
import hashlib
import itertools
import json
import math
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

JSON = dict[str, Any]
METADATA_KEY = "repblend"


@contextlib.contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield a path beside `target`; on success it replaces the target in one step, on any failure it is removed.

    Works for a file and for a folder (the caller creates which it wants); an existing target folder is replaced. One
    process at a time may write a target (the stages' locks see to that): leftovers of a killed one are removed.

    Raises:
        OSError: the disk is full or not writable; the message names the target and what to do.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    for left_by_a_killed_run in target.parent.glob(f".{target.name}.*.partial"):
        _remove(left_by_a_killed_run)
    aside = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        yield aside
        _sync(aside)
        if target.is_dir():
            shutil.rmtree(target)
        aside.replace(target)
        _sync(target.parent)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OSError(error.errno, f"{target}: no space left while writing. Nothing was kept of it; "
                          "free some disk space and run the same command again") from error
        raise
    finally:
        _remove(aside)


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
        raise ValueError(f"{path}: a value to be written is NaN or infinite; "
                         "the computation before it diverged") from error
    write_bytes(path, (text + "\n").encode())


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        ValueError: the file is missing, not UTF-8 or not JSON; the message names the file and the line.
    """
    try:
        return json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise ValueError(f"{path}: no such file. Run the stage that writes it (`dvc repro`)") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected UTF-8 text, byte {error.start} is not") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}, line {error.lineno}: expected JSON, {error.msg}") from error


def write_tensors(path: Path, tensors: Mapping[str, Any], metadata: JSON | None = None) -> None:
    """Write tensors as safetensors, atomically and with the same bytes for the same content.

    Args:
        tensors: name to torch tensor (any device) or NumPy array.
        metadata: anything JSON can hold. It is kept in the header under one key, because the library writes
            several keys in an order that changes from process to process.

    Raises:
        ValueError: a floating-point tensor holds NaN or infinity; nothing is written.
    """
    arrays = {name: _array(tensors[name]) for name in sorted(tensors)}
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ValueError(f"{path}: tensor '{name}' holds NaN or infinity; the computation before it diverged")
    header = {METADATA_KEY: json.dumps(metadata or {}, sort_keys=True)}
    # Not `save_file`: its error for a full disk cannot be told from its error for a wrong file.
    write_bytes(path, safetensors.numpy.save(arrays, metadata=header))


def write_float_tensors(path: Path, shapes: Mapping[str, tuple[int, ...]], tensors: Iterable[Any],
                        metadata: JSON | None = None) -> None:
    """Write float32 tensors as `write_tensors` does, to the same bytes, with one at a time in memory.

    Args:
        shapes: name -> shape of every tensor.
        tensors: the tensors, torch or NumPy, in the order of their sorted names.

    Raises:
        ValueError: a tensor holds NaN or infinity; nothing is written.
    """
    offsets = [0, *itertools.accumulate(4 * math.prod(shapes[name]) for name in sorted(shapes))]
    header = {"__metadata__": {METADATA_KEY: json.dumps(metadata or {}, sort_keys=True)}} | {
        name: {"dtype": "F32", "shape": list(shapes[name]), "data_offsets": list(place)}
        for name, place in zip(sorted(shapes), itertools.pairwise(offsets), strict=True)}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with atomic_path(path) as aside, aside.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, tensor in zip(sorted(shapes), tensors, strict=True):
            array = _array(tensor)
            assert array.dtype == np.float32 and array.shape == shapes[name], name
            if not np.isfinite(array).all():
                raise ValueError(f"{path}: tensor '{name}' holds NaN or infinity; the computation before it diverged")
            file.write(array.data)


def _array(tensor: Any) -> np.ndarray:
    if hasattr(tensor, "detach"):
        tensor = tensor.detach().cpu().numpy()
    return np.require(tensor, requirements="C")  # unlike `ascontiguousarray`, leaves a scalar a scalar


@contextlib.contextmanager
def open_tensors(path: Path, framework: str = "pt") -> Iterator[Any]:
    """Open a safetensors file for reading single tensors or slices without loading the rest.

    Args:
        framework: `"pt"` for torch tensors, `"np"` for NumPy arrays (does not import torch).

    Raises:
        ValueError: the file is missing, truncated or not safetensors, or a tensor asked for is not in it.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file. Run the stage that writes it (`dvc repro`)")
    try:
        with safetensors.safe_open(path, framework=framework) as file:
            yield file
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path}: expected a whole safetensors file ({error}). "
                         "It is truncated or damaged: delete it and run `dvc repro`") from error


def read_tensors(path: Path, framework: str = "pt") -> tuple[dict[str, Any], JSON]:
    """Read a whole safetensors file: its tensors and its metadata.

    Raises:
        ValueError: as `open_tensors`.
    """
    with open_tensors(path, framework) as file:
        return {name: file.get_tensor(name) for name in file.keys()}, read_metadata(file)  # noqa: SIM118 (no mapping)


def read_metadata(file: Any) -> JSON:
    """Return the metadata that `write_tensors` put into an open safetensors file (empty if it put none)."""
    return json.loads((file.metadata() or {}).get(METADATA_KEY, "{}"))


def fingerprint(content: Any) -> str:
    """Return the SHA-256 of anything JSON can hold, the same for the same content in any order of keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, allow_nan=False).encode()).hexdigest()
