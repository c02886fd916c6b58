"""Tensors that are filled part by part: a run goes on after the last part that an earlier one left on the disk."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from torch import Tensor

from repblend.data.tensor_file import TensorFile
from repblend.store import read_json, write_json

PARTS_PER_ENTRY = 16
"""Parts between two entries of the journal: each waits for the disk."""

Part = Iterable[tuple[int, Tensor]]
"""Pieces of a tensor: the row that each begins at, and its values."""


class Journal:
    """How many parts of each tensor are on the disk."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._done: dict[str, int] = read_json(path) if path.is_file() else {}

    def done(self, tensor: str) -> int:
        """Return how many parts of a tensor need not be made again."""
        return self._done.get(tensor, 0)

    def record(self, tensor: str, num_parts: int) -> None:
        """Note that the first parts are on the disk."""
        self._done[tensor] = num_parts
        write_json(self._path, self._done)


def fill(file: TensorFile, tensor: str, journal: Journal, parts_from: Callable[[int], Iterator[Part]],
         every: int = PARTS_PER_ENTRY) -> None:
    """Write the parts of a tensor that no earlier run has written.

    Args:
        parts_from: from how many parts are done to the rest of them. A part must not depend on how many that are.
        every: parts between two entries of the journal.

    Raises:
        ValueError: a value is NaN or infinite.
    """
    entry = f"{file.name}/{tensor}"
    done = before = journal.done(entry)
    for done, part in enumerate(parts_from(before), start=before + 1):
        for row, values in part:
            file.write(tensor, row, values)
        if done % every == 0:
            _record(file, journal, entry, done)
    _record(file, journal, entry, done)


def _record(file: TensorFile, journal: Journal, entry: str, done: int) -> None:
    file.sync()  # first: an entry must not outlive a power cut that its parts do not
    journal.record(entry, done)
