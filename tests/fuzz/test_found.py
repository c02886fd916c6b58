"""Inputs that fuzzing found: each was another exception than an error that names the file."""

import gzip
import io
import json
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch

from repblend.archives import read_torch, unpack
from repblend.data.own import OwnCaptions
from repblend.params import read_params
from repblend.parity.fixture import Fixture


def test_a_name_with_half_of_an_emoji_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "captions.json"
    file.write_text(json.dumps([{"image": "\ud83d", "caption": "a cat"}]))
    with pytest.raises(ValueError, match=r"captions\.json, row 0: expected 'image' to be a path"):
        OwnCaptions({"train": 9, "val": 9, "test": 9}, [file], 1, 1).read()


def test_an_error_quotes_the_beginning_of_a_long_value(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("a" * 5000)
    with pytest.raises(ValueError, match=r"params\.yaml") as refused:
        read_params(tmp_path / "params.yaml")
    assert len(str(refused.value)) < 500


def test_a_tar_header_that_asks_for_a_terabyte_is_damaged(tmp_path: Path) -> None:
    header = tarfile.TarInfo("long name")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 1 << 40
    (tmp_path / "archive.tar").write_bytes(header.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    with pytest.raises(ValueError, match=r"archive\.tar"):
        unpack(tmp_path / "archive.tar", tmp_path / "unpacked")


def test_a_compressed_tar_with_another_checksum_is_damaged(tmp_path: Path) -> None:
    damaged = bytearray(gzip.compress(tarfile.TarInfo("a").tobuf()))
    damaged[-6] ^= 1
    (tmp_path / "archive.tar.gz").write_bytes(damaged)
    with pytest.raises(ValueError, match=r"archive\.tar\.gz: expected a whole archive"):
        unpack(tmp_path / "archive.tar.gz", tmp_path / "unpacked")


def test_a_zip_without_members_has_no_files(tmp_path: Path) -> None:
    zipfile.ZipFile(tmp_path / "archive.zip", "w").close()
    assert unpack(tmp_path / "archive.zip", tmp_path / "unpacked") == {}


def test_a_zip_whose_member_has_no_name_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as archive:
        archive.writestr(zipfile.ZipInfo(""), "x")
    with pytest.raises(ValueError, match=r"archive\.zip, member .*has no name"):
        unpack(tmp_path / "archive.zip", tmp_path / "unpacked")


def test_a_released_file_whose_tensors_are_of_other_types_is_damaged(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save({"image": torch.zeros(3, 3, 4, 4)}, buffer)
    content = buffer.getvalue()
    for turned in range(content.index(b"_rebuild_tensor_v2"), content.index(b"_rebuild_tensor_v2") + 160):
        damaged = bytearray(content)
        damaged[turned] ^= 1
        (tmp_path / "set.pt").write_bytes(damaged)
        try:
            read_torch(tmp_path / "set.pt")
        except ValueError as error:
            assert "set.pt" in str(error)


def test_a_recording_that_is_no_zip_inside_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "recording.npz").write_bytes(b"PK\x03\x04" + bytes(60))
    with pytest.raises(ValueError, match=r"recording\.npz: expected an npz file"):
        Fixture(tmp_path / "recording.npz")
