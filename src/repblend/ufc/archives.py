"""Official archives: fetched with resume, checked by their published MD5, and unpacked with traversal refused."""

import shutil
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from repblend.download import Digest, download
from repblend.store import atomic_path


@dataclass(frozen=True)
class Archive:
    """One file of a dataset."""

    url: str
    num_bytes: int
    md5: str
    folder: str
    """What unpacking makes."""

    @property
    def file(self) -> str:
        return self.url.rsplit("/", 1)[1]


ARCHIVES = {
    "cifar10": Archive("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz", 170_052_171,
                       "c32a1d4ab5d03f1284b67883e8d87530", "cifar-10-batches-bin"),
    "cifar100": Archive("https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz", 168_513_733,
                        "03b5dce01913d631647c71ecec9e9cb8", "cifar-100-binary"),
    "tiny-imagenet": Archive("http://cs231n.stanford.edu/tiny-imagenet-200.zip", 248_100_043,
                             "90528d7ca1a48142e341f4ef8d21d0de", "tiny-imagenet-200"),
}
"""Datasets that can be fetched without an account, with the sums that are published for them."""


def fetch(archive: Archive, folder: Path) -> Path:
    """Download, check and unpack an archive; what is there already is neither downloaded nor unpacked again.

    Args:
        folder: gets the archive's file and the folder that unpacking makes. A download that broke off goes on.

    Returns:
        The unpacked folder.

    Raises:
        ValueError: the server cannot be reached, its answer or the file's MD5 is another than expected, or a member
            would land outside.
    """
    unpacked, file = folder / archive.folder, folder / archive.file
    if unpacked.is_dir():
        return unpacked
    folder.mkdir(parents=True, exist_ok=True)
    if not file.is_file():
        download(archive.url, file, Digest("md5", archive.md5))
    unpack(file, unpacked)
    return unpacked


def unpack(file: Path, unpacked: Path) -> None:
    """Unpack an archive that holds one folder of `unpacked`'s name; all or nothing.

    Raises:
        ValueError: the file is no such archive, or a member would land outside of the folder.
    """
    with atomic_path(unpacked) as aside:
        aside.mkdir()
        try:
            (_unpack_zip if file.suffix == ".zip" else _unpack_tar)(file, aside)
        except (tarfile.TarError, zipfile.BadZipFile) as error:
            raise ValueError(f"{file}: cannot be unpacked ({error}); delete it and fetch it again") from error
        inner = aside / unpacked.name
        if not inner.is_dir():
            raise ValueError(f"{file}: expected a folder {unpacked.name} in it; delete the file and fetch it again")
        for path in list(inner.iterdir()):
            path.rename(aside / path.name)
        shutil.rmtree(inner)


def _unpack_tar(file: Path, folder: Path) -> None:
    with tarfile.open(file) as archive:
        archive.extractall(folder, filter="data")


def _unpack_zip(file: Path, folder: Path) -> None:
    with zipfile.ZipFile(file) as archive:
        for name in archive.namelist():
            if not (folder / name).resolve().is_relative_to(folder.resolve()):
                raise zipfile.BadZipFile(f"{name!r} would land outside of the folder")
        archive.extractall(folder)
