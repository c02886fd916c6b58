"""Stages, and whole runs of `repro`, in processes of their own that cost no start of an interpreter: forks of the
process that tests run in.

For tests that need the process (to kill it, to read what it prints), and not a new interpreter.
"""

import contextlib
import multiprocessing
import os
import runpy
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from repblend.runtime import harness, settings
from repblend.runtime.harness import main
from repblend.runtime.processes import VARIABLE_OF_THE_RUNNER
from repblend.stages.pipeline import Context
from repblend.store import SOURCES, repository_of
from tests.tiny import ROOT


@dataclass
class Stage:
    """A stage that runs, or ran."""

    process: BaseProcess
    printed: Path
    """What it prints, to both streams."""

    def finish(self) -> tuple[int | None, str]:
        """Wait for its end; return its exit code (of a signal, the negative number) and what it printed."""
        self.process.join()
        return self.process.exitcode, self.printed.read_text("utf-8")


def start(workspace: Path, *arguments: str) -> Stage:
    """Start a stage of the multimodal pipeline in a workspace."""
    return _fork(workspace, workspace.parent, lambda: main(Context, "", arguments))


def run(workspace: Path, *arguments: str) -> tuple[int | None, str]:
    """Run a stage to its end; return its exit code and what it printed."""
    return start(workspace, *arguments).finish()


def repro(workspace: Path, *arguments: str, figures: int | None = None) -> tuple[int | None, str]:
    """Run `repro ARGUMENTS` in a folder of a clone, DVC in its process and every stage in a fork of that; return its
    exit code and what all of them printed.

    The clone's sources are what settings name, but this process's are what runs: they may differ in comments alone.

    Args:
        figures: how many the report draws, None for all. All are written alike, and drawing takes long.
    """
    _import_all()
    return _fork(workspace, repository_of(workspace).parent, lambda: _repro(arguments, figures)).finish()


def dvc(folder: Path, *arguments: str) -> tuple[int | None, str]:
    """Run `dvc ARGUMENTS` in a folder; return its exit code and what it printed."""
    _import_all()
    return _fork(folder, folder.parent, lambda: _dvc(arguments)).finish()


def _dvc(arguments: Sequence[str]) -> int:
    from dvc.cli import main as dvc_main

    return int(dvc_main([*arguments]))


def on_sources(folder: Path, module: str, *arguments: str, compiled: bool = False) -> tuple[int | None, str]:
    """Run a module of the package in a copy of the clone, imported anew from that copy's own sources; other packages
    stay as this process has them. Return its exit code and what it printed.

    Args:
        compiled: keep what the sources are compiled to, for runs that come after. Not of sources that were just
            edited: compiled ones pass for those of the same size and second.
    """
    return _fork(folder, folder.parent, lambda: _on_sources(folder, module, arguments, compiled)).finish()


def _on_sources(folder: Path, module: str, arguments: Sequence[str], compiled: bool) -> int:
    sys.dont_write_bytecode = not compiled
    for name in [name for name in sys.modules if name.partition(".")[0] == "repblend"]:
        del sys.modules[name]
    sys.path.insert(0, str(folder / SOURCES.parent))
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)  # ends by `sys.exit`
    return 0


@cache
def _import_all() -> None:
    """Import what stages and DVC do, so that no fork has to."""
    import dvc.cli
    import dvc.commands.repro
    import dvc.repo.reproduce  # noqa: F401

    from repblend.encoders.registry import load_text_encoder
    from repblend.report import __main__  # noqa: F401

    for name, stage in Context.pipeline.stages.items():
        if stage.module is None:
            Context.pipeline.function(name)
    load_text_encoder("all-MiniLM-L6-v2")  # imports libraries, for longer than most stages take


def _fork(workspace: Path, beside: Path, work: Callable[[], int]) -> Stage:
    descriptor, printed = tempfile.mkstemp(prefix="stage-", suffix=".txt", dir=beside)
    process = multiprocessing.get_context("fork").Process(target=_be, args=(workspace, work, descriptor))
    process.start()
    os.close(descriptor)
    return Stage(process, Path(printed))


def _be(workspace: Path, work: Callable[[], int], descriptor: int) -> None:
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    # pytest has put its own files in their place
    sys.stdout, sys.stderr = (os.fdopen(stream, "w", buffering=1) for stream in (1, 2))
    os.chdir(workspace)
    sys.exit(work())


def repro_anew(workspace: Path, *arguments: str, interpreted: Sequence[str] = (), **variables: str) -> tuple[int, str]:
    """As `repro`, but the forks are those of a new interpreter, with environment variables: another hash seed.

    Args:
        interpreted: stages that start an interpreter of their own as well, on the sources of the clone they run in.
    """
    code = f"import sys; from tests import forked; sys.exit(forked.be_repro({arguments!r}, {tuple(interpreted)!r}))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=workspace, env=os.environ | {"PYTHONPATH": str(ROOT)} | variables,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    return done.returncode, done.stdout


def be_repro(arguments: Sequence[str], interpreted: Sequence[str]) -> int:
    """Be the new interpreter of `repro_anew`."""
    _import_all()
    return _repro(arguments, None, interpreted)


def _repro(arguments: Sequence[str], figures: int | None, interpreted: Sequence[str] = ()) -> int:
    import dvc.stage.run
    from dvc.cli import main as dvc_main
    from dvc.stage.exceptions import StageCmdFailedError

    from repblend.report.__main__ import REPORT
    from repro.cli import app
    from repro.course import tell_course
    from repro.engines import local
    from repro.guarded_dvc import loading_only, write_changed_stages, write_files_whole
    from repro.workspace import workspace_environment

    report = replace(REPORT, figures=dict(list(REPORT.figures.items())[:figures]))

    def run_dvc(command: Sequence[str], root: Path) -> int:
        settings.PACKAGE = repository_of(root) / SOURCES  # of another clone, where that is verified
        with contextlib.chdir(root), loading_only(root):
            write_files_whole()
            write_changed_stages()
            tell_course()
            return int(dvc_main([*command[command.index("repro.guarded_dvc") + 1:]]))

    def run_stage(executable: str | None, command: str, **options: Any) -> None:
        python, _, module, *words = shlex.split(command)
        assert python == "python" and Path(options["cwd"]) == Path.cwd(), (command, options)
        if words and words[0] in interpreted:
            code = subprocess.run([sys.executable, "-m", module, *words], check=False,
                                  env=workspace_environment(Path.cwd())).returncode
        else:
            process = multiprocessing.get_context("fork").Process(target=lambda: sys.exit(
                report.main() if module == "repblend.report" else main(Context, "", words)))
            process.start()
            process.join()
            code = process.exitcode
        if code:
            raise StageCmdFailedError(command, code)

    os.environ.pop(VARIABLE_OF_THE_RUNNER, None)  # the runner of a fork is this process, which no name tells
    dvc.stage.run._run, local.run_stoppable = run_stage, run_dvc
    harness.check_sources_are_the_workspaces = lambda root: None
    settings.PACKAGE = repository_of(Path.cwd()) / SOURCES
    app([*arguments])
    return 0
