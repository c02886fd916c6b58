"""`python -m repro.guarded_dvc ARGUMENTS`: DVC, stopped when its `repro` is gone, and its files never cut short.

DVC runs in a session of its own, so that a Ctrl-C can stop all of it; `kill -9` on `repro` alone would leave it
running. And DVC writes dvc.lock in place, which takes seconds where it knows many stages: stopped in between, it would
lose what it knew of all of them. Here it writes aside and renames, as `repblend.store` does, which needs packages that
not every image with DVC has.
"""

import os
import sys
from pathlib import Path
from typing import Any

from repblend.stages.guard import stop_with_the_runner


def write_dvc_files_whole() -> None:
    """Let this process's DVC replace its YAML files as a whole, or leave them as they were."""
    from dvc.utils.serialize import _common, _yaml

    in_place = _common._dump_data

    def whole(path: Any, data: Any, dumper: Any, fs: Any = None, **settings: Any) -> None:
        aside = Path(path).with_name(f".{Path(path).name}.partial")  # what a killed one left is written over
        try:
            in_place(aside, data, dumper, **settings)
            with aside.open("rb") as written:
                os.fsync(written.fileno())
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)

    _common._dump_data = _yaml._dump_data = whole


if __name__ == "__main__":
    stop_with_the_runner()
    from dvc.cli import main  # slow to import: the guard stands before it

    write_dvc_files_whole()
    sys.exit(main(sys.argv[1:]))
