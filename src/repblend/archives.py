"""Archives that somebody gave us, and what is kept in them: files of a set, arrays (`.npz`), tensors (`.pt`).

The one place that looks into ZIP and tar. What an archive announces is held against stated limits before anything is
unpacked or allocated. Links and other special members are refused whatever they lead to, which is more than the
standard library's `data` filter asks for, and the same for both kinds.
"""

import gzip
import io
import math
import os
import pickle
import shutil
import stat
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from repblend.files import HEAD, LIMITS, MIB, Kind, Refusal, named, open_given, size_of
from repblend.progress import progress

MAX_MEMBERS = 1_000_000
MAX_MEMBER_BYTES = 2048 * MIB
MAX_RATIO = 100
"""Bytes that come out of an archive for each of its own; images give about one."""
ALWAYS_ALLOWED = 16 * MIB
"""Bytes that may come out whatever the ratio."""
MAX_DIRECTORY_BYTES, MAX_HEADER_BYTES = 256 * MIB, 32 << 10
"""Of a ZIP archive's list of members, and of a tar member's header."""
MAX_NAME_BYTES, MAX_PATH_BYTES = 240, 2048
"""File systems take names of 255 and paths of 4,096 bytes, and a folder goes before."""
ZIP_HEADER_BYTES = 30
"""Before the name of a ZIP member; its content comes behind the name."""
AGAIN = "Delete it and fetch it again"
TAR, ZIP = "a whole archive (tar, plain or packed by gzip)", "a whole archive (ZIP)"


class Member(NamedTuple):
    """A file of an archive."""

    name: str
    num_bytes: int
    """Once unpacked."""
    offset: int | None
    """First byte of its content in the archive; None where it does not lie there as it is."""
    read: Callable[[], bytes]


class Bounded:
    """A stream of which no read takes more than `at_once` bytes, and none goes behind byte `end`."""

    def __init__(self, stream: Any, end: int, at_once: int) -> None:
        self._stream, self._end, self.at_once = stream, end, at_once
        self.tell, self.seekable = stream.tell, stream.seekable
        self.last = b""
        """What the last read gave."""

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes, or the rest; raises `ValueError` if that is too much at once."""
        self.last = self._stream.read(self.at_once + 1 if size == -1 else min(size, self.at_once + 1))
        if not -1 <= size <= self.at_once or len(self.last) > self.at_once or self.tell() > self._end:
            raise ValueError(f"it announces a part of {size:,} bytes, at most {self.at_once:,} are taken")
        return self.last

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go elsewhere; raises `ValueError` if that is behind the end."""
        if whence == os.SEEK_SET and not 0 <= offset <= self._end:
            raise ValueError(f"it goes on at byte {offset:,}, at most {self._end:,} are taken")
        return int(self._stream.seek(offset, whence))


def _allowed(archive_bytes: int) -> int:
    return max(ALWAYS_ALLOWED, MAX_RATIO * archive_bytes)


def _check_size(where: str, num_bytes: int, most: int) -> None:
    if not 0 <= num_bytes <= most:
        raise Refusal(f"{where}: {num_bytes:,} bytes would come out, at most {most:,} are taken. Do not use this "
                      "archive")


def zip_members(archive: Path, kind: Kind = "archive", expected: str = ZIP, packed: bool = True) -> Iterator[Member]:
    """Yield the files of a ZIP archive, after all that it announces was looked at.

    Args:
        expected: what errors say that is.
        packed: whether members may be compressed.

    Raises:
        Refusal: it is damaged, encrypted, has links or members that overlap, or is beyond a limit.
        FileNotFoundError: there is none.
    """
    with open_given(archive, kind) as file:
        with named(archive, expected, AGAIN, _head(file)):
            opened = zipfile.ZipFile(Bounded(file, size_of(file), MAX_DIRECTORY_BYTES))
        infos = opened.infolist()
        if len(infos) > MAX_MEMBERS:
            raise Refusal(f"{archive}: {len(infos):,} members, at most {MAX_MEMBERS:,} are taken")
        _check_size(str(archive), sum(info.file_size for info in infos), _allowed(size_of(file)))
        ordered = sorted(infos, key=lambda info: info.header_offset)
        ends = [*(info.header_offset for info in ordered[1:]), opened.start_dir]
        for info, end in zip(ordered, ends, strict=False):  # an archive without members has one end
            _check_zip_member(f"{archive}, member {shown_name(info.filename)}", info, end, packed)

        def reader(info: zipfile.ZipInfo) -> Callable[[], bytes]:
            def read() -> bytes:
                with named(archive, expected, AGAIN), opened.open(info) as content:
                    found = content.read(info.file_size + 1)  # compares the CRC; unbounded, it would inflate it all
                    if len(found) != info.file_size:
                        raise ValueError(f"member {shown_name(info.filename)} is cut short")
                    return found
            return read

        for info in infos:
            if not info.is_dir():
                yield Member(info.filename, info.file_size, None, reader(info))


def _check_zip_member(where: str, info: zipfile.ZipInfo, end: int, packed: bool) -> None:
    _check_size(where, info.file_size, MAX_MEMBER_BYTES)
    if not info.filename:
        raise Refusal(f"{where}: has no name. Do not use this archive")
    if info.flag_bits & 1:
        raise Refusal(f"{where}: is encrypted. Make the archive again without a password")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED):
        raise Refusal(f"{where}: is compressed by method {info.compress_type}, expected none{' or deflate' * packed}. "
                      "Make the archive again")
    if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise Refusal(f"{where}: is neither a file nor a folder. Do not use this archive")
    if info.header_offset + ZIP_HEADER_BYTES + len(info.orig_filename) + info.compress_size > end:
        raise Refusal(f"{where}: overlaps what comes behind it. Do not use this archive")


def tar_members(archive: Path, inside: Path | None = None) -> Iterator[tuple[tarfile.TarInfo, Member]]:
    """Yield the members of a tar archive, plain or compressed by gzip, in their order.

    Raises:
        Refusal: it is damaged or beyond a limit.
        FileNotFoundError: there is none.
    """
    with open_given(archive, "archive", inside) as file:
        head = _head(file)
        packed = head.startswith(b"\x1f\x8b")
        end = _allowed(size_of(file)) if packed else size_of(file)
        stream = Bounded(gzip.GzipFile(fileobj=file) if packed else file, end, MAX_HEADER_BYTES)
        with named(archive, TAR, AGAIN, head):
            tar = tarfile.TarFile(fileobj=stream)  # type: ignore[arg-type]
        before = 0
        for _ in range(MAX_MEMBERS):
            with named(archive, TAR, AGAIN):
                info = tar.next()
                if info is None and stream.last.strip(b"\0"):  # the library takes a damaged header for the end
                    raise ValueError(f"no member begins at byte {tar.offset:,}")
                if info and tar.offset <= before:
                    raise ValueError(f"member {shown_name(info.name)} ends before it begins")
            if info is None:
                with named(archive, TAR, AGAIN):
                    if not stream.last:
                        raise ValueError("it has no end mark, so it may be cut off between two members")
                    while rest := stream.read(MAX_HEADER_BYTES):  # to its end: gzip has a checksum there
                        if rest.strip(b"\0"):
                            raise ValueError("behind its end comes more, as where two archives were put together")
                return
            before = tar.offset
            tar.members.clear()  # type: ignore[attr-defined]  # it would keep them all
            _check_size(f"{archive}, member {shown_name(info.name)}", info.size, MAX_MEMBER_BYTES)
            yield info, Member(info.name, info.size, None if packed or info.issparse() else info.offset_data,
                               _tar_reader(archive, tar, info, stream))
        raise Refusal(f"{archive}: more than {MAX_MEMBERS:,} members. Do not use this archive")


def _tar_reader(archive: Path, tar: tarfile.TarFile, info: tarfile.TarInfo, stream: Bounded) -> Callable[[], bytes]:
    def read() -> bytes:
        stream.at_once = MAX_MEMBER_BYTES
        try:
            with named(archive, TAR, AGAIN):
                content = tar.extractfile(info)
                found = content.read() if content else b""
                if len(found) != info.size:
                    raise ValueError(f"member {shown_name(info.name)} is cut short")
                return found
        finally:
            stream.at_once = MAX_HEADER_BYTES
    return read


def _head(file: BinaryIO) -> bytes:
    head = file.read(HEAD)
    file.seek(0)
    return head


def name_fault(name: str) -> str | None:
    """Return why a member's name is not taken, if it is not."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        return "lies outside of the folder that it is unpacked to"
    if not name.isprintable():
        return "has a name that is no plain text"
    if max(len(part.encode()) for part in path.parts) > MAX_NAME_BYTES or len(name.encode()) > MAX_PATH_BYTES:
        return f"has a name of more than {MAX_NAME_BYTES} bytes, or a path of more than {MAX_PATH_BYTES}"
    return None


def shown_name(name: str) -> str:
    """Return a member's name as an error may print it."""
    return name if name.isprintable() and len(name) <= MAX_NAME_BYTES else f"{name!a:.{MAX_NAME_BYTES}}"


def _check_names(archive: Path, names: Iterable[str]) -> None:
    files: set[PurePosixPath] = set()
    folders: set[PurePosixPath] = set()
    for name in names:
        path = PurePosixPath(name)
        fault = name_fault(name) or ("stands in the archive twice" if path in files else None)
        fault = fault or ("is a file and a folder" if path in folders or not files.isdisjoint(path.parents) else None)
        if fault:
            raise Refusal(f"{archive}, member {shown_name(name)}: {fault}. Nothing was unpacked; do not use this "
                          "archive")
        files.add(path)
        folders.update(path.parents)


def _files(archive: Path) -> Iterator[Member]:
    if archive.suffix == ".zip":
        yield from zip_members(archive)
        return
    for info, member in tar_members(archive):
        if info.isreg():
            yield member
        elif not info.isdir():
            raise Refusal(f"{archive}, member {shown_name(info.name)}: is neither a file nor a folder. Nothing was "
                          "unpacked; do not use this archive")


def unpack(archive: Path, folder: Path) -> dict[str, int]:
    """Unpack an archive into a folder. Files that are there in full size are kept, so that a second call goes on.

    Returns:
        How many files the archive has in each folder, by its path in `folder` (`.` for `folder` itself).

    Raises:
        Refusal: the archive is damaged, has links, two files in one place or any outside of the folder, or is beyond a
            limit; then nothing is written (of a damaged one perhaps its first files).
        OSError: the disk is too small or not writable; the message names the file.
    """
    sizes = [(member.name, member.num_bytes) for member in _files(archive)]
    _check_names(archive, (name for name, _ in sizes))
    needed, free = sum(size for _, size in sizes), shutil.disk_usage(_existing(folder)).free
    if needed > free:
        raise Refusal(f"{archive}: {needed:,} bytes would come out, {free:,} are free in {folder}. Free some space and "
                      "run the same command again")
    for name, num_bytes, _, read in progress(_files(archive), f"unpack {archive.name}", "file", total=len(sizes)):
        target = folder / name
        if target.is_file() and target.stat().st_size == num_bytes:
            continue
        content, aside = read(), target.with_name(f".{target.name}.part")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            aside.write_bytes(content)
            aside.replace(target)
        except OSError as error:
            raise OSError(error.errno, f"{target}: cannot be written ({error.strerror}). Mend that and run the same "
                          "command again") from error
    return dict(Counter(Path(name).parent.as_posix() for name, _ in sizes))


def _existing(folder: Path) -> Path:
    return next(place for place in (folder, *folder.absolute().parents) if place.exists())


def is_unpacked(folder: Path, num_files: dict[str, int]) -> bool:
    """Return whether folders have at least as many files as `unpack` put there."""
    return all((folder / name).is_dir() and sum(entry.is_file() for entry in os.scandir(folder / name)) >= expected
               for name, expected in num_files.items())


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of an `.npz` file by their names.

    Raises:
        Refusal: it is no such file, holds Python objects, or announces other sizes than it has.
        FileNotFoundError: there is none.
    """
    arrays: dict[str, np.ndarray] = {}
    total = 0
    for member in zip_members(path, "recording", "an npz file (a ZIP archive of plain arrays)"):
        total += member.num_bytes
        _check_size(f"{path}, member {shown_name(member.name)}", total, LIMITS["recording"])
        where = f"{path}, member {shown_name(member.name)}"
        with named(where, "an array without Python objects", "Make the file again"):
            stream = io.BytesIO(member.read())
            version = np.lib.format.read_magic(stream)
            header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
            shape, _, dtype = header[version](stream)
            if dtype.itemsize == 0 or member.name.removesuffix(".npy") in arrays:
                raise ValueError("its elements have no bytes" if dtype.itemsize == 0 else "another one has its name")
            if math.prod(shape) * dtype.itemsize != member.num_bytes - stream.tell():
                raise ValueError(f"it announces {dtype} {shape}, but has {member.num_bytes - stream.tell():,} bytes")
            stream.seek(0)
            arrays[member.name.removesuffix(".npy")] = np.lib.format.read_array(stream, allow_pickle=False)
    return arrays


def read_torch(path: Path) -> Any:
    """Return what `torch.save` wrote into a file: tensors and containers, on the CPU, never code.

    Tensors stay in the file until they are used (a memory map), so a file of gigabytes costs no memory.

    Raises:
        ValueError: the file is missing or cut short, not written by PyTorch 1.6 or later, or holds code.
    """
    import torch  # seconds, and most who look into archives need none of it

    try:
        with open_given(path, "tensors") as file:
            head = _head(file)
    except FileNotFoundError as error:
        raise Refusal(f"{path}: no such file. Fetch it, or mend the parameter that names it") from error
    expected = "a whole file of tensors in PyTorch's ZIP format"
    remedy = "It may be truncated: fetch it again. A file that holds code is not read"
    if head.startswith(b"PK"):
        for _ in zip_members(path, "tensors", expected, packed=False):
            pass  # a map of the file would take packed bytes for numbers
    with named(path, expected, remedy, head):
        if not head.startswith(b"PK"):
            raise ValueError("it is something else, or was written by PyTorch before 1.6")
        try:
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except (pickle.UnpicklingError, RuntimeError) as error:  # which advise to read it nevertheless
            if "weights_only" in str(error):
                raise ValueError("it holds code, or objects that are no tensors") from error
            raise
        _check_tensors(content)
    return content


def _check_tensors(content: Any) -> None:
    """A tensor may announce more numbers than its storage has: repeated ones, which a copy would write out."""
    import torch

    todo, seen = [content], set()
    while todo:
        each = todo.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        if isinstance(each, torch.Tensor):
            if each.layout is not torch.strided or each.device.type != "cpu" or each.is_quantized:
                raise ValueError(f"a tensor is {each.layout} on {each.device}, expected plain ones on the CPU")
            if each.numel() * each.element_size() > each.untyped_storage().nbytes():
                raise ValueError(f"a tensor of shape {tuple(each.shape)} repeats the numbers that are there")
        elif isinstance(each, dict):
            todo += [*each.keys(), *each.values()]
        elif isinstance(each, list | tuple | set):
            todo += each
