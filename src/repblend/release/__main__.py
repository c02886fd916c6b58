"""Write what others read: `python -m repblend.release {folder,official} WHAT PATH` in the workspace (`repro export`).

`folder` writes a cell's set as a folder with a data card. `official` writes the official release's files: of a cell, a
file `distilled_*.pt`; of `experts` or `encoder-experts`, a folder of replay buffers.
"""

import os
import sys
from pathlib import Path

from repblend.data.features import read_features
from repblend.encoders.heads import HeadSpec
from repblend.encoders.registry import load_image_encoder
from repblend.evaluation.towers import HeadPair
from repblend.experts.trajectories import TrajectoryStore
from repblend.grid import Cell
from repblend.matching.synthetic_set import SyntheticSet
from repblend.params import read_params
from repblend.release.folder import Release
from repblend.released_files import BUFFER_FILES, Layouts, export_buffers, write_distilled
from repblend.runtime.context import Paths
from repblend.runtime.locked import check_fit
from repblend.runtime.processes import exit_code
from repblend.stages.pipeline import Context

USAGE = """usage: python -m repblend.release folder METHOD-BUDGET PATH
       python -m repblend.release official {METHOD-BUDGET,experts,encoder-experts} PATH"""


def main(arguments: list[str]) -> int:
    """Write the file or folder; return the exit code."""
    if len(arguments) != 3 or arguments[0] not in ("folder", "official"):
        print(USAGE, file=sys.stderr)
        return 2
    form, what, target = arguments[0], arguments[1], Path(arguments[2]).absolute()
    code = exit_code(f"export {what}", lambda: _write(form, what, Paths(Path.cwd()), target))
    if code == 0:
        print(f"Released: {target}" if form == "folder" else f"Written as the official release does: {target}")
    return code


def _write(form: str, what: str, paths: Paths, target: Path) -> None:
    if form == "folder":
        Release.of(Cell.parse(what), paths).write(target)
    elif what in ("experts", "encoder-experts"):
        write_buffers(what, paths, target)
    elif target.is_dir():
        raise ValueError(f"{target}: is a folder, expected the name of a file. Name, for example, "
                         f"{target / 'distilled_0.pt'}")
    else:
        synthetic = SyntheticSet.read(path := paths.set(Cell.parse(what)))
        check_fit(paths.root, Context.pipeline, [path])
        write_distilled(synthetic, target)


def write_buffers(what: str, paths: Paths, target: Path) -> None:
    """Write all trajectories of `experts` or `encoder-experts` as the official release does.

    Raises:
        ValueError: they were not made, the format cannot hold them, or the target is something else already.
    """
    others = sorted(path.name for path in target.glob("*") if not BUFFER_FILES.fullmatch(path.name))
    if target.is_file() or others:
        raise ValueError(f"{target}: exists and holds something else ({', '.join(others[:3]) or 'a file'}). Name a "
                         "folder that does not exist yet")
    params, widths = read_params(paths.params), read_features(paths.features).widths
    if what == "experts":
        heads = HeadPair.of_widths(*widths, params.heads.width)
        folder, layouts = paths.experts, Layouts(heads.img, heads.txt)
    else:
        encoder = load_image_encoder(params.encode.image_encoder, params.data.image_size)
        head = HeadSpec(widths[1], encoder.feature_dim)
        folder, layouts = paths.encoder_experts, Layouts.of_encoder(params.encode.image_encoder, encoder, head)
    check_fit(paths.root, Context.pipeline, [folder])
    export_buffers(TrajectoryStore(folder), layouts, target)


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    sys.exit(main(sys.argv[1:]))
