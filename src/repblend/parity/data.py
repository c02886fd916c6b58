"""Replays of the released preparation of data: training and test views of images, random operations, captions
(`paper/METHOD.md`, section 13).
"""

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from repblend.data.images import as_tensor, normalise, square
from repblend.data.karpathy import clean_caption
from repblend.data.rand_augment import MAX_DEGREES, MAX_SHEAR, MAX_SHIFT_PIXELS, OPERATIONS
from repblend.data.views import cropped
from repblend.parity.fixture import Fixture, code_points

LARGEST = {"ShearX": MAX_SHEAR, "ShearY": MAX_SHEAR, "TranslateX": MAX_SHIFT_PIXELS, "TranslateY": MAX_SHIFT_PIXELS,
           "Rotate": MAX_DEGREES}
"""Operation -> the argument that it gets at strength 1 in the released code."""
BETWEEN_PIXELS = ("ShearX", "ShearY", "Rotate")
"""Operations for which OpenCV rounds positions to 1/32 pixel."""
GREY_LEVELS = 3.0
"""How far their bytes may be from those of OpenCV 4; 1 from OpenCV 5's."""
RELEASED_NAMES = {"AutoContrast": "AutoContrast-lors"}
"""Operation as recorded -> its name here, where it is another one."""


def _applied(name: str, argument: float, image: np.ndarray) -> np.ndarray:
    """Apply an operation to an image (H, W, 3) with the argument that was recorded for it."""
    picture, name = Image.fromarray(image), RELEASED_NAMES.get(name, name)
    if name in LARGEST:
        strength = argument / LARGEST[name]
    elif name in ("Brightness", "Sharpness"):
        strength = (argument - 0.1) / 1.8
    else:
        strength = 0.0
    return np.asarray(OPERATIONS[name](picture, strength))


# Views.


def replay_views(fixture: Fixture) -> dict[str, Tensor]:
    """Every test view, every training view with the recorded draws, and every single operation."""
    mean, std = (fixture.tensor(f"cfg_{name}").float() for name in ("mean", "std"))
    size, outputs = fixture.integer("cfg_size"), dict[str, Tensor]()
    for name in fixture.names("image"):
        if name.endswith("_test_view"):
            picture = Image.fromarray(fixture.tensor(name.removesuffix("_test_view")).numpy())
            outputs[name] = normalise(square(picture, size), mean, std)
    for prefix in (name.removesuffix("box") for name in fixture.names("view") if name.endswith("_box")):
        picture = Image.fromarray(fixture.tensor(f"image{fixture.integer(f'{prefix}image')}").numpy())
        top, left, height, width = fixture.tensor(f"{prefix}box").tolist()
        crop = cropped(picture, (left, top, left + width, top + height), size, bool(fixture.tensor(f"{prefix}flip")))
        outputs |= {f"{prefix}crop": torch.from_numpy(np.array(crop)),
                    f"{prefix}bytes": torch.from_numpy(_after_operations(fixture, prefix, np.asarray(crop)).copy())}
        # Of the recorded bytes: operations may leave others by a few grey levels.
        shown = as_tensor(Image.fromarray(fixture.tensor(f"{prefix}bytes").numpy()))
        outputs[f"{prefix}tensor"] = normalise(shown, mean, std)
    return outputs | _operations(fixture)


def _after_operations(fixture: Fixture, prefix: str, image: np.ndarray) -> np.ndarray:
    names, applied, arguments = (fixture.texts(f"{prefix}ops"), fixture.tensor(f"{prefix}applied").tolist(),
                                 fixture.tensor(f"{prefix}argument").tolist())
    for name, was_applied, argument in zip(names, applied, arguments, strict=True):
        if was_applied:
            image = _applied(name, argument, image)
    return image


def _operations(fixture: Fixture) -> dict[str, Tensor]:
    inputs = fixture.tensor("op_input").numpy()
    names, arguments, images = (fixture.texts("op_name"), fixture.tensor("op_argument").tolist(),
                                fixture.tensor("op_image").tolist())
    found = [_applied(name, argument, inputs[image])
             for name, argument, image in zip(names, arguments, images, strict=True)]
    outputs = dict[str, list[np.ndarray]]()
    for recording in ("op_output", "op_output_opencv5"):
        for row, part in enumerate(_parts(fixture, recording)):
            outputs.setdefault(part, []).append(_where_cut_off(fixture, recording, row, found[row]))
    stacked = {part: torch.from_numpy(np.stack(rows)) for part, rows in outputs.items()}
    own = [OPERATIONS["AutoContrast-mtt-vl"](Image.fromarray(image), 0.0) for image in inputs]
    return stacked | {"mttvl_autocontrast_output": torch.from_numpy(np.stack([np.asarray(each) for each in own]))}


def _where_cut_off(fixture: Fixture, recording: str, row: int, found: np.ndarray) -> np.ndarray:
    """Take the recorded value where Sharpness would leave 0..255: there the released one wraps around, ours is cut off.
    """
    if fixture.texts("op_name")[row] != "Sharpness" or recording not in fixture:
        return found
    return np.where((found == 0) | (found == 255), fixture.tensor(recording)[row].numpy(), found)


def _parts(fixture: Fixture, name: str) -> list[str]:
    return [f"{name}, {operation}" for operation in fixture.texts("op_name")]


def split_operations(fixture: Fixture, name: str) -> dict[str, Tensor]:
    """Return a recorded output; that of all single operations by operation, each of which has its own tolerance."""
    value = fixture.tensor(name)
    if not name.startswith("op_output"):
        return {name: value}
    parts = _parts(fixture, name)
    return {part: value[[row for row, own in enumerate(parts) if own == part]] for part in dict.fromkeys(parts)}


def is_view(name: str) -> bool:
    """Whether an array of recorded views is an output."""
    return (name.endswith(("_test_view", "_crop", "_tensor")) or name.startswith("op_output")
            or (name.startswith("view") and name.endswith("_bytes")) or name == "mttvl_autocontrast_output")


def is_bytes(name: str) -> bool:
    """Whether an output is judged in grey levels."""
    return not name.endswith(("_test_view", "_tensor"))


def view_tolerance(fixture: Fixture, name: str) -> float:
    """Grey levels where OpenCV rounds positions; all other bytes are exact."""
    if not is_bytes(name):
        return 1e-6
    if name.startswith("op_output"):
        recording, _, operation = name.partition(", ")
        return (1.0 if recording.endswith("opencv5") else GREY_LEVELS) if operation in BETWEEN_PIXELS else 0.0
    if name.endswith("_bytes"):
        prefix = name.removesuffix("bytes")
        moved = [operation in BETWEEN_PIXELS and applied for operation, applied in zip(
            fixture.texts(f"{prefix}ops"), fixture.tensor(f"{prefix}applied").tolist(), strict=True)]
        return GREY_LEVELS if any(moved) else 0.0
    return 0.0


# Captions.


def replay_captions(fixture: Fixture) -> dict[str, Tensor]:
    """Every caption cleaned, at every limit of words, as numbers of its signs."""
    captions = fixture.texts("captions")
    return {f"cleaned_{limit}": code_points([clean_caption(caption, limit) for caption in captions])
            for limit in fixture.tensor("max_words").tolist()}
