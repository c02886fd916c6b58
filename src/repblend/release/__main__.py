"""Release one cell's set: `python -m repblend.release METHOD-BUDGET FOLDER` in the workspace (`repro export`)."""

import os
import sys
from pathlib import Path

from repblend.data.features import read_features
from repblend.data.karpathy import read_annotations
from repblend.encoders.registry import load_image_encoder
from repblend.matching.synthetic_set import SyntheticSet
from repblend.params import Params, read_params
from repblend.release.folder import Release
from repblend.report.titles import title
from repblend.stages.context import Cell, Paths
from repblend.store import JSON, read_json

USAGE = "usage: python -m repblend.release METHOD-BUDGET FOLDER"


def main(arguments: list[str]) -> int:
    """Write the folder; return the exit code."""
    if len(arguments) != 2:
        print(USAGE, file=sys.stderr)
        return 2
    try:
        folder = Path(arguments[1]).absolute()
        release(Cell.parse(arguments[0]), Paths(Path.cwd())).write(folder)
    except (ValueError, OSError) as error:
        print(f"export {arguments[0]}: {error}", file=sys.stderr)
        return 1
    print(f"Released: {folder}")
    return 0


def release(cell: Cell, paths: Paths) -> Release:
    """Gather what a cell's folder holds.

    Raises:
        ValueError: the set was not made, or a file that tells of it is missing or damaged.
    """
    params = read_params(paths.params)
    path = paths.set(cell)
    synthetic = SyntheticSet.read(path)
    train = read_annotations(paths.data, params.data.name, params.data.max_caption_words).train
    return Release(path, synthetic, load_image_encoder(params.encode.image_encoder, synthetic.images.shape[-1]),
                   read_features(paths.features).train_texts,
                   [caption for image in train for caption in image.captions], _facts(cell, params, paths),
                   (paths.data / "ATTRIBUTION.md").read_text(encoding="utf-8"))


def _facts(cell: Cell, params: Params, paths: Paths) -> JSON:
    evaluation, made = paths.metrics("evaluate", cell), _made_by(cell, paths)
    return {
        "cell": cell.to_json(), "title": title(cell.method), "dataset": params.data.name,
        "encoders": {"image": params.encode.image_encoder, "text": params.encode.text_encoder},
        "command": made["command"], "provenance": made,
        "evaluation": read_json(evaluation) if evaluation.is_file() else None}


def _made_by(cell: Cell, paths: Paths) -> JSON:
    """The provenance of the stage that made the set: the one of its two makers that left metrics."""
    for stage in ("distill", "select"):
        if (path := paths.metrics(stage, cell)).is_file():
            return read_json(path)["provenance"]
    raise ValueError(f"{paths.metrics('distill', cell)}: no such file, so nothing says how {cell} was made. Run "
                     f"`repro run distill@{cell}` (or select@{cell}, for a coreset)")


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    sys.exit(main(sys.argv[1:]))
