"""Characters drawn in packaged typefaces: the same bytes with the locked Pillow, and typefaces that are never split."""

import hashlib
import re
from pathlib import Path

import numpy as np
import pytest
from fontTools.ttLib import TTFont
from PIL import Image, ImageDraw, ImageFont

from repblend.costs import LABELLED
from repblend.ufc import glyphs
from repblend.ufc.data import NORMALISATIONS, NUM_CLASSES, Splits
from repblend.ufc.glyphs import CHARACTERS, TYPEFACES, draw_typeface, faces_of, files_of, read_glyphs, split_of
from repblend.ufc.params import UfcData
from repblend.ufc.readers import read_splits
from tests.stages.imports import ROOT

SIZE = 16
DATA = {"name": "glyphs", "image_size": SIZE, "num_val": 1426, "num_test": 2914}
HASHES = {"abel": "3e2f15efa7abeda4", "acme": "1168a6c70e356206", "arvo": "17e6ab6c58d9a2df",
          "bitter": "1fdf85e26f03950d"}
"""Typeface -> how the SHA-256 of its pixels begins; two in one style, four files, and two files of varying weight."""
TEST_HASH = "a0f220a44bee7a9a"
FEW = tuple(HASHES)


@pytest.fixture(scope="module")
def splits() -> Splits:
    return read_splits(UfcData.model_validate(DATA), Path(), 0)


def test_every_typeface_draws_every_character_in_every_face(splits: Splits) -> None:
    assert [len(split) for split in splits] == [6820, 1426, 2914] and len(CHARACTERS) == NUM_CLASSES["glyphs"] == 62
    assert sum(map(len, splits)) == LABELLED["glyphs"][0] and LABELLED["glyphs"][2] == 62
    for split in splits:
        assert split.labels.bincount().unique().numel() == 1  # as many images of every class
        assert split.images.shape[1:] == (3, SIZE, SIZE) and (split.images[:, 0] == split.images[:, 2]).all()
        assert split.images.flatten(1).amax(dim=1).min() > 50  # none is empty, however thin the face


def test_the_constants_are_measured_on_the_training_images(splits: Splits) -> None:
    pixels, constants = splits.train.images.double() / 255, NORMALISATIONS["glyphs"]
    assert constants.mean == (round(float(pixels.mean()), 4),) * 3
    assert constants.std == (round(float(pixels.std()), 4),) * 3


def test_no_typeface_is_in_two_splits() -> None:
    of = {name: split_of(place) for place, name in enumerate(TYPEFACES)}
    assert list(TYPEFACES) == sorted(set(TYPEFACES))
    assert [list(of.values()).count(name) for name in Splits._fields] == [32, 7, 13]
    for split, images in read_glyphs(8, FEW)._asdict().items():
        own = [draw_typeface(name, 8) for place, name in enumerate(FEW) if split_of(place) == split]
        assert (images.images[:, 1].numpy() == np.concatenate(own).reshape(-1, 8, 8)).all()


def test_drawings_have_the_bytes_of_the_locked_pillow(splits: Splits) -> None:
    """With another Pillow, or another typeface, these change: then `records/prepare.json` of the profile does too."""
    drawn = {name: hashlib.sha256(draw_typeface(name, SIZE).tobytes()).hexdigest()[:16]
             for name in FEW}
    assert drawn == HASHES
    assert splits.test.sha256()[:16] == TEST_HASH


def test_a_character_is_drawn_as_large_as_all_of_its_face_allow() -> None:
    """Against a drawing of each character alone, looked at by its ink."""
    face, = faces_of(files_of("acme")[0])
    drawn = face.draw(64).astype(float)
    ink = [np.argwhere(image > 0) for image in drawn]
    tops, lefts = ([found[:, axis].min() for found in ink] for axis in (0, 1))
    bottoms, rights = ([found[:, axis].max() for found in ink] for axis in (0, 1))
    tall, wide = max(bottoms) - min(tops) + 1, max(right - left + 1 for left, right in zip(lefts, rights, strict=True))
    assert 60 <= max(tall, wide) <= 64  # 62 less rounding
    middles = [(left + right) / 2 for left, right in zip(lefts, rights, strict=True)]
    assert max(abs(middle - 31.5) for middle in middles) <= 3  # of 64: the middle of the advance, not of the ink
    upper, lower = (CHARACTERS.index(character) for character in "Oo")
    assert abs(bottoms[upper] - bottoms[lower]) <= 1 and tops[lower] > tops[upper] + 5  # one baseline, own heights
    font = ImageFont.truetype(str(face.path), 256, layout_engine=ImageFont.Layout.BASIC)
    box = font.getbbox("R", anchor="lt")
    alone = Image.new("L", (round(box[2]), round(box[3])))
    ImageDraw.Draw(alone).text((0, 0), "R", fill=255, font=font, anchor="lt")
    alone = alone.crop(alone.getbbox())
    place = CHARACTERS.index("R")
    own = drawn[place, tops[place]:bottoms[place] + 1, lefts[place]:rights[place] + 1]
    expected = np.asarray(alone.resize(own.shape[::-1], Image.Resampling.BOX), float)
    assert np.abs(own - expected).mean() < 20  # of 255; the letter turned round is 70 and more away
    assert np.abs(own - expected[:, ::-1]).mean() > 60


def test_variable_files_are_drawn_in_three_weights_of_their_range() -> None:
    upright = next(path for path in files_of("raleway") if "Italic" not in path.name)
    faces = faces_of(upright)
    assert [face.axes for face in faces] == [(300,), (500,), (800,)]
    amounts = [float(face.draw(32).mean()) for face in faces]
    assert amounts == sorted(amounts) and amounts[2] > 1.5 * amounts[0]  # bolder is whiter
    cabin = faces_of(next(path for path in files_of("cabin") if "Italic" not in path.name))
    assert [face.axes for face in cabin] == [(400, 100), (500, 100), (700, 100)]  # weight in its range, width as it is


def test_every_file_has_a_drawing_of_its_own_for_every_character() -> None:
    """By another reader of typefaces: Pillow draws an empty box where one is missing."""
    for path in (path for name in TYPEFACES for path in files_of(name)):
        with TTFont(path, lazy=True) as font:
            assert set(map(ord, CHARACTERS)) <= font.getBestCmap().keys(), path


def test_every_package_holds_an_open_licence_and_is_locked() -> None:
    lock = (ROOT / "requirements/lock.txt").read_text()
    for name in TYPEFACES:
        folder = files_of(name)[0].parent.parent
        text = (folder / "LICENSE").read_text(encoding="utf-8")
        assert re.search("SIL OPEN FONT LICENSE Version 1.1|Apache License", text), name
        assert re.search(rf"^fontpkg-{name}==", lock, re.MULTILINE), name


@pytest.mark.parametrize(("change", "message"), [
    ({"num_val": 1000}, "data.num_val: glyphs have 1426 such images, found 1000; set it to 1426"),
    ({"num_test": 62}, "data.num_test: glyphs have 2914 such images"),
    ({"training_images": "all"}, "held-out typefaces stay apart"),
    ({"folder": "data/glyphs"}, "give folder with every set but digits and glyphs")])
def test_what_does_not_fit_is_named(change: dict, message: str, monkeypatch: pytest.MonkeyPatch,
                                    splits: Splits) -> None:
    monkeypatch.setattr("repblend.ufc.readers.read_glyphs", lambda size: splits)
    with pytest.raises(ValueError, match=message):
        read_splits(UfcData.model_validate(DATA | change), Path(), 0)


def test_typefaces_that_cannot_be_read_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="fontpkg-no-such is not installed; run `make install`"):
        draw_typeface("no-such", SIZE)
    damaged = tmp_path / "damaged.ttf"
    damaged.write_bytes(b"no typeface")
    with pytest.raises(ValueError, match=r"damaged\.ttf: expected a typeface"):
        faces_of(damaged)
    monkeypatch.setattr(glyphs, "CHARACTERS", "A ")
    with pytest.raises(ValueError, match=r"Acme-Regular\.ttf: no drawing of  ;"):
        draw_typeface("acme", SIZE)
