"""A parity fixture: a flat npz of inputs, draws and outputs recorded from the official implementation."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from repblend.archives import read_npz
from repblend.encoders.heads import HeadSpec
from repblend.evaluation.towers import head_tower
from repblend.matching.student import Tower


class Fixture:
    """Named arrays of one npz file, as torch tensors in the precision they were recorded in."""

    def __init__(self, path: Path) -> None:
        """Open a fixture.

        Raises:
            ValueError, OSError: as `read_npz`.
        """
        self.path, self._arrays = path, read_npz(path)

    def __contains__(self, name: str) -> bool:
        return name in self._arrays

    def names(self, prefix: str = "") -> list[str]:
        return [name for name in self._arrays if name.startswith(prefix)]

    def _array(self, name: str) -> np.ndarray:
        if name not in self._arrays:
            raise ValueError(f"{self.path}: array '{name}' is missing; expected it in a fixture of this kind")
        return self._arrays[name]

    def tensor(self, name: str) -> Tensor:
        if self._array(name).dtype.kind == "U":
            return code_points(self.texts(name))
        return torch.from_numpy(np.atleast_1d(self._array(name)).copy()).reshape(self._array(name).shape)

    def number(self, name: str) -> float:
        return float(self._array(name))

    def integer(self, name: str) -> int:
        return int(self._array(name))

    def text(self, name: str) -> str:
        return str(self._array(name))

    def texts(self, name: str) -> list[str]:
        return [str(value) for value in self._array(name)]

    @property
    def precision(self) -> torch.dtype:
        """The precision of the recording: the one that most of its floating-point numbers are stored in."""
        sizes: Counter[str] = Counter()
        for array in self._arrays.values():
            if array.dtype.kind == "f":
                sizes[array.dtype.name] += array.size
        return getattr(torch, sizes.most_common(1)[0][0])


def code_points(texts: Sequence[str]) -> Tensor:
    """Return texts as numbers to be compared, (n, length of the longest), 0 behind the end of shorter ones."""
    length = max(map(len, texts), default=0)
    return torch.tensor([[*map(ord, text), *[0] * (length - len(text))] for text in texts]).view(len(texts), length)


# How far a replay may be from its recording, and how far it is. Double precision judges the maths, single precision no
# more than rounding, which is large where losses saturate (differences of the kind 1 - sigmoid).

FLOAT64 = 1e-9
FLOAT64_BCE_SECOND_ORDER = 1e-5
FLOAT32 = 1e-4
FLOAT32_DISTILLATION_WBCE = 5e-3
FLOAT32_SATURATING_LOSS = 2e-2
PERCENTAGE_POINTS = 1e-9


@dataclass(frozen=True)
class Difference:
    """One array of a replay against its recording."""

    name: str
    value: float
    """Relative: max |a - b| / max |b|; of recall the largest absolute difference, in percentage points, and of bytes of
    images in grey levels."""
    tolerance: float

    @property
    def passed(self) -> bool:
        return self.value <= self.tolerance  # false for NaN


def relative_difference(ours: Tensor, recorded: Tensor) -> float:
    """Return max |ours - recorded| / max |recorded|, and the absolute difference where the recording is all zero.

    Shapes that differ, and numbers that are not finite on one side only, count as infinitely far.
    """
    ours, recorded = ours.detach().double(), recorded.double()
    if ours.shape != recorded.shape:
        return float("inf")
    finite = recorded.isfinite()
    if not torch.equal(finite, ours.isfinite()):
        return float("inf")
    if not finite.any():
        return 0.0
    scale = recorded[finite].abs().max().item()
    return (ours - recorded)[finite].abs().max().item() / (scale or 1.0)


def absolute_difference(ours: Tensor, recorded: Tensor) -> float:
    """Return the largest absolute difference; shapes that differ count as infinitely far."""
    ours, recorded = ours.detach().double(), recorded.double()
    return (ours - recorded).abs().max().item() if ours.shape == recorded.shape else float("inf")


def tolerance(kind: str, name: str, loss: str, precision: torch.dtype) -> float:
    """Return the tolerance of one array.

    Args:
        kind: kind of the recording, as in `RECORDINGS`.
        name: the array.
        loss: the student's loss, for distillation; otherwise ignored.
        precision: of the recording.
    """
    if precision == torch.float64:
        return FLOAT64_BCE_SECOND_ORDER if kind == "losses" and "_BCE_hvp_" in name else FLOAT64
    if kind == "distillation" and loss == "WBCE":
        return FLOAT32_DISTILLATION_WBCE
    if kind == "losses" and any(f"_{loss}_" in name for loss in ("WBCE", "BCE", "MSE")):
        return FLOAT32_SATURATING_LOSS
    return FLOAT32


def is_recall(name: str) -> bool:
    """Whether an array holds recall in percent: judged by absolute difference."""
    return name.endswith(("_r1", "_r5", "_r10", "_r_mean"))


def differences(replayed: dict[str, Tensor], recorded: dict[str, Tensor], tolerance_of: Callable[[str], float],
                absolute: Callable[[str], bool]) -> Iterator[Difference]:
    """Yield every recorded output against its replay; an output that was not replayed is infinitely far.

    Args:
        absolute: whether an output is judged by its absolute difference, as recalls are.
    """
    for name, value in recorded.items():
        if name not in replayed:
            yield Difference(name, float("inf"), 0.0)
        elif is_recall(name):
            yield Difference(name, absolute_difference(replayed[name], value), PERCENTAGE_POINTS)
        elif absolute(name):
            yield Difference(name, absolute_difference(replayed[name], value), tolerance_of(name))
        else:
            yield Difference(name, relative_difference(replayed[name], value), tolerance_of(name))


# The tiny encoders of the recordings, and the heads as their files describe them.


def frozen_encoder(fixture: Fixture) -> Callable[[Tensor], Tensor]:
    """3x3 convolution, GELU, average pooling to 2x2, linear: images (B, 3, H, H) -> features (B, D)."""
    conv, conv_bias = fixture.tensor("enc_conv_weight"), fixture.tensor("enc_conv_bias")
    fc, fc_bias = fixture.tensor("enc_fc_weight"), fixture.tensor("enc_fc_bias")
    pool = fixture.integer("enc_pool")

    def encode(images: Tensor) -> Tensor:
        hidden = F.gelu(F.conv2d(images, conv, conv_bias, padding=1))
        return F.linear(F.avg_pool2d(hidden, pool).flatten(1), fc, fc_bias)

    return encode


def recorded_head(fixture: Fixture, side: str) -> Tower:
    """The projection head of one side (`img` or `txt`), with the sizes that the file records."""
    return head_tower(head_spec(fixture, f"{side}_param_shapes"))


def head_spec(fixture: Fixture, shapes: str) -> HeadSpec:
    """The sizes of a head, from the recorded shape of its first matrix, (D, D_in), and its dropout."""
    d, d_in = (int(size) for size in fixture.texts(shapes)[0].split(","))
    return HeadSpec(d_in, d, fixture.number("cfg_dropout") if "cfg_dropout" in fixture else 0.0)


def encoder_tower(fixture: Fixture) -> Tower:
    """The trained image encoder of the LoRS recordings: pixels -> features, its parameters the flat vector."""
    shapes = [[int(size) for size in shape.split(",")] for shape in fixture.texts("img_param_shapes")]
    pool = fixture.integer("enc_pool")

    def encode(images: Tensor, flat: Tensor) -> Tensor:
        conv1, bias1, conv2, bias2, fc, bias = _unflatten(flat, shapes)
        hidden = F.gelu(F.conv2d(images, conv1, bias1, padding=1))
        hidden = F.gelu(F.conv2d(hidden, conv2, bias2, stride=2, padding=1))
        return F.linear(F.avg_pool2d(hidden, pool).flatten(1), fc, bias)

    return encode


def _unflatten(flat: Tensor, shapes: list[list[int]]) -> list[Tensor]:
    sizes = [math.prod(shape) for shape in shapes]
    return [part.view(shape) for part, shape in zip(flat.split(sizes), shapes, strict=True)]
