"""The icons: which are taken, what they look like, what they are called, and that they are the same on every run."""

import hashlib
import importlib.metadata
import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import resvg_py
import torch
from PIL import Image

from repblend.data import icons
from repblend.data.image_store import FolderStore
from repblend.data.images import read_image
from repblend.data.karpathy import clean_caption

SIZE = 32


def rectangle(width: int, height: int) -> str:
    """A drawing that fills its view."""
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}">'
            f'<path d="M0,0H{width}V{height}H0Z"/></svg>')


def test_every_solid_icon_of_the_package_is_there_once_but_its_publishers_name() -> None:
    listed = {Path(str(file)).stem for file in importlib.metadata.files("fontawesome-free")
              if str(file).startswith(f"{icons.FOLDER}/") and str(file).endswith(".svg")}
    found = [svg.stem for svg in icons.find_icons()]
    assert len(found) == len(set(found)) == 1001
    assert set(found) == listed - {"font-awesome-logo-full"} and "font-awesome-logo-full" in listed


def test_the_hash_of_the_name_decides_and_more_icons_begin_with_the_fewer() -> None:
    names = [svg.stem for svg in icons.find_icons()]
    assert names == sorted(names, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    few, many = icons.read_icons(5, SIZE, 60), icons.read_icons(9, SIZE, 60)
    assert many[1] == [name.replace("-", " ") for name in names[:9]]
    assert many[1][:5] == few[1] and torch.equal(many[0][:5], few[0])


def test_captions_are_the_names_as_the_clean_up_leaves_them() -> None:
    assert icons.caption("cloud-sun-rain", 60) == "cloud sun rain"
    assert icons.caption("cloud-sun-rain", 2) == "cloud sun"
    captions = [icons.caption(svg.stem, 60) for svg in icons.find_icons()]
    assert len(set(captions)) == len(captions)
    assert all(text and text == clean_caption(text, 60) for text in captions)


@pytest.mark.parametrize(("width", "height", "rows", "columns"), [
    (512, 512, (0, 32), (0, 32)), (512, 256, (8, 24), (0, 32)), (128, 512, (0, 32), (12, 20))])
def test_a_drawing_keeps_its_aspect_and_stands_in_the_middle_on_white(width: int, height: int, rows: tuple[int, int],
                                                                     columns: tuple[int, int]) -> None:
    expected = torch.ones(3, SIZE, SIZE)
    expected[:, slice(*rows), slice(*columns)] = 0
    assert torch.equal(icons.rasterise(rectangle(width, height), SIZE), expected)


def test_icons_are_grey_drawings_read_as_the_common_reader_reads_a_file(tmp_path: Path) -> None:
    pixels, _ = icons.read_icons(20, SIZE, 60)
    assert pixels.shape == (20, 3, SIZE, SIZE) and pixels.dtype == torch.float32
    assert (pixels[:, 0] == pixels[:, 1]).all() and (pixels[:, 0] == pixels[:, 2]).all()
    assert (pixels.amin((1, 2, 3)) < 0.1).all() and (pixels.amax((1, 2, 3)) == 1).all()
    for svg, found in zip(icons.find_icons(), pixels, strict=False):
        png = bytes(resvg_py.svg_to_bytes(svg_string=icons.squared(svg.read_text()), width=SIZE, height=SIZE,
                                          background="#ffffff", skip_system_fonts=True))
        (tmp_path / "icon.png").write_bytes(png)
        assert torch.equal(found, read_image(FolderStore(tmp_path), "icon.png", SIZE))


def test_a_narrow_icon_has_the_shape_that_the_library_gives_it_alone() -> None:
    """The library keeps the aspect of a view by a smaller canvas; ours has white at both sides of that."""
    svg = next(svg for svg in icons.find_icons() if svg.stem == "mobile").read_text()  # 320 x 512
    alone = Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=svg, width=64, height=64, background="#ffffff",
                                                              skip_system_fonts=True)))).convert("RGB")
    assert alone.size == (40, 64)
    expected = np.full((64, 64, 3), 255, np.uint8)
    expected[:, 12:52] = np.array(alone)
    assert torch.equal(icons.rasterise(svg, 64), torch.from_numpy(expected).permute(2, 0, 1).float() / 255)


def test_more_icons_than_there_are_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"transfer\.num_icons: expected at most 1001.*found 1002"):
        icons.read_icons(1002, SIZE, 60)


def test_the_licence_is_the_packages() -> None:
    licence = (Path(icons.find_icons()[0]).parents[2] / "LICENSE.txt").read_text()
    address = "https://creativecommons.org/licenses/by/4.0/"
    assert "Icons: CC BY 4.0" in licence and address in licence
    assert "Font Awesome Free" in icons.__doc__ and address in icons.__doc__
    assert importlib.metadata.version("fontawesome-free") in icons.__doc__


def test_another_process_with_another_hash_seed_reads_the_same(tmp_path: Path) -> None:
    code = ("import hashlib; from repblend.data.icons import read_icons; pixels, captions = read_icons(12, 32, 60); "
            "print(hashlib.sha256(pixels.numpy().tobytes() + repr(captions).encode()).hexdigest())")
    environment = os.environ | {"PYTHONHASHSEED": "12345", "PYTHONPATH": os.pathsep.join(sys.path), "LC_ALL": "C"}
    done = subprocess.run([sys.executable, "-c", code], check=True, env=environment, cwd=tmp_path, capture_output=True,
                          text=True)
    pixels, captions = icons.read_icons(12, 32, 60)
    assert done.stdout.strip() == hashlib.sha256(pixels.numpy().tobytes() + repr(captions).encode()).hexdigest()
