"""Caption clean-up as published (PAPER.md section 3, from the BLIP code family)."""

import re

REPLACED_BY_SPACE = re.compile(r"[.!\"()*#:;~]")
SPACES = re.compile(r"\s{2,}")


def clean_caption(caption: str, max_words: int) -> str:
    """Return the caption lower-cased, without the characters . ! " ( ) * # : ; ~, cut to its first words.

    Runs of white space become one space; a single tab or newline inside the caption stays, as published.

    Args:
        max_words: words kept; words are what single spaces separate (60 for Flickr30K and COCO training captions).
    """
    text = SPACES.sub(" ", REPLACED_BY_SPACE.sub(" ", caption.lower())).rstrip("\n").strip(" ")
    return " ".join(text.split(" ")[:max_words])
