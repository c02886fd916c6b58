"""Files that the official release's code wrote with `torch.save`: read as tensors and containers, never as code.

The bytes of tensors stay in the file until they are used (a memory map), so a buffer of gigabytes costs no memory.
"""

import pickle
from pathlib import Path
from typing import Any

import torch


def load(path: Path) -> Any:
    """Return what a file holds, on the CPU.

    Raises:
        ValueError: the file is missing, truncated, not written by PyTorch 1.6 or later, or holds code.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file. Fetch it, or mend the parameter that names it")
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(f"{path}: expected a whole file of tensors that PyTorch wrote ({reason}). It may be "
                         "truncated: fetch it again. A file that holds code is not read") from error


def save(content: Any, path: Path) -> None:
    """Write a file as the official release's code does; the same content gives the same bytes under any name."""
    with path.open("wb") as file:  # given a name instead, PyTorch writes it into the file
        torch.save(content, file)
