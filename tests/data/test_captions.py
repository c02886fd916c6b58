"""Caption clean-up against the definition written out, character by character."""

import random

import pytest

from repblend.data.captions import clean_caption


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
