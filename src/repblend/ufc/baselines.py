"""Baselines: random real images at equal budget; and the same pipeline without compensators.

The second is `write_integrated` without compensators: the n0 real images per class of the set, nothing added.
"""

from repblend.ufc.data import LabelledImages
from repblend.ufc.initial import draw_positions


def random_images(train: LabelledImages, ipc: int, seed: int) -> LabelledImages:
    """Draw `ipc` training images of every class, sorted by class: what the budget of real images alone would buy.

    The first n0 of every class are the initial images of the same seed.

    Raises:
        ValueError: a class has fewer images.
    """
    return train.select(draw_positions(train.labels, train.num_classes, ipc, seed).flatten())
