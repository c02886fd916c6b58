"""Unpack a downloaded archive of images: nothing leaves the folder, what is there already is not written again."""

import os
import zipfile
from collections import Counter
from pathlib import Path

from repblend.data.image_index import is_outside
from repblend.progress import progress


def unpack(archive: Path, folder: Path) -> dict[str, int]:
    """Unpack a ZIP archive into a folder; interrupted, the next call goes on.

    Returns:
        How many files the archive has in each folder, by its path in `folder` (`.` for `folder` itself).

    Raises:
        ValueError: the archive is damaged, or a name in it leads out of the folder; in that case nothing is written.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            members = [member for member in opened.infolist() if not member.is_dir()]
            outside = [member.filename for member in members if is_outside(member.filename)]
            if outside:
                raise ValueError(f"{archive}, member {outside[0]}: lies outside of the folder it is unpacked to. "
                                 "Nothing was unpacked; do not use this archive")
            for member in progress(members, f"unpack {archive.name}", "file"):
                _extract(opened, member, folder / member.filename)
    except (zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        raise ValueError(f"{archive}: expected a whole ZIP archive ({error}). Delete it and fetch it again") from error
    return dict(Counter(Path(member.filename).parent.as_posix() for member in members))


def is_unpacked(folder: Path, num_files: dict[str, int]) -> bool:
    """Return whether folders have at least as many files as `unpack` put there."""
    return all((folder / name).is_dir() and sum(entry.is_file() for entry in os.scandir(folder / name)) >= expected
               for name, expected in num_files.items())


def _extract(opened: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> None:
    if target.is_file() and target.stat().st_size == member.file_size:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(f".{target.name}.part")
    aside.write_bytes(opened.read(member))  # compares the CRC
    aside.replace(target)
