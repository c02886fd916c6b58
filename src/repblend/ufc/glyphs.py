"""Glyphs: 62 characters drawn in the faces of 52 openly licensed typefaces, which arrive as packages.

A class is a character, an image is one face's drawing of it. A face is a file of a typeface, or one weight of a file
whose weight varies. Typefaces are split, never faces: no typeface of a held-out or test image is trained on.

Pixels come from Pillow's own FreeType, glyph by glyph (layout engine "basic"; what else is installed for shaping text
is not asked), so they are those of the locked Pillow. A face is drawn `OVERSAMPLING` times too large and averaged,
white on black, as large as lets its largest characters fit; all of its characters share one size and one baseline, so
that c and C differ. Typefaces: fontpkg-NAME on the package index, from github.com/google/fonts, under the SIL Open
Font Licence 1.1 or the Apache Licence 2.0; every package holds its licence.
"""

import importlib.metadata
import string
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from repblend.ufc.data import LabelledImages, Splits

CHARACTERS = string.ascii_uppercase + string.ascii_lowercase + string.digits
"""Of the classes, in their order."""
TYPEFACES = (
    "abel", "abril-fatface", "acme", "alfa-slab-one", "anton", "archivo-narrow", "arvo", "bitter", "cabin", "cardo",
    "caveat", "changa-one", "comfortaa", "crimson-text", "dancing-script", "delius", "dm-mono", "domine", "dosis",
    "eb-garamond", "exo-2", "fira-code", "fjalla-one", "gravitas-one", "inconsolata", "indie-flower", "jetbrains-mono",
    "josefin-sans", "karla", "libre-baskerville", "lilita-one", "lobster-two", "lora", "maven-pro", "oleo-script",
    "orbitron", "oswald", "pacifico", "playfair-display", "press-start-2p", "quicksand", "raleway", "righteous",
    "roboto-slab", "russo-one", "satisfy", "shadows-into-light", "signika", "space-mono", "vollkorn", "work-sans",
    "zilla-slab")
"""In the order of the alphabet, by which `split_of` splits them."""
WEIGHTS = (300, 500, 800)
"""That a variable file is drawn in, brought into its range."""
OVERSAMPLING = 4
MARGIN = 1
"""Pixels that stay black on every side, but for rounding."""
REFERENCE = 200
"""Pixels of the em that a face is measured at."""


def read_glyphs(image_size: int, typefaces: Sequence[str] = TYPEFACES) -> Splits:
    """Draw all characters in all faces; images are ordered by typeface, face and character.

    Args:
        image_size: height and width in pixels.
        typefaces: names of packages without `fontpkg-`; four or more, so that no split is empty.

    Raises:
        ValueError: a package is missing or has no file, a file is no typeface, or a face draws nothing for a character.
    """
    found: dict[str, list[np.ndarray]] = {name: [] for name in Splits._fields}
    for place, name in enumerate(typefaces):
        found[split_of(place)].append(draw_typeface(name, image_size))
    return Splits(**{split: _labelled(np.concatenate(drawn)) for split, drawn in found.items()})


def split_of(place: int) -> str:
    """Return which split the typeface at a place of the alphabet belongs to: of eight, five are trained on, one is
    held out and two are tested on.
    """
    return {1: "val", 3: "test", 7: "test"}.get(place % 8, "train")


def draw_typeface(name: str, image_size: int) -> np.ndarray:
    """Return a typeface's faces, (F, C, H, W) uint8; raises as `read_glyphs`."""
    return np.stack([face.draw(image_size) for path in files_of(name) for face in faces_of(path)])


def _labelled(faces: np.ndarray) -> LabelledImages:
    """Return drawn faces (F, C, H, W) as labelled images of three channels."""
    num_faces, num_classes, *size = faces.shape
    grey = torch.from_numpy(faces).reshape(num_faces * num_classes, 1, *size)
    return LabelledImages(grey.repeat(1, 3, 1, 1), torch.arange(num_classes).repeat(num_faces), num_classes)


# Faces: where they are, and how one is drawn.


def files_of(typeface: str) -> list[Path]:
    """Return a typeface's files, in the order of their names; raises `ValueError` if its package is not installed, or
    has none.
    """
    package = f"fontpkg-{typeface}"
    try:
        distribution = importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError as error:
        raise ValueError(f"data.name: the glyphs are drawn in typefaces of packages, and {package} is not installed; "
                         "run `make install`") from error
    folder = Path(str(distribution.locate_file(package.replace("-", "_"))), "files")
    if not (files := sorted(folder.glob("*.ttf"))):
        raise ValueError(f"{folder}: expected the files of a typeface (*.ttf), found none; run `make install` again")
    return files


@dataclass(frozen=True)
class Face:
    """One way to draw all characters."""

    path: Path
    axes: tuple[float, ...] = ()
    """Values of a variable file's axes, in the file's order; none of any other."""

    def font(self, size: int) -> ImageFont.FreeTypeFont:
        """Return the face with an em of `size` pixels; raises `ValueError` if the file is no typeface."""
        font = opened(self.path, size)
        if self.axes:
            font.set_variation_by_axes(list(self.axes))
        return font

    def draw(self, image_size: int) -> np.ndarray:
        """Return every character, (C, image_size, image_size) uint8, white on black; raises `ValueError` if it
        draws nothing for one.

        The em is as large as the tallest and the widest character allow. Characters stand in the middle, by their
        advance.
        """
        side, room = image_size * OVERSAMPLING, (image_size - 2 * MARGIN) * OVERSAMPLING
        boxes = self._boxes()
        top, bottom = min(box[1] for box in boxes), max(box[3] for box in boxes)
        widest = max(right - left for left, _, right, _ in boxes)
        em = int(REFERENCE * room / max(bottom - top, widest))
        font, scale = self.font(em), em / REFERENCE
        strip = Image.new("L", (len(CHARACTERS) * side, side))
        pen, baseline = ImageDraw.Draw(strip), round((side - scale * (top + bottom)) / 2)
        for number, (character, (left, _, right, _)) in enumerate(zip(CHARACTERS, boxes, strict=True)):
            start = round((side - scale * (left + right)) / 2)
            pen.text((number * side + start, baseline), character, fill=255, font=font, anchor="ls")
        small = np.asarray(strip.reduce(OVERSAMPLING))  # (H, C * W)
        return small.reshape(image_size, len(CHARACTERS), image_size).swapaxes(0, 1)

    def _boxes(self) -> list[tuple[float, float, float, float]]:
        """Return left, top, right and bottom of every character at the size of `REFERENCE`, from the place on the
        baseline that it starts at: of its ink, and sideways of its advance too.
        """
        font = self.font(REFERENCE)
        boxes = [font.getbbox(character, anchor="ls") for character in CHARACTERS]
        if empty := [character for character, box in zip(CHARACTERS, boxes, strict=True) if box[1] >= box[3]]:
            raise ValueError(f"{self.path}: no drawing of {', '.join(empty)}; take the typeface out of "
                             "`repblend.ufc.glyphs.TYPEFACES`")
        return boxes


def opened(path: Path, size: int) -> ImageFont.FreeTypeFont:
    """Open a file with an em of `size` pixels; raises `ValueError` if it is no typeface."""
    try:
        return ImageFont.truetype(str(path), size, layout_engine=ImageFont.Layout.BASIC)
    except OSError as error:
        raise ValueError(f"{path}: expected a typeface ({error}); run `make install` again") from error


def faces_of(path: Path) -> list[Face]:
    """Return a file's faces: one, or one for each of `WEIGHTS` if its weight varies; other axes keep their defaults;
    raises as `opened`.
    """
    try:
        axes = opened(path, REFERENCE).get_variation_axes()
    except OSError:  # what Pillow says of a file without axes
        return [Face(path)]
    weight = next((axis for axis in axes if axis["name"] == b"Weight"), None)
    low, high = (weight["minimum"] or 0, weight["maximum"] or 0) if weight else (0, 0)
    return [Face(path, tuple(chosen if axis is weight else axis["default"] or 0 for axis in axes))
            for chosen in sorted({min(max(each, low), high) for each in WEIGHTS})]
