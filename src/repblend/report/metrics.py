"""Stored metrics as the report reads them: checked where a file could be wrong, None where a cell was not run."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repblend.params import Grid, read_params
from repblend.store import JSON, read_json

RECALLS = ("ir_at_1", "ir_at_5", "ir_at_10", "tr_at_1", "tr_at_5", "tr_at_10", "mean_recall")
PROTOCOLS = ("held-out", "faithful")


@dataclass(frozen=True)
class Metrics:
    """The metrics of a workspace."""

    root: Path
    grid: Grid

    @classmethod
    def of(cls, root: Path) -> "Metrics":
        """Find the metrics of a workspace; raises `ValueError` as `read_params` does."""
        return cls(root, read_params(root / "params.yaml").grid)

    def evaluation(self, name: str) -> JSON | None:
        """Return `metrics/evaluate/<name>.json`, checked, or None if it was not run.

        Raises:
            ValueError: the file lacks a key or holds something that is no finite number.
        """
        path = self.path("evaluate", name)
        content = _read(path)
        if content is not None:
            for protocol in PROTOCOLS:
                for statistic in ("mean", "std"):
                    _check_recalls(path, content, "protocols", protocol, statistic)
                for seed in _get(path, content, "protocols", protocol, "seeds"):
                    _check_recalls(path, seed)
        return content

    def chance(self) -> JSON | None:
        """Return `metrics/evaluate/chance.json`, checked, or None if it was not run; raises as `evaluation`."""
        path = self.path("evaluate", "chance")
        content = _read(path)
        if content is not None:
            _check_recalls(path, content, "expected")
        return content

    def distillation(self, name: str) -> JSON | None:
        """Return `metrics/distill/<name>.json` with its curves checked, or None if it was not run."""
        path = self.path("distill", name)
        content = _read(path)
        if content is not None:
            for group in ("curves", "checkpoints"):
                _check_columns(path, group, _get(path, content, group))
        return content

    def specimens(self, name: str) -> JSON | None:
        """Return `metrics/specimens/<name>.json`, or None if it was not run."""
        path = self.path("specimens", name)
        content = _read(path)
        if content is not None:
            _get(path, content, "pairs")
            _get(path, content, "similarity")
        return content

    def path(self, stage: str, name: str) -> Path:
        return self.root / "metrics" / stage / f"{name}.json"


def _read(path: Path) -> JSON | None:
    return read_json(path) if path.is_file() else None


def _get(path: Path, content: Any, *keys: str) -> Any:
    for depth, key in enumerate(keys):
        if not isinstance(content, dict) or key not in content:
            raise ValueError(f"{path}: key '{'.'.join(keys[:depth + 1])}' is missing. The file is damaged or of another "
                             "version: delete it and run `repro run`")
        content = content[key]
    return content


def _check_recalls(path: Path, content: JSON, *keys: str) -> None:
    for name in RECALLS:
        _check_number(path, ".".join([*keys, name]), _get(path, content, *keys, name))


def _check_number(path: Path, key: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{path}: '{key}' is {value!r}, expected a finite number. Delete the file and run `repro run`")


def _check_columns(path: Path, group: str, columns: JSON) -> None:
    lengths = {name: len(values) for name, values in columns.items()}
    if "iteration" not in columns or len(set(lengths.values())) != 1:
        raise ValueError(f"{path}: '{group}' expected columns of one length with 'iteration' among them, found "
                         f"{lengths}. Delete the file and run `repro run`")
    for name, values in columns.items():
        for value in values:
            _check_number(path, f"{group}.{name}", value)
