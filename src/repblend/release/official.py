"""The official release's files, both ways: distilled sets (`distilled_*.pt`) and experts (`*_replay_buffer_*.pt`).

Facts of the formats: PAPER.md sections 5.4 and 6.

- A distilled set is a dictionary: `image` (N, 3, H, W), `text` (N, D_txt), `similarity_params` (a list: diagonal, left
  and right factor; or the whole matrix), `similarity_mat` (N, N), `syn_lr_img`, `syn_lr_txt`. The weight of the
  low-rank part is not in it; it is what the matrix says.
- Buffers come in pairs of files, `img_replay_buffer_{n}.pt` and `txt_replay_buffer_{n}.pt`. Each is a list of
  trajectories, a trajectory a list of snapshots, a snapshot a list of parameter tensors in the order of a head.

Files are read with `weights_only`: tensors and containers, no code.
"""

import pickle
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from repblend.encoders.heads import HeadSpec
from repblend.experts.trajectories import TrajectoryStore, write_trajectory
from repblend.matching.similarity import FullSimilarity, LowRankSimilarity, Similarity
from repblend.matching.step import PerModality
from repblend.matching.synthetic_set import SyntheticSet
from repblend.store import JSON, atomic_path

KEYS = ("image", "text", "similarity_params", "similarity_mat", "syn_lr_img", "syn_lr_txt")
SIDES = ("img", "txt")
AGREEMENT = 1e-4
"""How far the matrix of a file may be from what its factors give, relative to the largest entry."""


def read_distilled(path: Path, metadata: JSON) -> SyntheticSet:
    """Read a distilled set of the official release.

    Args:
        metadata: what our set should say of itself, for example its loss and its cell.

    Raises:
        ValueError: the file is missing, is no such set, or its parts contradict each other.
    """
    content = _load(path)
    missing = [key for key in KEYS if not isinstance(content, dict) or key not in content]
    if missing:
        raise ValueError(f"{path}: expected a distilled set of the official release, but it lacks {', '.join(missing)}")
    images, texts = content["image"].detach().float(), content["text"].detach().float()
    if len(images) != len(texts):
        raise ValueError(f"{path}: {len(images)} images but {len(texts)} texts; expected as many of each")
    rates = (float(content[key]) for key in ("syn_lr_img", "syn_lr_txt"))
    similarity = _similarity(path, content["similarity_params"], content["similarity_mat"].detach().float())
    return SyntheticSet(images, texts, similarity, *rates, metadata)


def _similarity(path: Path, parameters: Sequence[Tensor], matrix: Tensor) -> Similarity:
    if len(parameters) == 1:
        return FullSimilarity(matrix)
    diagonal, left, right = (value.detach().float() for value in parameters)
    product = left @ right.mT / left.shape[1]
    scale = (product * product).sum()
    alpha = ((matrix - torch.diag(diagonal)) * product).sum() / scale if scale > 0 else torch.tensor(1.0)
    similarity = LowRankSimilarity(diagonal, left, right, alpha.item())
    worst = (similarity.matrix() - matrix).abs().max()
    if worst > AGREEMENT * matrix.abs().max():
        raise ValueError(f"{path}: similarity_mat differs by {worst.item():.2g} from diagonal plus low rank, for any "
                         "weight of the low-rank part. The file mixes two sets")
    return similarity


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
        torch.save(content, aside)


def import_buffers(buffers: Path, folder: Path, metadata: JSON) -> int:
    """Write the trajectories of a folder of buffers as ours do, all of them or none; return how many there are.

    Args:
        folder: for our trajectories; replaced if it exists.
        metadata: what every trajectory should say of itself.

    Raises:
        ValueError: there are no buffers, a side of a pair is missing, or both sides differ in their snapshots.
    """
    count = 0
    with atomic_path(folder) as aside:
        for snapshots in _trajectories(buffers):
            write_trajectory(aside / f"expert-{count:03d}.safetensors", snapshots, metadata | {"expert": count})
            count += 1
    return count


def _trajectories(buffers: Path) -> Iterator[list[PerModality]]:
    for paths in _pairs(buffers):
        contents = [_load(path) for path in paths]
        shapes = [[len(trajectory) for trajectory in content] for content in contents]
        if shapes[0] != shapes[1]:
            raise ValueError(f"{paths[1]}: snapshots of its trajectories {shapes[1]}, but {shapes[0]} in "
                             f"{paths[0].name}; expected as many. They come from different runs")
        for sides in zip(*contents, strict=True):
            yield [PerModality(*map(_flat, snapshot)) for snapshot in zip(*sides, strict=True)]


def _pairs(buffers: Path) -> list[tuple[Path, Path]]:
    """The files of both sides by their numbers, in numeric order."""
    found = {side: {int(match[1]): path for path in buffers.glob(f"{side}_replay_buffer_*.pt")
                    if (match := re.fullmatch(rf"{side}_replay_buffer_(\d+)\.pt", path.name))} for side in SIDES}
    if not any(found.values()):
        raise ValueError(f"{buffers}: expected img_replay_buffer_0.pt, txt_replay_buffer_0.pt and so on, found none")
    single = sorted(found["img"].keys() ^ found["txt"].keys())
    if single:
        raise ValueError(f"{buffers}: only one side of buffer {single[0]} is there; fetch the other one as well")
    return [(found["img"][number], found["txt"][number]) for number in sorted(found["img"])]


def export_buffers(trajectories: TrajectoryStore, heads: PerModality, folder: Path) -> None:
    """Write trajectories as the official release does, a pair of files each, the whole folder or nothing.

    Args:
        heads: the `HeadSpec` of both sides, by which flat vectors are cut into tensors.
        folder: for the buffers; replaced if it exists.
    """
    with atomic_path(folder) as aside:
        aside.mkdir(parents=True)
        for expert in range(len(trajectories)):
            snapshots = [trajectories.snapshot(expert, index) for index in range(trajectories.num_snapshots)]
            for side in SIDES:
                cut = [_cut(getattr(snapshot, side), getattr(heads, side)) for snapshot in snapshots]
                torch.save([cut], aside / f"{side}_replay_buffer_{expert}.pt")


def _flat(parameters: Sequence[Tensor]) -> Tensor:
    return torch.cat([value.detach().float().flatten() for value in parameters])


def _cut(flat: Tensor, spec: HeadSpec) -> list[Tensor]:
    w1, b1, w2, *rest = flat.clone().split(spec.sizes)
    return [w1.view(spec.d, spec.d_in), b1, w2.view(spec.d, spec.d), *rest]


def _load(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ValueError(f"{path}: no such file") from error
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"{path}: expected a file of tensors that PyTorch wrote ({reason}). Fetch it again; a file "
                         "that holds code is not read") from error
