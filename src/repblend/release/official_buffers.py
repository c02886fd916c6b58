"""Expert buffers of the official release, `img_replay_buffer_{n}.pt` and `txt_replay_buffer_{n}.pt`, both ways.

Each file is a list of trajectories (one, as published), a trajectory a list of snapshots, a snapshot the list of a
module's parameters in the module's own order (PAPER.md section 5.4). The lists have no names, so every tensor's place
is compared with the shape of the parameter that our layout has in that place.

RepBlend's buffers hold both projection heads; those of LoRS and MTT-VL hold the whole image encoder on the image side.
"""

import math
import re
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from repblend.encoders.image import ImageEncoder
from repblend.experts.trajectories import TrajectoryStore, stream_trajectory, trajectory_path
from repblend.matching.step import PerModality
from repblend.progress import progress
from repblend.release.official_file import load, save
from repblend.store import JSON, atomic_path

SIDES = PerModality._fields
BUFFER_FILES = re.compile(r"(img|txt)_replay_buffer_(\d+)\.pt")


class Layout(Protocol):
    """How the parameters of one side lie in our flat vector: a `HeadSpec` or an `ImageEncoder`."""

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Name -> shape of every parameter, in the module's order."""

    def flatten(self, tensors: Sequence[Tensor]) -> Tensor:
        """Return the flat vector (P,) of parameters in that order."""

    def unflatten(self, flat: Tensor) -> list[Tensor]:
        """Return the parameters of a flat vector (P,) in that order."""


class Layouts(NamedTuple):
    """The layouts of both sides."""

    img: Layout
    txt: Layout

    @classmethod
    def of_encoder(cls, name: str, encoder: ImageEncoder, txt: Layout) -> "Layouts":
        """Return the layouts of experts that train the whole image encoder and a text head.

        Args:
            name: the encoder's, for the message.

        Raises:
            ValueError: buffers do not hold the whole of such an encoder.
        """
        if encoder.has_batch_norms:
            raise ValueError(f"encode.image_encoder: {name!r} has BatchNorm layers; the official release's buffers "
                             "have no place for their statistics, and here they are folded into the convolutions. Use "
                             "an encoder without such layers, as the released code does (nfnet_l0)")
        return cls(encoder, txt)


class BufferPair(NamedTuple):
    """The files of one number."""

    img: Path
    txt: Path


def buffer_pairs(folder: Path) -> list[BufferPair]:
    """Return the pairs of files of a folder, in the order of their numbers.

    Raises:
        ValueError: there are none, or only one side of a pair is there.
    """
    found: dict[str, dict[int, Path]] = {side: {} for side in SIDES}
    for path in folder.glob("*_replay_buffer_*.pt"):
        if match := BUFFER_FILES.fullmatch(path.name):
            found[match[1]][int(match[2])] = path
    if not any(found.values()):
        raise ValueError(f"{folder}: expected img_replay_buffer_0.pt, txt_replay_buffer_0.pt and so on, found none. "
                         "Fetch them, or mend the parameter that names the folder")
    single = sorted(found["img"].keys() ^ found["txt"].keys())
    if single:
        raise ValueError(f"{folder}: only one side of buffer {single[0]} is there; fetch the other one as well")
    return [BufferPair(found["img"][number], found["txt"][number]) for number in sorted(found["img"])]


def import_buffers(pairs: Sequence[BufferPair], layouts: Layouts, num_experts: int, folder: Path) -> None:
    """Write the first trajectories of buffers as ours are written, all of them or none.

    Args:
        pairs: the files, as `buffer_pairs` finds them; one snapshot is in memory at a time.
        num_experts: how many trajectories to take.
        folder: for our trajectories; replaced if it exists.

    Raises:
        ValueError: a file is damaged or holds something else, the trajectories are too few, or a tensor's shape is not
            that of the parameter in its place.
    """
    trajectories = _trajectories(pairs, layouts)
    with atomic_path(folder) as aside:
        for number in progress(range(num_experts), "import", "expert"):
            found = next(trajectories, None)
            if found is None:
                raise ValueError(f"{pairs[0].img.parent}: {number} trajectories, expected {num_experts}. Fetch more "
                                 "buffers, or lower the parameter that says how many experts there are (`num`)")
            names, sides = found
            sizes = PerModality(*(sum(math.prod(shape) for shape in layout.shapes.values()) for layout in layouts))
            snapshots = map(PerModality, *(_flat_snapshots(*side) for side in sides))
            stream_trajectory(trajectory_path(aside, number), sizes, len(sides[0].snapshots), snapshots,
                              {"expert": number, "imported": names})


class Side(NamedTuple):
    """One side of one trajectory; its tensors lie in the file."""

    path: Path
    layout: Layout
    snapshots: Sequence[Sequence[Tensor]]


def _trajectories(pairs: Sequence[BufferPair], layouts: Layouts) -> Iterator[tuple[JSON, list[Side]]]:
    """The names of the files and both sides of every trajectory."""
    for pair in pairs:
        contents = [_trajectory_list(path) for path in pair]
        lengths = [[len(trajectory) for trajectory in content] for content in contents]
        if lengths[0] != lengths[1]:
            raise ValueError(f"{pair.txt}: snapshots of its trajectories {lengths[1]}, but {lengths[0]} in "
                             f"{pair.img.name}; expected as many. They come from different runs")
        for sides in zip(*contents, strict=True):
            yield (dict(zip(SIDES, (path.name for path in pair), strict=True)),
                   [Side(*side) for side in zip(pair, layouts, sides, strict=True)])


def _trajectory_list(path: Path) -> list[list[Sequence[Tensor]]]:
    content = level = load(path)
    for what in ("trajectories", "snapshots", "parameters"):
        if not isinstance(level, list | tuple) or not level:
            raise ValueError(f"{path}: expected a list of trajectories, each a list of snapshots, each a list of "
                             f"parameters; in place of {what} it has {reprlib.repr(level)}")
        level = level[0]
    return content


def _flat_snapshots(path: Path, layout: Layout, snapshots: Sequence[Sequence[Tensor]]) -> Iterator[Tensor]:
    """The flat vectors of all snapshots, each made when it is asked for."""
    ends = ((number, snapshots[number]) for number in (0, len(snapshots) - 1))
    if torch.equal(*(_flat(f"{path}, snapshot {number}", layout, tensors) for number, tensors in ends)):
        raise ValueError(f"{path}: its first and last snapshots are equal, so there is nothing to match. The released "
                         "code writes such files on a machine without a GPU; take another file")
    for number, tensors in enumerate(snapshots):
        yield _flat(f"{path}, snapshot {number}", layout, tensors)


def _flat(place: str, layout: Layout, tensors: Sequence[Tensor]) -> Tensor:
    if len(tensors) != len(layout.shapes):
        raise ValueError(f"{place}: {len(tensors)} parameters, expected {len(layout.shapes)} ({_some(layout.shapes)}). "
                         "Is it a buffer of this kind of expert, made with the encoders of `encode`?")
    for (name, shape), tensor in zip(layout.shapes.items(), tensors, strict=True):
        if not isinstance(tensor, Tensor) or tuple(tensor.shape) != tuple(shape):
            found = tuple(tensor.shape) if isinstance(tensor, Tensor) else type(tensor).__name__
            raise ValueError(f"{place}: {name} is {found}, expected {tuple(shape)}. Is it a buffer of this kind of "
                             "expert, made with the encoders of `encode` and heads of `heads.width`?")
    flat = layout.flatten([tensor.detach().float() for tensor in tensors])
    if not flat.isfinite().all():
        raise ValueError(f"{place}: a parameter is NaN or infinite, its expert diverged. Leave this pair of files out")
    return flat


def _some(shapes: Mapping[str, Any]) -> str:
    names = list(shapes)
    return ", ".join(names if len(names) <= 6 else [*names[:3], "...", names[-1]])


def export_buffers(trajectories: TrajectoryStore, layouts: Layouts, folder: Path) -> None:
    """Write trajectories as the official release does, a pair of files each, the whole folder or nothing.

    Args:
        folder: for the buffers; replaced if it exists.
    """
    with atomic_path(folder) as aside:
        aside.mkdir(parents=True)
        for expert in progress(range(len(trajectories)), "export", "expert"):
            snapshots = [trajectories.snapshot(expert, index) for index in range(trajectories.num_snapshots)]
            for side, layout in zip(SIDES, layouts, strict=True):
                tensors = [[value.clone() for value in layout.unflatten(getattr(snapshot, side))]
                           for snapshot in snapshots]
                save([tensors], aside / f"{side}_replay_buffer_{expert}.pt")
