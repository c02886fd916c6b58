"""Export as the official release's files: `python -m repblend.release.official WHAT PATH` (`repro export`).

WHAT is a cell, for a file `distilled_*.pt`; or `experts` or `encoder-experts`, for a folder of replay buffers.
"""

import os
import sys
from pathlib import Path

from repblend.data.features import read_features
from repblend.encoders.heads import HeadSpec
from repblend.encoders.registry import load_image_encoder
from repblend.evaluation.towers import HeadPair
from repblend.experts.trajectories import TrajectoryStore
from repblend.matching.synthetic_set import SyntheticSet
from repblend.params import read_params
from repblend.release.official_buffers import BUFFER_FILES, Layouts, export_buffers
from repblend.release.official_set import write_distilled
from repblend.stages.context import Cell, Paths

USAGE = "usage: python -m repblend.release.official {METHOD-BUDGET,experts,encoder-experts} PATH"


def main(arguments: list[str]) -> int:
    """Write the file or folder; return the exit code."""
    if len(arguments) != 2:
        print(USAGE, file=sys.stderr)
        return 2
    what, target = arguments[0], Path(arguments[1]).absolute()
    try:
        export(what, Paths(Path.cwd()), target)
    except (ValueError, OSError) as error:
        print(f"export {what}: {error}", file=sys.stderr)
        return 1
    print(f"Written as the official release does: {target}")
    return 0


def export(what: str, paths: Paths, target: Path) -> None:
    """Write a cell's set, or all trajectories of a kind.

    Raises:
        ValueError: it was not made, the format cannot hold it, or the target is something else already.
    """
    if what == "experts":
        _export_experts(paths.experts, _head_layouts(paths), target)
    elif what == "encoder-experts":
        _export_experts(paths.encoder_experts, _encoder_layouts(paths), target)
    else:
        if target.is_dir():
            raise ValueError(f"{target}: is a folder, expected the name of a file, for example "
                             f"{target / 'distilled_0.pt'}")
        write_distilled(SyntheticSet.read(paths.set(Cell.parse(what))), target)


def _export_experts(experts: Path, layouts: Layouts, target: Path) -> None:
    others = sorted(path.name for path in target.glob("*") if not BUFFER_FILES.fullmatch(path.name))
    if target.is_file() or others:
        raise ValueError(f"{target}: exists and holds something else ({', '.join(others[:3]) or 'a file'}). Name a "
                         "folder that does not exist yet")
    export_buffers(TrajectoryStore(experts), layouts, target)


def _head_layouts(paths: Paths) -> Layouts:
    heads = HeadPair.of_widths(*read_features(paths.features).widths, read_params(paths.params).heads.width)
    return Layouts(heads.img, heads.txt)


def _encoder_layouts(paths: Paths) -> Layouts:
    params = read_params(paths.params)
    encoder = load_image_encoder(params.encode.image_encoder, params.data.image_size)
    return Layouts.of_encoder(params.encode.image_encoder, encoder,
                              HeadSpec(read_features(paths.features).widths[1], encoder.feature_dim))


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    sys.exit(main(sys.argv[1:]))
