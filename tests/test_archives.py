"""Unpacking archives of both kinds: what comes out, what is refused, and what a second call does."""

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from repblend.archives import is_unpacked, unpack

KINDS = ("set.zip", "set.tar", "set.tar.gz")
MEMBERS = {"set/a/one.bin": b"1" * 9000, "set/two.bin": b"22"}


def write(archive: Path, members: dict[str, bytes]) -> Path:
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w") as packed:
            for name, content in members.items():
                packed.writestr(name, content)
        return archive
    with tarfile.open(archive, "w:gz" if archive.suffix == ".gz" else "w") as packed:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            packed.addfile(entry, io.BytesIO(content))
    return archive


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kind", KINDS)
def test_every_file_comes_out_and_is_counted(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    num_files = unpack(write(tmp_path / kind, MEMBERS), folder)
    assert files_in(folder) == MEMBERS and num_files == {"set/a": 1, "set": 1}
    assert is_unpacked(folder, num_files)
    (folder / "set/two.bin").unlink()
    assert not is_unpacked(folder, num_files)


@pytest.mark.parametrize("kind", KINDS)
def test_an_interrupted_call_is_gone_on_with(kind: str, tmp_path: Path) -> None:
    archive, folder = write(tmp_path / kind, MEMBERS), tmp_path / "folder"
    unpack(archive, folder)
    before = (folder / "set/a/one.bin").stat().st_mtime_ns
    (folder / "set/two.bin").write_bytes(b"2")  # cut short
    (folder / "set/.two.bin.part").write_bytes(b"2")  # what a killed call leaves
    unpack(archive, folder)
    assert files_in(folder) == MEMBERS and (folder / "set/a/one.bin").stat().st_mtime_ns == before


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["../outside", "/outside", "set/../../outside"])
def test_a_member_outside_of_the_folder_is_refused_and_nothing_is_unpacked(kind: str, name: str, tmp_path: Path
                                                                          ) -> None:
    with pytest.raises(ValueError, match=f"member {name}: lies outside"):
        unpack(write(tmp_path / kind, {"set/file": b"1", name: b"2"}), tmp_path / "folder")
    assert [path.name for path in tmp_path.iterdir()] == [kind]


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_archive_is_named(kind: str, tmp_path: Path) -> None:
    archive = write(tmp_path / kind, MEMBERS)
    archive.write_bytes(archive.read_bytes()[:5000 if kind == "set.tar" else 60])
    with pytest.raises(ValueError, match=f"{archive}: expected a whole archive .*Delete it and fetch it again"):
        unpack(archive, tmp_path / "folder")


def test_a_member_whose_checksum_is_wrong_is_not_kept(tmp_path: Path) -> None:
    archive = write(tmp_path / "set.zip", MEMBERS)
    archive.write_bytes(archive.read_bytes().replace(b"22", b"23"))
    with pytest.raises(ValueError, match="Bad CRC-32"):
        unpack(archive, tmp_path / "folder")
    assert not (tmp_path / "folder/set/two.bin").exists()


def test_a_link_in_an_archive_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "set.tar", "w") as packed:
        link = tarfile.TarInfo("set/link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc"
        packed.addfile(link)
    with pytest.raises(ValueError, match="set/link: is neither a file nor a folder"):
        unpack(tmp_path / "set.tar", tmp_path / "folder")
    assert not (tmp_path / "folder").exists()
