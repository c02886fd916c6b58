"""Every reader of files from others, given files that are nearly right: a result or one error that names the file.

What is found in this way becomes a plain test beside the reader's own.
"""

import csv
import gzip
import io
import json
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from PIL import Image
from ruamel.yaml import YAML

from repblend.archives import unpack
from repblend.data.image_index import index_images
from repblend.data.image_store import decode
from repblend.data.karpathy import LayoutCaptions
from repblend.data.own import OwnCaptions
from repblend.matching.synthetic_set import SyntheticSet
from repblend.params import read_params
from repblend.params.reading import read_yaml
from repblend.parity.fixture import Fixture
from repblend.released_files import read_distilled
from repblend.runtime.locked import Lock
from repblend.store import read_json
from repblend.tensors import read_tensors
from repblend.ufc.params import read_ufc_params
from repro.artifacts.manifest import read_manifest
from tests.fuzz.mutation import bounded, damaged, distorted, reads_or_refuses
from tests.tiny import ROOT, tiny_content

SENTINEL = "nobody touches this"
WORDS = {"train": 9, "val": 9, "test": 9}


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder for a test's files; what lies around it must stay as it is."""
    (tmp_path / "outside").write_text(SENTINEL)
    inside = tmp_path / "inside"
    inside.mkdir()
    yield inside
    assert sorted(path.name for path in tmp_path.iterdir()) == ["inside", "outside"]
    assert (tmp_path / "outside").read_text() == SENTINEL


def fuzz(examples: Any, write: Callable[[Any, Path], object], read: Callable[[Path], object], path: Path) -> None:
    """Give a reader one example after the other; some are read, and some refused."""
    answers = set()

    @bounded
    @given(examples)
    def one(example: Any) -> None:
        write(example, path)
        answers.add(reads_or_refuses(read, path))

    one()
    assert False in answers


def write_bytes(content: bytes, path: Path) -> None:
    path.write_bytes(content)


def write_json(content: Any, path: Path) -> None:
    path.write_bytes(json.dumps(content).encode("utf-8", "surrogatepass"))


def write_yaml(content: Any, path: Path) -> None:
    with path.open("w", encoding="utf-8", errors="surrogateescape") as file:
        json.dump(content, file)  # which is YAML, too


def of_images(kind: str) -> list[bytes]:
    """Valid images of a format: grey, colour, transparency, palette."""
    ramp = np.arange(12 * 16 * 3, dtype=np.uint8).reshape(12, 16, 3)
    found = []
    for mode in ("RGB", "L", "RGBA", "P", "1", "I;16", "CMYK"):
        buffer, made = io.BytesIO(), Image.fromarray(ramp)
        image = Image.fromarray(ramp[..., 0].astype(np.uint16) * 256) if mode == "I;16" else made.convert(mode)
        try:
            image.save(buffer, kind)
        except (OSError, ValueError, KeyError):  # not in this format
            continue
        found.append(buffer.getvalue())
    return found


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "AVIF"])
def test_images(folder: Path, kind: str) -> None:
    fuzz(damaged(of_images(kind)), write_bytes, lambda path: decode(path.read_bytes(), str(path)),
         folder / "image.png")


ROWS = [{"image": f"images/{number}.png", "caption": f"a cat, number {number}"} for number in range(6)]


def csv_text(rows: list[dict[str, str]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, ["image", "caption"])
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def read_own(path: Path) -> object:
    return OwnCaptions(WORDS, [path], 1, 1).read()


def test_captions_in_csv(folder: Path) -> None:
    fuzz(damaged([csv_text(ROWS), b"\xef\xbb\xbf" + csv_text(ROWS)]), write_bytes, read_own, folder / "captions.csv")


def test_captions_in_json(folder: Path) -> None:
    fuzz(damaged([json.dumps(ROWS).encode(), json.dumps(ROWS, indent=1).encode()]), write_bytes, read_own,
         folder / "captions.json")


def test_captions_of_other_types(folder: Path) -> None:
    fuzz(distorted([ROWS]), write_json, read_own, folder / "captions.json")


LAYOUT = {"train": [{"image": f"val/{n}.jpg", "caption": "a dog", "image_id": f"c_{n}"} for n in range(3)],
          "val": [{"image": "val/7.jpg", "caption": ["one dog", "a dog"]}],
          "test": [{"image": "val/8.jpg", "caption": ["a cat", "cats"]}]}


@pytest.mark.parametrize("split", ["train", "val"])
def test_captions_in_the_published_layout(folder: Path, split: str) -> None:
    files = [folder / f"{name}.json" for name in LAYOUT]
    for file, rows in zip(files, LAYOUT.values(), strict=True):
        write_json(rows, file)
    fuzz(distorted([LAYOUT[split]]), write_json, lambda path: LayoutCaptions(WORDS, files).read(),
         folder / f"{split}.json")


def tar_of(names: list[str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = 40
            archive.addfile(info, io.BytesIO(b"x" * 40))
    return buffer.getvalue()


def zip_of(names: list[str], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name in names:
            archive.writestr(zipfile.ZipInfo(name), "x" * 40, compression)
    return buffer.getvalue()


NAMES = [["a/1.png", "a/2.png", "b.txt"], ["../outside", "a"], ["/outside"]]


@pytest.mark.parametrize("suffix", ["zip", "tar", "tar.gz"])
def test_archives(folder: Path, suffix: str) -> None:
    valid = [made for names in NAMES for made in (
        (zip_of(names), zip_of(names, zipfile.ZIP_DEFLATED)) if suffix == "zip" else
        (gzip.compress(tar_of(names), mtime=0) if suffix == "tar.gz" else tar_of(names),))]
    fuzz(damaged(valid), write_bytes, lambda path: unpack(path, folder / "unpacked"), folder / f"archive.{suffix}")


def test_shards(folder: Path) -> None:
    def read(path: Path) -> None:
        (folder / "journal").unlink(missing_ok=True)
        found = index_images(folder, "*.tar", ["a/1.png"], folder / "journal", decoded=False)
        assert set(found.images) <= {"a/1.png"}

    @bounded
    @given(damaged([tar_of(NAMES[0]), tar_of(NAMES[1])]))
    def one(content: bytes) -> None:
        (folder / "shard.tar").write_bytes(content)
        reads_or_refuses(read, folder / "shard.tar")

    one()


def test_distilled_sets_of_the_release(folder: Path) -> None:
    content = {"image": torch.zeros(3, 3, 4, 4), "text": torch.zeros(3, 5), "syn_lr_img": torch.tensor(0.1),
               "syn_lr_txt": torch.tensor(0.1), "similarity_params": [torch.ones(3), torch.zeros(3, 2),
                                                                     torch.zeros(3, 2)]}
    buffer = io.BytesIO()
    torch.save(content, buffer)
    fuzz(damaged([buffer.getvalue()]), write_bytes, lambda path: read_distilled(path, {}), folder / "distilled.pt")


def test_sets_in_safetensors(folder: Path) -> None:
    from repblend.tensors import write_tensors

    write_tensors(folder / "set.safetensors", {"images": torch.zeros(2, 3, 4, 4), "texts": torch.zeros(2, 5)},
                  {"cell": "repblend-8"})
    valid = [(folder / "set.safetensors").read_bytes()]
    for read in (read_tensors, SyntheticSet.read):
        fuzz(damaged(valid), write_bytes, read, folder / "set.safetensors")


def test_recordings(folder: Path) -> None:
    plain, packed = io.BytesIO(), io.BytesIO()
    arrays = {"a": np.zeros((3, 4)), "name": np.array("text"), "b": np.arange(7)}
    np.savez(plain, **arrays)
    np.savez_compressed(packed, **arrays)
    fuzz(damaged([plain.getvalue(), packed.getvalue()]), write_bytes, Fixture, folder / "recording.npz")


UFC = read_yaml(ROOT / "profiles/ufc-glyphs/params.yaml")


@pytest.mark.parametrize(("valid", "read"), [(tiny_content(), read_params), (UFC, read_ufc_params)],
                         ids=["multimodal", "ufc"])
def test_parameters(folder: Path, valid: Any, read: Callable[[Path], object]) -> None:
    fuzz(distorted([valid]), write_yaml, read, folder / "params.yaml")
    buffer = io.BytesIO()
    YAML().dump(valid, buffer)
    fuzz(damaged([buffer.getvalue()]), write_bytes, read, folder / "params.yaml")


MANIFEST = "artifacts.sha256.json"


def test_manifests(folder: Path) -> None:
    valid = [read_json(ROOT / "profiles/ufc-glyphs" / MANIFEST)]
    fuzz(distorted(valid), write_json, lambda path: read_manifest(path.parent), folder / MANIFEST)
    fuzz(damaged([(ROOT / MANIFEST).read_bytes()]), write_bytes, lambda path: read_manifest(path.parent),
         folder / MANIFEST)


def test_locks(folder: Path) -> None:
    stage = {"cmd": "stage", "deps": [{"path": "settings/x.json", "hash": "md5", "md5": "0" * 32}],
             "outs": [{"path": "sets/x", "hash": "md5", "md5": "0" * 32 + ".dir", "size": 7, "nfiles": 2}]}
    valid = {"schema": "2.0", "stages": {"x@a-8": stage, "y": stage}}
    fuzz(distorted([valid]), write_yaml, lambda path: Lock.read(path).outputs, folder / "dvc.lock")
    buffer = io.BytesIO()
    YAML().dump(valid, buffer)
    fuzz(damaged([buffer.getvalue()]), write_bytes, lambda path: Lock.read(path).outputs, folder / "dvc.lock")
