"""Joint image-text features that herding and k-center look at (PAPER.md section 10, after MDM's supplement).

Shapes: I candidate pairs, D embedding width.
"""

import torch
from torch import Tensor

from repblend.matching.losses import unit
from repblend.matching.step import PerModality, Student

ROWS_AT_ONCE = 8192
"""Pairs that are computed with at once, where all of them would take several times the memory of their features."""


def joint_features(images: Tensor, texts: Tensor, heads: PerModality, student: Student) -> Tensor:
    """Return the concatenated unit image and unit text embeddings of every pair, (I, 2 D).

    Args:
        images: (I, D_img) frozen features.
        texts: (I, D_txt) frozen features.
        heads: (P,) each, warmed up on the real pairs.
    """
    return torch.cat([unit(student.image(images, heads.img)), unit(student.text(texts, heads.txt))], dim=1)
