"""`python -m repro.guarded_dvc ARGUMENTS`: DVC as `repro` runs it, in a workspace's folder.

It differs from plain `dvc` in five points, and writes the same bytes (a test compares them):

1. It stops when the `repro` that started it is gone. It runs in a session of its own, so that Ctrl-C can stop all of
   it; `kill -9` on `repro` alone would leave it running.
2. It replaces its files whole. DVC writes dvc.lock in place: stopped in between, it would lose what it knew of every
   stage.
3. After a stage it writes that stage's lines of dvc.lock. DVC parses and formats the whole file again, in pure Python:
   half a second per stage in a workspace of 130 stages.
4. It loads the pipeline of this workspace alone. DVC loads every dvc.yaml and dvc.lock of the clone, and stops at one
   that is broken, whichever it was asked for.
5. It says how far the whole run is when a stage begins, and leaves the rest of its own words to `logs/dvc.log`.

`job STAGE [PART]` is a command of its own, that of a job on a cluster (`repro.cluster.inside`).

Nothing but DVC, psutil, filelock and the standard library is imported: images for tests have no more.
"""

import contextlib
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from repblend.runtime.processes import stop_with_the_runner
from repro.course import tell_course

LOCK_FORM = re.compile(r"schema: '2\.0'\nstages:\n((?:  .*\n)+)")
"""dvc.lock as DVC writes it, without data sets of DVC's own; group 1 is the stages."""
ENTRY = re.compile(r"(  [^\s?:#].*:\n)((?:   .*\n)+)")
"""A stage's name, and its lines."""


def write_files_whole() -> None:
    """Let this process's DVC replace its YAML files as a whole, or leave them as they were."""
    from dvc.utils.serialize import _common, _yaml

    in_place = _common._dump_data

    def whole(path: Any, data: Any, dumper: Any, fs: Any = None, **settings: Any) -> None:
        aside = Path(path).with_name(f".{Path(path).name}.partial")  # what a killed run left is written over
        try:
            in_place(aside, data, dumper, **settings)
            with aside.open("rb") as written:
                os.fsync(written.fileno())
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)

    _common._dump_data = _yaml._dump_data = whole


def write_changed_stages() -> None:
    """Let this process's DVC write into dvc.lock the lines of the stages that ran, and keep those of all others."""
    from dvc.dvcfile import Lockfile
    from dvc.stage.serialize import to_lockfile
    from dvc.utils.serialize import _common, dumps_yaml

    write_all: Callable[..., None] = Lockfile.dump_stages

    def write_changed(lock: Lockfile, stages: Any, **settings: Any) -> None:
        path = Path(lock.path)
        entries = lock_entries(path.read_text("utf-8")) if path.is_file() else None
        if entries is None:
            write_all(lock, stages, **settings)
            return
        made = "".join(dumps_yaml({"stages": to_lockfile(stage, **settings)}).removeprefix("stages:\n")
                       for stage in stages)
        changed = entries | dict(ENTRY.findall(made))
        if changed != entries:
            _common._dump_data(path, lock_text(changed), lambda text, stream: stream.write(text))
            lock.repo.scm_context.track_file(lock.relpath)

    Lockfile.dump_stages = write_changed


def lock_entries(text: str) -> dict[str, str] | None:
    """Return the line with each stage's name -> its other lines; None for a dvc.lock of any other form."""
    form = LOCK_FORM.fullmatch(text)
    entries = ENTRY.findall(form[1]) if form else []
    return dict(entries) if form and "".join(map("".join, entries)) == form[1] else None


def lock_text(entries: Mapping[str, str]) -> str:
    """Return the dvc.lock that has these entries, as `lock_entries` gives them."""
    return "schema: '2.0'\nstages:\n" + "".join(name + lines for name, lines in entries.items())


@contextlib.contextmanager
def loading_only(workspace: Path) -> Iterator[None]:
    """Let this process's DVC know no pipeline but that of one workspace while the body runs."""
    from dvc.repo.index import Index

    load, own = Index.from_file, workspace.resolve() / "dvc.yaml"

    def load_own(repo: Any, path: str) -> Index:
        return Index(repo) if Path(path).name == own.name and Path(path) != own else load(repo, path)

    Index.from_file = load_own
    try:
        yield
    finally:
        Index.from_file = load


if __name__ == "__main__":
    stop_with_the_runner()
    from dvc.cli import main  # slow to import: the guard stands before it

    write_files_whole()
    write_changed_stages()
    if "repro" in sys.argv[1:2]:
        tell_course()
    with loading_only(Path.cwd()):
        if sys.argv[1] == "job":
            from repblend.runtime.processes import exit_code
            from repro.cluster.inside import run_job

            sys.exit(exit_code(f"job {sys.argv[2]}", lambda: sys.exit(run_job(*sys.argv[2:]))))
        sys.exit(main(sys.argv[1:]))
