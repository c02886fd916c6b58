"""The two kinds of two-tower models that are trained, matched and evaluated (`paper/METHOD.md`, section 1).

- `HeadPair`: a projection head on each frozen encoder (RepBlend). Inputs are features and text embeddings.
- `EncoderAndHead`: the image encoder and a text head whose width is that of the image features (MTT-VL, TESLA-VL,
  LoRS). There is no image head, as published. Inputs are normalised pixels and text embeddings.

Shapes: B rows, D embedding width, P parameters of one side, S seeds.
"""

from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from repblend.encoders.heads import HeadSpec, apply_head, draw_kept, init_head
from repblend.encoders.image import ImageEncoder
from repblend.matching.student import Masks, PerModality, Tower, TwoTower, unchanged

IMAGES_AT_ONCE = 128
"""Images that pass through a trained encoder at once; only scoring has more."""


class Towers(Protocol):
    """What a two-tower model is made of."""

    @property
    def student(self) -> TwoTower:
        """How flat parameters act on inputs."""
        ...

    def initial(self, image_generator: torch.Generator, text_generator: torch.Generator) -> PerModality:
        """Draw initial parameters, (P,) each."""
        ...

    def draw_masks(self, num_rows: int, generator: torch.Generator) -> Masks:
        """Draw what dropout keeps in a training step of B rows; nothing is drawn for heads without dropout."""
        ...


@dataclass(frozen=True)
class HeadPair:
    """The sizes of both projection heads."""

    img: HeadSpec
    txt: HeadSpec

    @classmethod
    def of_widths(cls, image_width: int, text_width: int, width: int, dropout: float = 0.0) -> "HeadPair":
        """Return heads from the widths of frozen features to that of the common space."""
        return cls(HeadSpec(image_width, width, dropout), HeadSpec(text_width, width, dropout))

    @property
    def student(self) -> TwoTower:
        return TwoTower(head_tower(self.img), head_tower(self.txt))

    def initial(self, image_generator: torch.Generator, text_generator: torch.Generator) -> PerModality:
        return PerModality(init_head(self.img, image_generator), init_head(self.txt, text_generator))

    def draw_masks(self, num_rows: int, generator: torch.Generator) -> Masks:
        return Masks(draw_kept(num_rows, self.img, generator), draw_kept(num_rows, self.txt, generator))


@dataclass(frozen=True)
class EncoderAndHead:
    """An image encoder that starts pre-trained, and a text head."""

    encoder: ImageEncoder
    txt: HeadSpec

    @property
    def student(self) -> TwoTower:
        return TwoTower(unchanged, head_tower(self.txt), self._represent, one_by_one)

    def _represent(self, images: Tensor, flat: Tensor) -> Tensor:
        return torch.cat([self.encoder.encode_with(part, flat) for part in images.split(IMAGES_AT_ONCE)])

    def initial(self, image_generator: torch.Generator, text_generator: torch.Generator) -> PerModality:
        """Return the pre-trained encoder, the same for every draw, and a drawn head."""
        return PerModality(self.encoder.parameters(), init_head(self.txt, text_generator))

    def draw_masks(self, num_rows: int, generator: torch.Generator) -> Masks:
        return Masks(None, draw_kept(num_rows, self.txt, generator))


def head_tower(spec: HeadSpec) -> Tower:
    """Return the tower of a projection head; its third argument, if any, is what dropout keeps."""
    return lambda x, flat, kept=None: apply_head(x, flat, spec, kept)


def one_by_one(tower: Tower) -> Tower:
    """As `torch.func.vmap`, but one after the other: convolutions with several weights at once would be slower.

    On a GPU each is run once more for its derivative, so that the activations of one at a time are kept: those of five
    NFNets on a batch of 128 images take more memory than most GPUs have.
    """

    def run(*stacked: Tensor) -> Tensor:
        again = torch.is_grad_enabled() and stacked[0].device.type == "cuda"
        one = partial(checkpoint, tower, use_reentrant=False, preserve_rng_state=False) if again else tower
        return torch.stack([one(*each) for each in zip(*stacked, strict=True)])

    return run
