"""Files of a set that are not as they should be: one error with the file, the row and the remedy, or the right pixels.
"""

import gzip
import io
import json
import os
import struct
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from repblend import files
from repblend.archives import read_npz, read_torch, tar_members, unpack
from repblend.data.image_store import FolderStore, decode
from repblend.data.source import check, source_of
from repblend.files import read_text
from repblend.params.data import OwnData

ROWS = [{"image": f"{number}.png", "caption": f"a thing {number}"} for number in range(8)]
ENTRY = {"name": "mine", "image_size": 32, "max_caption_words": 60, "num_val": 2, "num_test": 2}


def problems(folder: Path, captions: str, content: str | bytes, **entry: object) -> list[str]:
    """Return what the check says of eight images whose captions are given."""
    for row in ROWS if "shards" not in entry else []:
        if not (folder / row["image"]).exists() and not (folder / row["image"]).is_symlink():
            Image.new("RGB", (8, 8), "red").save(folder / row["image"])
    (folder / captions).write_bytes(content if isinstance(content, bytes) else content.encode())
    data = OwnData.model_validate({**ENTRY, "folder": str(folder), "captions": captions, **entry})
    return check(source_of(data, folder), folder / "journal").problems


CSV = "image,caption\n" + "".join(f"{row['image']},{row['caption']}\n" for row in ROWS)
LIST = json.dumps(ROWS)


@pytest.mark.parametrize(("name", "content", "said"), [
    ("c.csv", CSV.replace(",", ";"), "line 1: the columns are separated by semicolons"),
    ("c.csv", CSV.replace("3.png,a", '3.png,"a'), "line 5: expected fields between commas"),
    ("c.csv", CSV.replace("3.png,a", '3.png,"a').replace("thing 5\n", 'thing 5"\n'), "line 5: a field goes on"),
    ("c.csv", CSV.replace("image,caption", "image,caption,caption"), "line 1: the column 'caption' stands there twice"),
    ("c.csv", CSV.encode("utf-16"), "it is UTF-16"),
    ("c.json", f"{LIST}\n{LIST}", "line 2: expected JSON (Extra data)"),
    ("c.json", f"{LIST}\ngarbage }}", "line 2: expected JSON (Extra data)"),
    ("c.json", LIST.replace("}]", "},]"), "line 1: expected JSON"),
    ("c.json", LIST.replace("}, {", "} {"), "line 1: expected JSON"),
    ("c.json", "[" * 200_000, "expected plain JSON"),
    ("c.json", LIST.replace('"image": "3.png",', '"image": "3.png", "image": "4.png",'), "stands twice"),
])
def test_damaged_captions_are_named_with_line_and_cause(name: str, content: str | bytes, said: str, tmp_path: Path,
                                                        ) -> None:
    found = problems(tmp_path, name, content)
    assert found[0].startswith(str(tmp_path / name)) and said in found[0]


@pytest.mark.parametrize(("name", "content"), [
    ("c.csv", CSV), ("c.json", LIST), ("c.jsonl", "\n".join(map(json.dumps, ROWS)))])
def test_a_byte_order_mark_is_accepted(name: str, content: str, tmp_path: Path) -> None:
    (tmp_path / "ATTRIBUTION.md").write_bytes(b"\xef\xbb\xbfmine")
    assert problems(tmp_path, name, b"\xef\xbb\xbf" + content.encode()) == []


def test_half_an_emoji_is_named_and_the_other_rows_are_checked(tmp_path: Path) -> None:
    found = problems(tmp_path, "c.json", LIST.replace("thing 3", "\\ud83d").replace("a thing 6", "."))
    assert ["row 3" in found[0], "row 6" in found[1]] == [True, True]


def test_what_is_no_plain_file_of_the_set_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "secret.png")
    (folder / "0.png").symlink_to(tmp_path / "secret.png")
    (folder / "1.png").symlink_to("/dev/zero")
    os.mkfifo(folder / "2.png")
    (folder / "3.png").mkdir()
    (folder / "4.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    (folder / "5.png").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n")
    (folder / "ATTRIBUTION.md").write_bytes("caf\u00e9".encode("cp1252"))
    found = "\n".join(problems(folder, "c.csv", CSV))
    for said in ("ATTRIBUTION.md, line 1: expected UTF-8", "0.png: leads out", "1.png: leads out",
                 "2.png: is a named pipe", "3.png: is a folder",
                 "4.png: expected a whole image file (it is a PostScript file",
                 "5.png: expected a whole image file (it is a Git LFS pointer"):
        assert said in found
    (folder / "c.json").symlink_to(tmp_path / "secret.png")
    with pytest.raises(ValueError, match="leads out"):
        read_text(folder / "c.json", "text", folder)


def test_a_file_beyond_the_limit_of_its_kind_is_refused_before_it_is_read(tmp_path: Path,
                                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "a.png").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ValueError, match=r"a\.png: has 1,099,511,627,776 bytes, expected at most"):
        FolderStore(tmp_path).read("a.png")
    monkeypatch.setitem(files.LIMITS, "text", 3)
    (tmp_path / "b").write_text("four")
    with pytest.raises(ValueError, match="expected at most 3"):
        read_text(tmp_path / "b")


@pytest.mark.parametrize("pattern", ["/somewhere/*.tar", "../*.tar"])
def test_shards_lie_in_the_folder(pattern: str, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="a path in the folder"):
        OwnData.model_validate({**ENTRY, "folder": "x", "captions": "c.csv", "shards": pattern})


def saved(image: Image.Image, kind: str, **options: object) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return decode(buffer.getvalue(), "it")


RAMP = np.linspace(0, 1, 256)[None].repeat(4, 0)


@pytest.mark.parametrize(("kind", "levels"), [
    ("PNG", (RAMP * 65535).astype(np.uint16)), ("TIFF", (RAMP * 65535).astype(np.uint16)),
    ("TIFF", RAMP.astype(np.float32)), ("TIFF", (RAMP * 1000 - 500).astype(np.float32)),
    ("TIFF", (RAMP * 2e9 - 1e9).astype(np.int32))])
def test_a_ramp_of_more_than_8_bits_stays_a_ramp(kind: str, levels: np.ndarray) -> None:
    found = np.asarray(saved(Image.fromarray(levels), kind)).astype(int)
    assert np.abs(found - np.arange(256)[None, :, None]).max() <= 1


def test_the_transparent_level_of_a_grey_png_is_white_and_scaling_takes_no_gigabytes() -> None:
    levels = np.array([[0, 20000, 65535]], np.uint16)
    assert np.asarray(saved(Image.fromarray(levels), "PNG", transparency=20000))[0, :, 0].tolist() == [0, 255, 255]
    content = io.BytesIO()
    Image.fromarray(np.zeros((3000, 3000), np.uint16)).save(content, "PNG")
    tracemalloc.start()
    decode(content.getvalue(), "it")
    assert tracemalloc.get_traced_memory()[1] < 60_000_000  # 18 MB of levels; of float64, 72 MB
    tracemalloc.stop()


def test_transparent_parts_are_white_and_pixels_stand_upright() -> None:
    hidden = Image.new("RGBA", (2, 1), (200, 0, 0, 0))
    hidden.putpixel((1, 0), (0, 0, 0, 255))
    assert np.asarray(saved(hidden, "PNG"))[0].tolist() == [[255] * 3, [0] * 3]
    exif, image = Image.Exif(), Image.new("RGB", (16, 8), "white")
    exif[0x0112] = 6  # turn clockwise to see it
    image.paste((0, 0, 0), (0, 0, 8, 8))
    shown = np.asarray(saved(image, "PNG", exif=exif))
    assert shown.shape == (16, 8, 3) and shown[:8].max() == 0 and shown[8:].min() == 255


def zipped(path: Path, *members: tuple[zipfile.ZipInfo | str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def test_hostile_zip_archives_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("link")
    link.create_system, link.external_attr = 3, 0o120777 << 16
    plain = zipped(tmp_path / "plain.zip", ("a", b"1" * 50), ("b", b"2")).read_bytes()
    entry = plain.index(b"PK\x01\x02")
    encrypted, large, overlapping = (bytearray(plain) for _ in range(3))
    encrypted[entry + 8] |= 1
    large[entry + 20:entry + 28] = struct.pack("<II", 0xF0000000, 0xF0000000)
    second = plain.index(b"PK\x01\x02", entry + 4)
    overlapping[second + 42:second + 46] = struct.pack("<I", 0)
    cases = {"neither a file nor a folder": zipped(tmp_path / "l.zip", (link, b"/etc")).read_bytes(),
             "is a file and a folder": zipped(tmp_path / "p.zip", ("a", b"1"), ("a/b", b"2")).read_bytes(),
             "a path of more than": zipped(tmp_path / "n.zip", ("a/" * 2000 + "b", b"2")).read_bytes(),
             "would come out": zipped(tmp_path / "bomb.zip", ("a", bytes(40 << 20)), method=zipfile.ZIP_DEFLATED
                                      ).read_bytes(),
             "is encrypted": encrypted, "bytes would come out": large, "overlaps": overlapping}
    for said, content in cases.items():
        (tmp_path / "x.zip").write_bytes(content)
        with pytest.raises(ValueError, match=said) as refused:
            unpack(tmp_path / "x.zip", tmp_path / "out")
        assert str(refused.value).startswith(str(tmp_path / "x.zip")) and not (tmp_path / "out").exists()


def test_a_tar_archive_that_announces_a_large_member_is_refused(tmp_path: Path) -> None:
    header = tarfile.TarInfo("a")
    header.size = 7 << 30
    (tmp_path / "x.tar").write_bytes(header.tobuf() + bytes(1024))
    with pytest.raises(ValueError, match=r"x\.tar"):
        unpack(tmp_path / "x.tar", tmp_path / "out")


def test_tar_archives_that_are_put_together_or_cut_between_members_are_refused(tmp_path: Path) -> None:
    end, block = bytes(1024), tarfile.TarInfo("a").tobuf()
    for said, content in {"no end mark": block * 2, "behind its end comes more": block + end + block + end}.items():
        for packed in (content, gzip.compress(content)):
            (tmp_path / "x.tar").write_bytes(packed)
            with pytest.raises(ValueError, match=rf"x\.tar: expected a whole archive .*{said}"):
                list(tar_members(tmp_path / "x.tar"))


def test_arrays_of_one_name_or_without_bytes_are_refused(tmp_path: Path) -> None:
    array, none = io.BytesIO(), io.BytesIO()
    np.save(array, np.zeros(3))
    np.lib.format.write_array_header_1_0(none, {"descr": "|V0", "fortran_order": False, "shape": (1 << 40,)})
    cases = {"another one has its name": [("a.npy", array), ("a", array)], "have no bytes": [("a", none)]}
    for said, members in cases.items():
        with pytest.raises(ValueError, match=said):
            read_npz(zipped(tmp_path / "a.npz", *((name, content.getvalue()) for name, content in members)))


def test_arrays_and_tensors_that_announce_more_than_there_is_are_refused(tmp_path: Path) -> None:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f8", "fortran_order": False, "shape": (1 << 40,)})
    with pytest.raises(ValueError, match="it announces float64"):
        read_npz(zipped(tmp_path / "a.npz", ("a.npy", stream.getvalue())))
    torch.save({"a": torch.zeros(1).expand(1 << 40)}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match="repeats the numbers"):
        read_torch(tmp_path / "a.pt")
    torch.save({"a": torch.randn(64)}, tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "a.pt") as stored:  # packed numbers would be taken for numbers
        members = [(member, stored.read(member)) for member in stored.namelist()]
    with pytest.raises(ValueError, match=r"a\.pt, member a/data.pkl: is compressed by method 8, expected none\."):
        read_torch(zipped(tmp_path / "a.pt", *members, method=zipfile.ZIP_DEFLATED))
    torch.save(torch.nn.Linear(2, 2), tmp_path / "a.pt")
    with pytest.raises(ValueError, match="it holds code") as refused:
        read_torch(tmp_path / "a.pt")
    assert "weights_only" not in str(refused.value)
    os.mkfifo(tmp_path / "b.npz")
    with pytest.raises(ValueError, match="is a named pipe"):
        read_npz(tmp_path / "b.npz")


@pytest.mark.parametrize(("content", "said"), [
    (b"version https://git-lfs.github.com/spec/v1\n", "it is a Git LFS pointer"), (b"", "it is an empty file"),
    (b"<!DOCTYPE html><html>", "it is a web page"), (b"\x80\x02}q\x00.", "it is a Python pickle")])
def test_what_a_file_of_tensors_really_is_is_said(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(ValueError, match=said):
        read_torch(tmp_path / "a.pt")
