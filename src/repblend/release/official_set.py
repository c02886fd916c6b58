"""Distilled sets of the official release, `distilled_{iteration}.pt`, both ways (PAPER.md section 6).

A dictionary: `image` (N, 3, H, W), `text` (N, D_txt), `similarity_params` (a list: diagonal, left and right factor; or
the whole matrix alone), `similarity_mat` (N, N), `syn_lr_img`, `syn_lr_txt`. The weight of the low-rank part (`alpha`)
is not in it; it is what the matrix says.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from repblend.matching.similarity import FullSimilarity, LowRankSimilarity, Similarity
from repblend.matching.synthetic_set import SyntheticSet
from repblend.release.official_file import load, save
from repblend.store import JSON, atomic_path

KEYS = ("image", "text", "similarity_params", "similarity_mat", "syn_lr_img", "syn_lr_txt")
AGREEMENT = 1e-4
"""How far the matrix of a file may be from what its factors give, relative to the largest entry."""
DIGITS = 17
"""Significant digits that name any float64."""
ROUNDING = 1e-5
"""How far the weight of the low-rank part may be from its estimate, relatively: float32 matrices say no more."""


def read_distilled(path: Path, metadata: JSON) -> SyntheticSet:
    """Read a distilled set of the official release.

    Args:
        metadata: what our set should say of itself, for example its loss and its cell.

    Raises:
        ValueError: the file is missing or damaged, is no such set, or its parts contradict each other.
    """
    content = load(path)
    missing = [key for key in KEYS if not isinstance(content, dict) or key not in content]
    if missing:
        raise ValueError(f"{path}: expected a distilled set of the official release, but it lacks {', '.join(missing)}")
    images, texts, matrix = (_tensor(path, key, content[key]) for key in ("image", "text", "similarity_mat"))
    if images.ndim != 4 or images.shape[1] != 3 or texts.ndim != 2 or len(images) != len(texts):
        raise ValueError(f"{path}: image has shape {tuple(images.shape)} and text {tuple(texts.shape)}; expected "
                         "(N, 3, H, W) and (N, width), as many of each")
    if matrix.shape != (len(images), len(images)):
        raise ValueError(f"{path}: similarity_mat has shape {tuple(matrix.shape)}, expected one row and one column for "
                         f"each of {len(images)} pairs")
    rates = (_rate(path, key, content[key]) for key in ("syn_lr_img", "syn_lr_txt"))
    parameters = [_tensor(path, "similarity_params", value) for value in content["similarity_params"]]
    return SyntheticSet(images, texts, _similarity(path, parameters, matrix), *rates, metadata)


def _tensor(path: Path, key: str, value: Any) -> Tensor:
    """A tensor of the file as float32 in memory of its own."""
    if not isinstance(value, Tensor):
        raise ValueError(f"{path}: {key} holds a {type(value).__name__}, expected a tensor")
    value = value.detach().to(torch.float32, copy=True).contiguous()
    if not value.isfinite().all():
        raise ValueError(f"{path}: {key} holds NaN or infinity; the run that wrote it diverged. Take an earlier file")
    return value


def _rate(path: Path, key: str, value: Any) -> float:
    rate = float(value)
    if not 0 < rate < float("inf"):
        raise ValueError(f"{path}: {key} is {rate}, expected a positive learning rate. Take an earlier file")
    return rate


def _similarity(path: Path, parameters: Sequence[Tensor], matrix: Tensor) -> Similarity:
    if len(parameters) == 1:
        return FullSimilarity(matrix)
    pairs = len(matrix)
    shapes = [tuple(value.shape) for value in parameters]
    if len(shapes) != 3 or shapes[0] != (pairs,) or shapes[1] != shapes[2] or shapes[1][:1] != (pairs,):
        raise ValueError(f"{path}: similarity_params have shapes {shapes}; expected a diagonal ({pairs},) and two "
                         f"factors ({pairs}, rank), or one matrix ({pairs}, {pairs})")
    similarity = LowRankSimilarity(*parameters, _weight(parameters, matrix))
    worst = (similarity.matrix() - matrix).abs().max()
    if worst > AGREEMENT * matrix.abs().max():
        raise ValueError(f"{path}: similarity_mat differs by {worst.item():.2g} from diagonal plus low rank, for any "
                         "weight of the low-rank part. The file mixes two sets")
    return similarity


def _weight(parameters: Sequence[Tensor], matrix: Tensor) -> float:
    """The weight of the low-rank part: the shortest decimal that the matrix allows, for users write short ones.

    Where there are several, the first that gives the matrix to the last bit: so a set of ours comes back as it was.
    """
    diagonal, left, right = (value.double() for value in parameters)
    product = left @ right.mT / left.shape[1]
    if len(product) > 1:
        product.fill_diagonal_(0.0)  # there the diagonal's rounding would drown a small weight
    scale = (product * product).sum()
    if scale == 0:
        return 1.0  # the factors start so that any weight gives the same
    estimate = (((matrix.double() - torch.diag(diagonal)) * product).sum() / scale).item()
    near = [value for value in (float(f"{estimate:.{digits}g}") for digits in range(1, DIGITS + 1))
            if abs(value - estimate) <= ROUNDING * abs(estimate)]
    return next((value for value in near if torch.equal(LowRankSimilarity(*parameters, value).matrix(), matrix)),
                near[0])


def write_distilled(synthetic: SyntheticSet, path: Path) -> None:
    """Write a set as the official release does, atomically; a similarity that is not learned becomes a whole matrix."""
    match synthetic.similarity:
        case LowRankSimilarity(diagonal=diagonal, left=left, right=right):
            parameters = [diagonal, left, right]
        case other:
            parameters = [other.matrix()]
    content = {"image": synthetic.images, "text": synthetic.texts, "similarity_params": parameters,
               "similarity_mat": synthetic.similarity.matrix(), "syn_lr_img": torch.tensor(synthetic.lr_img),
               "syn_lr_txt": torch.tensor(synthetic.lr_txt)}
    with atomic_path(path) as aside:
        save(content, aside)
