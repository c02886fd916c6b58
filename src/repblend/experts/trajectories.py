"""Expert trajectories on disk: one safetensors file per expert, any snapshot readable without the rest.

Keys are `snapshot-000000/img` and `snapshot-000000/txt`, flat float32 parameter vectors; snapshot 0 is the initial one.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from repblend.matching.student import PerModality
from repblend.store import JSON
from repblend.tensors import TensorSpec, aligned, open_tensors, read_metadata, stream_tensors, write_tensors


def write_trajectory(path: Path, snapshots: Sequence[PerModality], metadata: JSON) -> None:
    """Write an expert's snapshots, atomically.

    Raises:
        ValueError: a parameter is not finite.
    """
    tensors = {_key(index, side): getattr(snapshot, side)
               for index, snapshot in enumerate(snapshots) for side in PerModality._fields}
    write_tensors(path, tensors, metadata | {"num_snapshots": len(snapshots)})


def stream_trajectory(path: Path, sizes: Sequence[int], num_snapshots: int, snapshots: Iterable[PerModality],
                      metadata: JSON) -> None:
    """Write an expert's snapshots as `write_trajectory` does, to the same bytes, with one at a time in memory.

    Args:
        sizes: parameters of the image side and of the text side.
        snapshots: `num_snapshots` of them.

    Raises:
        ValueError: a parameter is not finite.
    """
    specs = {_key(index, side): TensorSpec("float32", (size,)) for index in range(num_snapshots)
             for side, size in zip(PerModality._fields, sizes, strict=True)}
    tensors = (tensor for snapshot in snapshots for tensor in snapshot)
    stream_tensors(path, specs, zip(specs, tensors, strict=True), metadata | {"num_snapshots": num_snapshots})


def trajectory_path(folder: Path, number: int) -> Path:
    """Return where a folder has the trajectory of an expert."""
    return folder / f"expert-{number:03d}.safetensors"


def trajectory_files(folder: Path) -> list[Path]:
    """Return the trajectories of a folder, in the order of their experts."""
    return sorted(folder.glob("expert-*.safetensors"))


class TrajectoryStore:
    """The trajectories of a folder, in the order of their names."""

    def __init__(self, folder: Path) -> None:
        """Find the experts of a folder.

        Raises:
            ValueError: there are none, a file is damaged, or the experts have different numbers of snapshots.
        """
        self._files = trajectory_files(folder)
        if not self._files:
            raise ValueError(f"{folder}: expected expert-*.safetensors, found none. Run `dvc repro {folder.name}`")
        counts = {path: _metadata(path)["num_snapshots"] for path in self._files}
        self.num_snapshots = min(counts.values())
        for path, count in counts.items():
            if count != self.num_snapshots:
                raise ValueError(f"{path}: {count} snapshots, but another expert has {self.num_snapshots}. "
                                 "They come from different runs: delete the folder and run `dvc repro experts`")

    def __len__(self) -> int:
        return len(self._files)

    def snapshot(self, expert: int, index: int) -> PerModality:
        """Read one snapshot of one expert, (P,) each; nothing else of the file is read.

        Raises:
            ValueError: the file is damaged.
        """
        with open_tensors(self._files[expert]) as file:
            return PerModality(*(aligned(file.get_tensor(_key(index, side))) for side in PerModality._fields))

    def last(self, expert: int) -> PerModality:
        """Read the last snapshot of one expert; raises as `snapshot`."""
        return self.snapshot(expert, self.num_snapshots - 1)

    def metadata(self, expert: int) -> JSON:
        """Return what `write_trajectory` was told about an expert."""
        return _metadata(self._files[expert])


def _key(index: int, side: str) -> str:
    return f"snapshot-{index:06d}/{side}"


def _metadata(path: Path) -> JSON:
    with open_tensors(path) as file:
        return read_metadata(file, path)
