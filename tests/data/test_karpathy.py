"""The reader of annotation files: what it gives, what it says about damage, and captions against their definition."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from repblend.data.karpathy import AnnotatedImage, Annotations, clean_caption, read_annotations, write_annotations

TRAIN = [{"image": "a.jpg", "caption": "A cat.", "image_id": "a"}, {"image": "b.jpg", "caption": "dog", "image_id": 7},
         {"image": "a.jpg", "caption": "Feline!", "image_id": "a"}]
VAL = [{"image": "c.jpg", "caption": ["one"]}]
TEST = [{"image": "d.jpg", "caption": ["x", "y", "z"]}, {"image": "e.jpg", "caption": ["v", "w"]}]


def write(folder: Path, name: str = "set", **splits: Any) -> None:
    for split, rows in ({"train": TRAIN, "val": VAL, "test": TEST} | splits).items():
        (folder / f"{name}_{split}.json").write_text(json.dumps(rows), "utf-8")


def message(folder: Path, **splits: Any) -> str:
    """What the reader says about damaged files."""
    write(folder, **splits)
    with pytest.raises(ValueError) as caught:
        read_annotations(folder, "set", 60)
    return str(caught.value)


def test_captions_are_grouped_by_image_in_order_of_first_row(tmp_path: Path) -> None:
    write(tmp_path)
    read = read_annotations(tmp_path, "set", 60)
    assert read.train == (AnnotatedImage("a.jpg", ("a cat", "feline")), AnnotatedImage("b.jpg", ("dog",)))
    assert read.val == (AnnotatedImage("c.jpg", ("one",)),)
    assert [len(image.captions) for image in read.test] == [3, 2]


@pytest.mark.parametrize(("name", "image"), [("flickr30k", "flickr30k-images/1000092795.jpg"),
                                             ("coco_karpathy", "val2014/COCO_val2014_000000522418.jpg")])
def test_published_names_and_image_folders_are_read_as_they_are(tmp_path: Path, name: str, image: str) -> None:
    write(tmp_path, name, test=[{"image": image, "caption": ["A man."] * 6}])
    assert read_annotations(tmp_path, name, 60).test == (AnnotatedImage(image, ("a man",) * 6),)


def test_a_held_out_caption_may_stand_without_a_list_as_in_llava_cc3m(tmp_path: Path) -> None:
    write(tmp_path, val=[{"image": "z.jpg", "caption": "A cat."}])
    assert read_annotations(tmp_path, "set", 60).val == (AnnotatedImage("z.jpg", ("a cat",)),)


def test_captions_are_cut_to_the_words_asked_for(tmp_path: Path) -> None:
    write(tmp_path, val=[{"image": "c.jpg", "caption": ["one two three"]}])
    assert read_annotations(tmp_path, "set", 2).val[0].captions == ("one two",)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    annotations = Annotations((AnnotatedImage("i/a.png", ("é a", "b")),), (AnnotatedImage("i/b.png", ("c",)),),
                              (AnnotatedImage("i/c.png", ("d", "e", "f")),))
    write_annotations(tmp_path, "set", annotations)
    assert read_annotations(tmp_path, "set", 60) == annotations
    rows = json.loads((tmp_path / "set_train.json").read_text("utf-8"))
    assert [set(row) for row in rows] == [{"image", "caption", "image_id"}] * 2
    assert rows[0]["image_id"] == rows[1]["image_id"]


@pytest.mark.parametrize(("split", "row", "expected"), [
    ("train", ["a.jpg", "cat"], "expected an object"),
    ("train", {"caption": "cat", "image_id": "a"}, "key 'image' is missing"),
    ("train", {"image": "a.jpg", "image_id": "a"}, "key 'caption' is missing"),
    ("train", {"image": 3, "caption": "cat"}, "expected 'image' to be a path"),
    ("train", {"image": "", "caption": "cat"}, "expected 'image' to be a path"),
    ("train", {"image": "a\0.jpg", "caption": "cat"}, "expected 'image' to be a path"),
    ("train", {"image": "/etc/a.jpg", "caption": "cat"}, "lies outside the dataset's folder"),
    ("train", {"image": "x/../../a.jpg", "caption": "cat"}, "lies outside the dataset's folder"),
    ("train", {"image": "a.jpg", "caption": ["cat"]}, "expected a caption to be text, found ['cat']"),
    ("train", {"image": "a.jpg", "caption": None}, "expected a caption to be text, found None"),
    ("train", {"image": "a.jpg", "caption": ""}, "caption '' is empty after the clean-up"),
    ("train", {"image": "a.jpg", "caption": " .!\t"}, "is empty after the clean-up"),
    ("val", {"image": "z.jpg", "caption": 5}, "text or a list of one or more captions, found 5"),
    ("val", {"image": "z.jpg", "caption": []}, "text or a list of one or more captions, found []"),
    ("test", {"image": "z.jpg", "caption": ["cat", 4]}, "expected a caption to be text, found 4"),
    ("test", {"image": "z.jpg", "caption": ["cat", "()"]}, "caption '()' is empty after the clean-up"),
])
def test_a_bad_row_is_named_with_its_file_and_number(tmp_path: Path, split: str, row: Any, expected: str) -> None:
    good = {"train": TRAIN, "val": VAL, "test": TEST}[split]
    said = message(tmp_path, **{split: [*good, row]})
    assert f"set_{split}.json, row {len(good)}: " in said
    assert expected in said
    assert any(remedy in said for remedy in ("remove", "Put", "Add"))


def test_an_image_in_two_splits_is_refused(tmp_path: Path) -> None:
    said = message(tmp_path, test=[*TEST, {"image": "./b.jpg", "caption": ["dog"]}])
    assert "set_test.json, row 2: image 'b.jpg' stands in train too" in said and "set_train.json, row 1" in said


def test_an_image_in_two_rows_of_a_held_out_split_is_refused(tmp_path: Path) -> None:
    assert "set_val.json, row 1: image 'c.jpg' has a row already" in message(tmp_path, val=VAL * 2)


@pytest.mark.parametrize("rows", [{}, [], "text"])
def test_a_file_without_rows_is_refused(tmp_path: Path, rows: Any) -> None:
    assert "set_val.json: expected a list of rows" in message(tmp_path, val=rows)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "set_test.json").unlink()
    with pytest.raises(ValueError, match=r"set_test\.json: no such file"):
        read_annotations(tmp_path, "set", 60)


def test_a_file_that_is_not_json_is_named_with_its_line(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "set_train.json").write_text('[{"image": "a.jpg"},\n {"image": ')
    with pytest.raises(ValueError, match=r"set_train\.json, line 2: expected JSON"):
        read_annotations(tmp_path, "set", 60)


def clean_slowly(caption: str, max_words: int) -> str:
    """The published clean-up without regular expressions."""
    characters = [" " if character in '.!"()*#:;~' else character for character in caption.lower()]
    collapsed, position = "", 0
    while position < len(characters):
        end = position
        while end < len(characters) and characters[end].isspace():
            end += 1
        collapsed += " " if end - position >= 2 else characters[position]
        position = max(end, position + 1)
    while collapsed.endswith("\n"):
        collapsed = collapsed[:-1]
    while collapsed.startswith(" "):
        collapsed = collapsed[1:]
    while collapsed.endswith(" "):
        collapsed = collapsed[:-1]
    return " ".join(collapsed.split(" ")[:max_words])


@pytest.mark.parametrize(("caption", "expected"), [
    ("A man (left) with TWO dogs.", "a man left with two dogs"),
    ('"Stop!": #1; *really* ~now', "stop 1 really now"),
    ("keeps , ? ' - & / as they are", "keeps , ? ' - & / as they are"),
    ("one\ttab stays, two\t\tdo not\n", "one\ttab stays, two do not"),
    ("...", ""),
])
def test_known_captions(caption: str, expected: str) -> None:
    assert clean_caption(caption, 60) == expected


def test_random_captions_match_the_definition() -> None:
    draws = random.Random(0)
    for _ in range(3000):
        caption = "".join(draws.choices('aBé .!"()*#:;~,\t\n-', k=draws.randrange(25)))
        words = draws.randrange(1, 6)
        assert clean_caption(caption, words) == clean_slowly(caption, words), repr(caption)


def test_captions_are_cut_to_the_number_of_words() -> None:
    assert clean_caption("a b c d", 3) == "a b c"
    assert clean_caption(" ".join(["word"] * 61), 60).count("word") == 60


def test_cleaning_again_changes_nothing() -> None:
    """Captions of a real set are written cleaned, cut to its split's words, and cleaned again when they are read."""
    generator = random.Random(0)
    pieces = ["A", "b", "İ", "ß", "é", ".", "!", "(", ")", '"', "#", "~", " ", "  ", "\t", "\n", "\u00a0", "\u3000"]
    for _ in range(20_000):
        caption = "".join(generator.choices(pieces, k=generator.randrange(12)))
        for words, most in ((2, 2), (2, 60), (60, 60)):
            once = clean_caption(caption, words)
            assert clean_caption(once, most) == once, repr(caption)
