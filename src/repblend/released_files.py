"""Files of the official release, both ways: distilled sets and expert buffers (paper/METHOD.md, sections 5 and 8).

They were written with `torch.save`, and are read as tensors and containers, never as code. The bytes of tensors stay in
the file until they are used (a memory map), so a buffer of gigabytes costs no memory.

A distilled set, `distilled_{iteration}.pt`, is a dictionary: `image` (N, 3, H, W), `text` (N, D_txt),
`similarity_params` (a list: diagonal, left and right factor; or the whole matrix alone), `similarity_mat` (N, N),
`syn_lr_img`, `syn_lr_txt`. The weight of the low-rank part (alpha) is not in it; it is what the matrix says.

Expert buffers, `img_replay_buffer_{n}.pt` and `txt_replay_buffer_{n}.pt`, are lists of trajectories (one, as
published), a trajectory a list of snapshots, a snapshot the list of a module's parameters in the module's own order.
The lists have no names, so every tensor's place is compared with the shape of the parameter that our layout has there.
RepBlend's buffers hold both projection heads; those of LoRS and MTT-VL hold the whole image encoder on the image side.
"""

import math
import re
import reprlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from repblend.archives import read_torch
from repblend.encoders.image import ImageEncoder
from repblend.experts.trajectories import TrajectoryStore, stream_trajectory, trajectory_path
from repblend.matching.similarity import FullSimilarity, LowRankSimilarity, Similarity
from repblend.matching.student import PerModality
from repblend.matching.synthetic_set import SyntheticSet
from repblend.progress import progress
from repblend.store import JSON, atomic_path

KEYS = ("image", "text", "similarity_params", "similarity_mat", "syn_lr_img", "syn_lr_txt")
AGREEMENT = 1e-4
"""How far the matrix of a file may be from what its factors give, relative to the largest entry."""
DIGITS = 17
"""Significant digits that name any float64."""
ROUNDING = 1e-5
"""How far the weight of the low-rank part may be from its estimate, relatively: float32 matrices say no more."""
SIDES = PerModality._fields
BUFFER_FILES = re.compile(r"(img|txt)_replay_buffer_(\d+)\.pt")


def save(content: Any, path: Path) -> None:
    """Write a file as the official release's code does; the same content gives the same bytes under any name."""
    with path.open("wb") as file:  # given a name instead, PyTorch writes it into the file
        try:
            torch.save(content, file)
        except RuntimeError as error:  # PyTorch's words for the end that a failed write, or a signal, made it miss
            raise (error.__context__ or error) from None


def read_distilled(path: Path, metadata: JSON) -> SyntheticSet:
    """Read a distilled set of the official release.

    Args:
        metadata: what our set should say of itself, for example its loss and its cell.

    Raises:
        ValueError: the file is missing or damaged, is no such set, or its parts contradict each other.
    """
    content = read_torch(path)
    missing = [key for key in KEYS if not isinstance(content, dict) or key not in content]
    if missing:
        raise ValueError(f"{path}: expected a distilled set of the official release, which lacks {', '.join(missing)}. "
                         "Name another file")
    images, texts, matrix = (_tensor(path, key, content[key]) for key in ("image", "text", "similarity_mat"))
    if images.ndim != 4 or images.shape[1] != 3 or texts.ndim != 2 or len(images) != len(texts):
        raise ValueError(f"{path}: image has shape {tuple(images.shape)} and text {tuple(texts.shape)}; expected "
                         "(N, 3, H, W) and (N, width), as many of each")
    if matrix.shape != (len(images), len(images)):
        raise ValueError(f"{path}: similarity_mat has shape {tuple(matrix.shape)}, expected one row and one column for "
                         f"each of {len(images)} pairs")
    rates = {key: _number(path, key, content[key]) for key in ("syn_lr_img", "syn_lr_txt")}
    for key, rate in rates.items():
        if not 0 < rate < math.inf:
            raise ValueError(f"{path}: {key} is {rate}, expected a positive learning rate. Take an earlier file")
    if not isinstance(content["similarity_params"], list | tuple):
        raise ValueError(f"{path}: similarity_params holds a {type(content['similarity_params']).__name__}, expected a "
                         "list of tensors. Take another file")
    parameters = [_tensor(path, "similarity_params", value) for value in content["similarity_params"]]
    return SyntheticSet(images, texts, _similarity(path, parameters, matrix), rates["syn_lr_img"],
                        rates["syn_lr_txt"], metadata)


def _tensor(path: Path, key: str, value: Any) -> Tensor:
    """A tensor of the file as float32 in memory of its own."""
    if not isinstance(value, Tensor) or not value.is_floating_point():
        found = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"{path}: {key} holds {found}, expected a tensor of real numbers")
    if not value.numel():
        raise ValueError(f"{path}: {key} has shape {tuple(value.shape)}, so no number. Take another file")
    tensor: Tensor = value.detach().to(torch.float32, copy=True).contiguous()
    if not tensor.isfinite().all():
        raise ValueError(f"{path}: {key} holds NaN or infinity; the run that wrote it diverged. Take an earlier file")
    return tensor


def _number(path: Path, key: str, value: Any) -> float:
    number = _tensor(path, key, torch.tensor(value) if isinstance(value, float) else value)
    if number.numel() != 1:
        raise ValueError(f"{path}: {key} has shape {tuple(number.shape)}, expected one number")
    return number.item()


def _similarity(path: Path, parameters: Sequence[Tensor], matrix: Tensor) -> Similarity:
    if len(parameters) == 1:
        return FullSimilarity(matrix)
    pairs = len(matrix)
    shapes = [tuple(value.shape) for value in parameters]
    if len(shapes) != 3 or shapes[0] != (pairs,) or shapes[1] != shapes[2] or shapes[1][:1] != (pairs,):
        raise ValueError(f"{path}: similarity_params have shapes {shapes}; expected a diagonal ({pairs},) and two "
                         f"factors ({pairs}, rank), or one matrix ({pairs}, {pairs})")
    diagonal, left, right = parameters
    similarity = LowRankSimilarity(diagonal, left, right, _weight(diagonal, left, right, matrix))
    worst = (similarity.matrix() - matrix).abs().max()
    if not worst <= AGREEMENT * matrix.abs().max():  # NaN neither
        raise ValueError(f"{path}: similarity_mat differs by {worst.item():.2g} from diagonal plus low rank, for any "
                         "weight of the low-rank part. The file mixes two sets")
    return similarity


def _weight(diagonal: Tensor, left: Tensor, right: Tensor, matrix: Tensor) -> float:
    """The weight of the low-rank part: the shortest decimal that the matrix allows, for users write short ones.

    Where there are several, the first that gives the matrix to the last bit: so a set of ours comes back as it was.
    """
    product = left.double() @ right.double().mT / left.shape[1]
    if len(product) > 1:
        product.fill_diagonal_(0.0)  # there the diagonal's rounding would drown a small weight
    scale = (product * product).sum()
    if scale == 0:
        return 1.0  # the factors start so that any weight gives the same
    estimate = (((matrix.double() - torch.diag(diagonal.double())) * product).sum() / scale).item()
    near = [value for value in (float(f"{estimate:.{digits}g}") for digits in range(1, DIGITS + 1))
            if abs(value - estimate) <= ROUNDING * abs(estimate)]
    exact = (value for value in near if torch.equal(LowRankSimilarity(diagonal, left, right, value).matrix(), matrix))
    return next(exact, near[0])


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


# Expert buffers.

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


def buffer_pairs(folder: Path) -> list[tuple[Path, Path]]:
    """Return the pairs of files of a folder, image side first, in the order of their numbers.

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
    return [(found["img"][number], found["txt"][number]) for number in sorted(found["img"])]


def import_buffers(pairs: Sequence[tuple[Path, Path]], layouts: Layouts, num_experts: int, folder: Path,
                   confirm: Callable[[Callable[[], None]], None] = lambda work: work()) -> None:
    """Write the first trajectories of buffers as ours are written, all of them or none.

    Args:
        confirm: does the work that it is given, and raises `ValueError` if nothing is to come of it.
        pairs: the files, as `buffer_pairs` finds them; one snapshot is in memory at a time.
        num_experts: how many trajectories to take.
        folder: for our trajectories; replaced if it exists.

    Raises:
        ValueError: a file is damaged or holds something else, the trajectories are too few, or a tensor's shape is not
            that of the parameter in its place.
    """
    trajectories = _trajectories(pairs, layouts)
    sizes = [sum(math.prod(shape) for shape in layout.shapes.values()) for layout in layouts]

    def write(aside: Path) -> None:
        for number in progress(range(num_experts), "import", "expert"):
            if (found := next(trajectories, None)) is None:
                raise ValueError(f"{pairs[0][0].parent}: {number} trajectories, expected {num_experts}. Fetch more "
                                 "buffers, or lower the parameter that says how many experts there are (`num`)")
            names, num_snapshots, snapshots = found
            stream_trajectory(trajectory_path(aside, number), sizes, num_snapshots, snapshots,
                              {"expert": number, "imported": names})

    with atomic_path(folder) as aside:
        confirm(lambda: write(aside))


def _trajectories(pairs: Sequence[tuple[Path, Path]],
                  layouts: Layouts) -> Iterator[tuple[JSON, int, Iterator[PerModality]]]:
    """Of every trajectory: its files' names, how many snapshots it has, and these, each read when it is asked for."""
    for img, txt in pairs:
        contents = [_trajectory_list(path) for path in (img, txt)]
        lengths = [[len(trajectory) for trajectory in content] for content in contents]
        if lengths[0] != lengths[1]:
            raise ValueError(f"{txt}: snapshots of its trajectories {lengths[1]}, but {lengths[0]} in "
                             f"{img.name}; expected as many. They come from different runs")
        for sides in zip(*contents, strict=True):
            yield ({"img": img.name, "txt": txt.name}, len(sides[0]),
                   map(PerModality, *map(_flat_snapshots, (img, txt), layouts, sides)))


def _trajectory_list(path: Path) -> list[list[Sequence[Tensor]]]:
    content: list[list[Sequence[Tensor]]] = read_torch(path)
    level: list[Any] = [content]
    for what in ("trajectories", "snapshots", "parameters"):
        for each in level:
            if not isinstance(each, list | tuple) or not each:
                raise ValueError(f"{path}: expected a list of trajectories, each a list of snapshots, each a list of "
                                 f"parameters; in place of {what} it has {reprlib.repr(each)}")
        level = [inner for each in level for inner in each]
    return content


def _flat_snapshots(path: Path, layout: Layout, snapshots: Sequence[Sequence[Tensor]]) -> Iterator[Tensor]:
    ends = ((number, snapshots[number]) for number in (0, len(snapshots) - 1))
    if torch.equal(*(_flat(f"{path}, snapshot {number}", layout, tensors) for number, tensors in ends)):
        raise ValueError(f"{path}: its first and last snapshots are equal, so there is nothing to match. The released "
                         "code writes such files on a machine without a GPU; take another file")
    for number, tensors in enumerate(snapshots):
        yield _flat(f"{path}, snapshot {number}", layout, tensors)


def _flat(place: str, layout: Layout, tensors: Sequence[Tensor]) -> Tensor:
    if len(tensors) != len(layout.shapes):
        names = list(layout.shapes)
        shown = ", ".join(names if len(names) <= 6 else [*names[:3], "...", names[-1]])
        raise ValueError(f"{place}: {len(tensors)} parameters, expected {len(names)} ({shown}). Is it a buffer of this "
                         "kind of expert, made with the encoders of `encode`?")
    for (name, shape), tensor in zip(layout.shapes.items(), tensors, strict=True):
        if not isinstance(tensor, Tensor) or tuple(tensor.shape) != tuple(shape) or tensor.is_complex():
            found = tuple(tensor.shape) if isinstance(tensor, Tensor) else type(tensor).__name__
            raise ValueError(f"{place}: {name} is {found}, expected {tuple(shape)}. Is it a buffer of this kind of "
                             "expert, made with the encoders of `encode` and heads of `heads.width`?")
    flat = layout.flatten([tensor.detach().float() for tensor in tensors])
    if not flat.isfinite().all():
        raise ValueError(f"{place}: a parameter is NaN or infinite, its expert diverged. Leave this pair of files out")
    return flat


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
