"""`repro data show`: what the page finds in a set, and that other people's words stay words."""

import csv
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from repblend.data.source import source_of
from repblend.params.data import OwnData
from repro.own import new, sheet
from repro.own.sheet import alike, look_of, near_duplicates, page_of, repeats
from tests.own import pictures
from tests.own.test_new import clone  # noqa: F401

HOSTILE = ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "{{ 7 * 7 }}", "a\u202eb & c",
           "'; </style><b>bold</b>"]


class Elements(HTMLParser):
    """Tags with their attributes, and all text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += f" {data}"


def set_of(folder: Path, rows: list[tuple[str, str]], num_val: int = 3, num_test: int = 3) -> sheet.Source:
    """The source of a folder whose pictures are there already."""
    with (folder / "captions.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image", "caption"), *rows])
    data = OwnData(name="mine", folder=str(folder), captions="captions.csv", image_size=32, max_caption_words=60,
                   num_val=num_val, num_test=num_test)
    return source_of(data, folder)


def test_hostile_captions_and_names_are_words_on_the_page(tmp_path: Path) -> None:
    rows = [(f"{number}<i>.png", HOSTILE[number % len(HOSTILE)]) for number in range(12)]
    for number, (name, _) in enumerate(rows):
        pictures.draw(tmp_path, number, name)
    page = page_of(set_of(tmp_path, rows), "grid.budgets: <b>", tmp_path / "journals")
    found = Elements(page)
    assert {tag for tag, _ in found.tags}.isdisjoint({"script", "i", "b", "iframe", "link", "object"})
    assert all(set(attributes) <= {"src", "alt"} and (attributes["src"] or "").startswith("data:image/jpeg;base64,")
               for tag, attributes in found.tags if tag == "img")
    assert not any(name.startswith("on") for _, attributes in found.tags for name in attributes)
    assert "<script>alert(1)</script>" in found.text and "{{ 7 * 7 }}" in found.text and "\u202e" not in page
    assert "0<i>.png" in found.text and "grid.budgets: <b>" in found.text
    assert page == page_of(set_of(tmp_path, rows), "grid.budgets: <b>", tmp_path / "journals")


def test_the_page_counts_and_names_what_one_should_look_at(tmp_path: Path) -> None:
    rows = [*pictures.rows(20), ("pictures/20.png", "Picture 3 of a  dog"), ("pictures/21.png", "")]
    for number in range(22):
        pictures.draw(tmp_path, number, f"pictures/{number}.png")
    shutil.copyfile(tmp_path / "pictures/5.png", tmp_path / "pictures/20.png")
    (tmp_path / "pictures/7.png").write_bytes(b"none")
    rows[3] = (rows[3][0], "picture 3 of a dog")
    source = set_of(tmp_path, rows)
    text = " ".join(Elements(page_of(source, None, tmp_path / "journals")).text.split())
    split = source.captions.split_of(dict.fromkeys([name for name, _ in rows]))
    crossing = split["pictures/5.png"] != split["pictures/20.png"]
    assert "22 images in" in text and "1 group of images that look alike" in text
    assert ("2 images of several splits" in text) == crossing
    assert "2 found, empty captions among them" in text and "caption '' is empty after the clean-up" in text
    assert "pictures/7.png: expected a whole image file" in text
    assert "1 caption of several images" in text and "2 picture 3 of a dog" in text
    assert f"train 16 {16 - (split['pictures/21.png'] == 'train')} 5 / 5 / 5 40 / 40 / 40 32 / 32 / 32" in text


@pytest.mark.parametrize(("change", "same"), [
    (lambda image: image.resize((90, 81)), True), (lambda image: image.transpose(Image.Transpose.ROTATE_90), False),
    (lambda image: Image.eval(image, lambda level: 255 - level), False),
    (lambda image: Image.eval(image, lambda level: min(255, level + 2)), True)])
def test_copies_look_alike_and_others_do_not(change: object, same: bool) -> None:
    levels = np.random.default_rng(0).integers(0, 250, (6, 7, 3), dtype=np.uint8)
    image = Image.fromarray(levels).resize((60, 54), Image.Resampling.BICUBIC)
    assert alike(look_of(image), look_of(change(image))) == same  # type: ignore[operator]


def test_groups_are_those_of_a_search_over_all_pairs() -> None:
    draws = np.random.default_rng(1)
    looks = {}
    for number in range(60):
        image = Image.fromarray(draws.integers(0, 256, (8, 9, 3), dtype=np.uint8)).resize((36, 32))
        looks[f"{number}"] = look_of(image)
        if number % 3 == 0:
            looks[f"{number} again"] = look_of(image.resize((72, 64), Image.Resampling.BICUBIC))
    expected = {frozenset((one, other)) for one in looks for other in looks if one < other
                and alike(looks[one], looks[other])}
    assert {frozenset(group) for group in near_duplicates(looks)} == expected and len(expected) == 20


def test_repeats_are_captions_of_several_images_in_whatever_capitals() -> None:
    assert repeats({"a": ["One", "one"], "b": ["two", " TWO"], "c": ["Two", "x"]}) == [("two", 2)]


def test_the_page_of_a_profile_lies_in_its_workspace(clone: Path, tmp_path: Path,  # noqa: F811
                                                     capsys: pytest.CaptureFixture) -> None:
    data = pictures.with_shards(tmp_path / "shards", 60)
    assert new.main("mine", data, "quickstart", None) == 0
    (data / "manifest.json").unlink()  # then the shards are looked through
    assert sheet.main("mine", None, None) == 0
    page = (clone / "profiles/mine/paper/data.html").read_text()
    assert page.count("<img ") >= 60 and "picture number 59" in page and len(page) < 600_000
    assert sheet.main("absent", None, None) == 1
    assert "repro data show: absent: no parameters here name such a data set" in capsys.readouterr().err
