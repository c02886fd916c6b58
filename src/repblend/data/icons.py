"""Icons with names: image-text pairs unlike the training set's, for zero-shot retrieval (Table 5, at our scale).

The solid icons of Font Awesome Free 5.15.4 by @fontawesome, https://fontawesome.com (CC BY 4.0,
https://creativecommons.org/licenses/by/4.0/) come from the PyPI package `fontawesome-free`; an icon's file name is its
caption. A stable hash of the name decides which are taken. They are drawn black on a white square, at their own aspect
ratio.
"""

import functools
import hashlib
import importlib.metadata
import re
from pathlib import Path

import resvg_py
import torch
from torch import Tensor

from repblend.data.image_store import decode
from repblend.data.images import as_tensor
from repblend.data.karpathy import clean_caption
from repblend.progress import progress

PACKAGE = "fontawesome-free"
FOLDER = "fontawesome-free/static/fontawesome_free/svgs/solid"
LEFT_OUT = {"font-awesome-logo-full"}
"""The publisher's own name, which is no icon."""
VIEW_BOX = re.compile(r'viewBox="0 0 (\d+) (\d+)"')


def read_icons(num: int, image_size: int, max_words: int) -> tuple[Tensor, list[str]]:
    """Return icons and their captions, one each, in the order of their hashes.

    Args:
        num: how many; a larger selection begins with the smaller one.
        image_size: height and width in pixels.
        max_words: captions are cut to this many words.

    Returns:
        (num, 3, image_size, image_size) float32 in [0, 1], as `repblend.data.images.read_images` gives them, and `num`
        cleaned captions.

    Raises:
        ValueError: there are fewer icons.
    """
    icons = find_icons()
    if num > len(icons):
        raise ValueError(f"transfer.num_icons: expected at most {len(icons)}, as many as {PACKAGE} has, found {num}. "
                         "Lower it")
    chosen = progress(icons[:num], "rasterise icons", "icon")
    pixels = torch.stack([rasterise(svg.read_text("utf-8"), image_size) for svg in chosen])
    return pixels, [caption(svg.stem, max_words) for svg in icons[:num]]


@functools.cache
def find_icons() -> tuple[Path, ...]:
    """Return every icon's file, ordered by the SHA-256 of its name."""
    folder = Path(str(importlib.metadata.distribution(PACKAGE).locate_file(FOLDER)))
    icons = [svg for svg in folder.glob("*.svg") if svg.stem not in LEFT_OUT]
    return tuple(sorted(icons, key=lambda svg: hashlib.sha256(svg.stem.encode()).hexdigest()))


def caption(name: str, max_words: int) -> str:
    """Return an icon's file name as text: `cloud-sun-rain` becomes "cloud sun rain"."""
    return clean_caption(name.replace("-", " "), max_words)


def rasterise(svg: str, size: int) -> Tensor:
    """Return a drawing on a white square, centred and as large as fits, (3, size, size) in [0, 1].

    No font of the machine is used.
    """
    png = resvg_py.svg_to_bytes(svg_string=squared(svg), width=size, height=size, background="#ffffff",
                                skip_system_fonts=True)
    return as_tensor(decode(bytes(png), "an icon"))


def squared(svg: str) -> str:
    """Return an SVG whose view is the smallest square around the old one, with the same centre."""
    view = VIEW_BOX.search(svg)
    assert view, "every icon of the package has a view box of this form"
    width, height = map(int, view.groups())
    side = max(width, height)
    return VIEW_BOX.sub(f'viewBox="{(width - side) / 2:g} {(height - side) / 2:g} {side} {side}"', svg, count=1)
