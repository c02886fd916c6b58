"""`python -m repro.guarded_dvc job STAGE [PART]`, in a job's private checkout: bring the stage's inputs from the shared
cache, and run it by DVC, which puts the result into its run cache; or do only a part of its work.
"""

import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from repblend.runtime.processes import EXIT_CODE as RUN_IS_GONE
from repblend.runtime.processes import ONLY
from repro.cluster.disk import full_disk_told, is_full

DONE, FAILED, KILLED = 0, 1, 75
"""Exit codes: of a stage that ran, that said what is wrong, and that was stopped from outside."""
LARGEST_CODE = 128
"""Of a command's own; a shell adds the number of the signal that killed it."""


def run_job(name: str, part: str | None = None) -> int:
    """Run a stage, or a part of its work; return the exit code.

    Raises:
        ValueError: the shared cache lacks an input, or DVC cannot read the pipeline.
        OSError: the disk of the cache or of the checkout is full.
    """
    from dvc.repo import Repo  # slow to import
    from dvc.stage.exceptions import StageCmdFailedError

    with Repo(str(Path.cwd())) as repo, full_disk_told(Path(repo.cache.local.path), Path.cwd()), repo.lock:
        stages = {stage.name: stage for stage in repo.index.stages}
        stage = stages[name]
        bring(stage, [out for each in stages.values() for out in each.outs])
        if part is None:
            try:
                if stage.reproduce():
                    stage.dump(update_pipeline=False)
                return DONE
            except StageCmdFailedError as error:
                print(error, file=sys.stderr)
                found = re.search(r"exited with (-?\d+)$", str(error))
                return judged(int(found[1]) if found else FAILED)
    command = [sys.executable, *shlex.split(stage.cmd)[1:], ONLY, part]
    return judged(subprocess.run(command, check=False).returncode)


def judged(code: int) -> int:
    """Return what a command's exit code means for its job: negative, or above `LARGEST_CODE`, after a signal."""
    return DONE if code == 0 else FAILED if 0 < code < LARGEST_CODE and code != RUN_IS_GONE else KILLED


def bring(stage: Any, outputs: Sequence[Any]) -> None:
    """Check out the outputs that a stage's inputs are, lie in, or consist of: who depends on a manifest reads what it
    lists.
    """
    from dvc.exceptions import DvcException

    def belongs(dep: PurePosixPath, out: PurePosixPath) -> bool:
        return dep.is_relative_to(out) or out.is_relative_to(dep)

    inputs = [PurePosixPath(dep.fs_path) for dep in stage.deps]
    for out in outputs:
        if any(belongs(dep, PurePosixPath(out.fs_path)) for dep in inputs):
            try:
                out.checkout(force=True)
            except DvcException as error:
                if is_full(error):
                    raise
                raise ValueError(f"{out.def_path}: not in the shared cache ({' '.join(str(error).split())}). Run the "
                                 "same command again, which makes it anew") from error
