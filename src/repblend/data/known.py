"""The published datasets of the paper: how an entry `data` of `params.yaml` names them, and whose they are.

Counts, files and caption lengths: PAPER.md section 3. The number of COCO's training captions is that of the released
annotation file. Nobody has published counts for LLaVA-cc3m.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from repblend.data_params import RealData

PUBLISHED_IMAGE_SIZE = 224


@dataclass(frozen=True)
class KnownSet:
    """A published dataset."""

    title: str
    name: str
    """Prefix of its annotation files, and `data.name`."""
    entry: Mapping[str, object]
    """Fields of `RealData` that are this dataset's, whoever uses it."""
    terms: str
    """Whose it is and what may be done with it, Markdown."""
    license_name: str
    """Of the terms: the Hugging Face hub has no identifier for any of them."""
    license_link: str

    def data(self, folder: str) -> RealData:
        """Return the entry for a copy in a folder."""
        return RealData.model_validate({"name": self.name, "folder": folder, "image_size": PUBLISHED_IMAGE_SIZE,
                                        **self.entry})


KNOWN = {
    "flickr30k": KnownSet(
        "Flickr30K", "flickr30k",
        {"max_caption_words": 60,
         "expected": {"train": {"images": 29_000, "captions": 145_000}, "val": {"images": 1_014, "captions": 5_070},
                      "test": {"images": 1_000, "captions": 5_000}}},
        "Flickr30K (Young et al., 2014), in the split of Karpathy and Fei-Fei. The images are from Flickr and belong "
        "to their authors; the dataset is for non-commercial research and education, by request. What is made of the "
        "images may fall under the same terms.",
        "non-commercial-research-and-education", "https://shannon.cs.illinois.edu/DenotationGraph/"),
    "coco": KnownSet(
        "MS-COCO", "coco_karpathy",
        {"max_caption_words": 60, "max_caption_words_of": {"test": 30},
         "expected": {"train": {"images": 113_287, "captions": 566_747}, "val": {"images": 5_000, "captions": 25_010},
                      "test": {"images": 5_000, "captions": 25_010}}},
        "Microsoft COCO 2014 (Lin et al., 2014), in the split of Karpathy and Fei-Fei. Annotations are CC BY 4.0; the "
        "images are from Flickr, belong to their authors and fall under Flickr's terms of use.",
        "flickr-terms-of-use", "https://cocodataset.org/#termsofuse"),
    "cc3m": KnownSet(
        "LLaVA-cc3m", "cc3m",
        {"max_caption_words": 30, "max_val": 10_000, "max_test": 10_000,
         "annotations": {split: f"captions_{split}zx2025.json" for split in ("train", "val", "test")}},
        "Images of Conceptual Captions 3M (Sharma et al., 2018) as LLaVA selected them. Google lets the captions be "
        "used for any purpose and asks to be named as their source; the images are from the web and belong to their "
        "authors.",
        "conceptual-captions", "https://ai.google.com/research/ConceptualCaptions/"),
}
"""By the name that commands and profiles give them."""


def find_key(name: str) -> str | None:
    """Return the key in `KNOWN` of the dataset that is called so, by it or by the name of its annotation files."""
    return next((key for key, known in KNOWN.items() if name in (key, known.name)), None)


def find_known(name: str) -> KnownSet | None:
    """Return the dataset that is called so, likewise."""
    key = find_key(name)
    return KNOWN[key] if key else None


def attribution(name: str, folder: Path) -> str:
    """Return whom a real dataset is from and under which terms, Markdown.

    A file `ATTRIBUTION.md` in the dataset's folder goes before what is known here.
    """
    own, known = folder / "ATTRIBUTION.md", find_known(name)
    if own.is_file():
        return own.read_text(encoding="utf-8")
    stated = f"{known.terms}\n\nTerms: {known.license_link}" if known else (
        f"Nobody has stated whose data `{name}` is: its folder has no ATTRIBUTION.md. Find out before you give away "
        "what was made of it.")
    return f"# Attribution\n\n{stated}\n"
