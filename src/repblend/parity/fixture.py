"""A parity fixture: a flat npz of inputs, draws and outputs recorded from the official implementation."""

from collections import Counter
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


class Fixture:
    """Named arrays of one npz file, as torch tensors in the precision they were recorded in."""

    def __init__(self, path: Path) -> None:
        """Open a fixture.

        Raises:
            ValueError: the file is missing or is not an npz without pickled objects.
        """
        self.path = path
        try:
            with np.load(path, allow_pickle=False) as archive:
                self._arrays = {name: archive[name] for name in archive.files}
        except (OSError, ValueError, EOFError) as error:
            raise ValueError(f"{path}: expected an npz file of plain arrays ({error})") from error

    def __contains__(self, name: str) -> bool:
        return name in self._arrays

    def names(self, prefix: str = "") -> list[str]:
        return [name for name in self._arrays if name.startswith(prefix)]

    def _array(self, name: str) -> np.ndarray:
        if name not in self._arrays:
            raise ValueError(f"{self.path}: array '{name}' is missing; expected it in a fixture of this kind")
        return self._arrays[name]

    def tensor(self, name: str) -> Tensor:
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
        sizes = Counter()
        for array in self._arrays.values():
            if array.dtype.kind == "f":
                sizes[array.dtype.name] += array.size
        return getattr(torch, sizes.most_common(1)[0][0])
