"""The head's DVC: what is up to date, what DVC's run cache already has, and what goes into `dvc.lock`.

Jobs compute; their results are in the run cache, by command, inputs and parameters. Here they are taken over as `dvc
repro` would take them over, with one difference: what is not in the run cache is not computed, but said. So only one
process writes `dvc.lock`, and it gets the bytes of a run without jobs.

The pipeline is read once, when a run begins: what is edited later is for the next run.
"""

import contextlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from repblend.runtime.locked import LOCK
from repblend.store import fingerprint, write_bytes
from repro.artifacts.remote import one_line
from repro.guarded_dvc import loading_only, lock_entries, lock_text, write_changed_stages, write_files_whole
from repro.workspace import named_stages


class Work(NamedTuple):
    """What a stage computes."""

    key: str
    """The SHA-256 that identifies it."""
    is_recorded: bool
    """Whether its outputs are in the workspace and in `dvc.lock` now."""


class NotComputed(Exception):
    """DVC would run a stage's command now."""


@contextlib.contextmanager
def open_pipeline(workspace: Path, targets: Sequence[str]) -> "Iterator[Recorder]":
    """Open a workspace's pipeline; the caller holds the clone's lock.

    Args:
        targets: stages to bring up to date, with all that they need; all of them if none are named.

    Raises:
        ValueError: a target is no stage, or DVC cannot read the pipeline.
    """
    from dvc.exceptions import DvcException  # slow to import
    from dvc.repo import Repo
    from dvc.repo.reproduce import plan_repro

    logging.getLogger("dvc").setLevel(logging.WARNING)
    global _dvc_is_patched
    if not _dvc_is_patched:
        write_files_whole()
        write_changed_stages()
        _dvc_is_patched = True
    try:
        repo = Repo(str(workspace))
        with repo:
            with contextlib.chdir(workspace), loading_only(workspace), repo.lock:
                stages, graph = {stage.name: stage for stage in repo.index.stages}, repo.index.graph
            planned = plan_repro(graph, [stages[name] for name in named_stages(workspace, stages, targets)])
            names = {stage.name for stage in planned}
            needs = {stage.name: [before.name for before in graph.successors(stage) if before.name in names]
                     for stage in planned}
            yield Recorder(workspace, repo, {stage.name: stage for stage in planned}, needs)
    except DvcException as error:
        raise ValueError(f"{workspace}: DVC stopped ({one_line(error)})") from error


_dvc_is_patched = False


class Recorder:
    """The stages of one run, each after those that it needs."""

    def __init__(self, workspace: Path, repo: Any, stages: dict[str, Any], needs: dict[str, list[str]]) -> None:
        self._lock, self._repo, self._stages, self.needs = workspace / LOCK, repo, stages, needs
        self._locked = [stage_of(line) for line in entries_of(self._lock)]
        given = {str(path) for path in self.given()}
        for stage in stages.values():
            for dep in stage.deps:
                if dep.fs_path in given:
                    freeze(dep)

    @property
    def names(self) -> list[str]:
        """All stages, each after those that it needs."""
        return list(self._stages)

    def given(self) -> list[Path]:
        """Return what stages read and no stage makes: files and folders."""
        outputs = [PurePosixPath(out.fs_path) for stage in self._stages.values() for out in stage.outs]
        inputs = dict.fromkeys(PurePosixPath(dep.fs_path) for stage in self._stages.values() for dep in stage.deps)
        return [Path(path) for path in inputs
                if not any(path.is_relative_to(out) or out.is_relative_to(path) for out in outputs)]

    def command(self, name: str) -> str:
        """Return what runs a stage."""
        return str(self._stages[name].cmd)

    def is_up_to_date(self, name: str) -> bool:
        """Whether a stage's outputs are those that `dvc.lock` has for the inputs that are here."""
        with contextlib.chdir(self._lock.parent), self._repo.lock:  # DVC takes some paths from where it runs
            return not self._stages[name].changed()

    def record(self, name: str) -> Work:
        """Take a stage's outputs over from the run cache, into the workspace and `dvc.lock`. Where the run cache does
        not have them, old outputs are removed, as before a stage runs.

        Raises:
            ValueError: DVC stopped.
        """
        stage = self._stages[name]
        inputs = [(dep, dep.hash_info, dep.meta) for dep in stage.deps]
        with contextlib.chdir(self._lock.parent), self._repo.lock:
            if not stage.outs_cached():  # DVC would look for the outputs of dvc.lock alone, which are those of others
                for out in stage.outs:
                    out.hash_info = type(out.hash_info)()
            try:
                with _nothing_computed():
                    stage.run()
            except NotComputed:
                missing = Work(_work_of(stage), is_recorded=False)
                for dep, hash_info, meta in inputs:  # so that DVC does not take old outputs for those of new inputs
                    dep.hash_info, dep.meta = hash_info, meta
                return missing
            stage.dump(update_pipeline=False)
            self._order_lock()
            return Work(_work_of(stage), is_recorded=True)

    def _order_lock(self) -> None:
        """Give dvc.lock the order of a run without jobs: what was there keeps its place, the rest follows as planned,
        whichever job was first.
        """
        entries = entries_of(self._lock)
        places = {name: place for place, name in enumerate(dict.fromkeys([*self._locked, *self._stages]))}
        wanted = sorted(entries, key=lambda line: places[stage_of(line)])
        if wanted != list(entries):
            write_bytes(self._lock, lock_text({line: entries[line] for line in wanted}).encode())


def freeze(dep: Any) -> None:
    """Let DVC see an input as it is now, whatever becomes of the file: jobs are made of what it was."""
    known: type[Any] = type(dep)
    with contextlib.suppress(OSError):  # what is not there, DVC tells of as ever
        hash_info = dep.get_hash()
        meta = dep.meta if "params" in hash_info.name else dep.get_meta()

        class Frozen(known):  # type: ignore[misc, valid-type]
            exists = True

            def get_hash(self) -> Any:
                return hash_info

            def status(self) -> dict[str, str]:
                return {} if self.hash_info == hash_info else {str(self): "modified"}

            def save(self) -> None:
                self.hash_info, self.meta = hash_info, meta

        dep.__class__ = Frozen


def entries_of(lock: Path) -> dict[str, str]:
    """Return the line with each stage's name -> its other lines; none without a dvc.lock of the usual form."""
    return lock_entries(lock.read_text("utf-8")) or {} if lock.is_file() else {}


def stage_of(line: str) -> str:
    """Return the stage that a line of dvc.lock begins."""
    return line.strip().removesuffix(":").strip("'\"")


def _work_of(stage: Any) -> str:
    """Identify what a stage computes: as DVC's run cache does, by command, inputs, parameters and names of outputs."""
    from dvc.stage.serialize import to_single_stage_lockfile

    content = to_single_stage_lockfile(stage)
    return fingerprint([content["cmd"], content.get("params"), [[dep["path"], dep.get("md5")]
                                                                 for dep in content.get("deps", [])],
                        [out.def_path for out in stage.outs]])


@contextlib.contextmanager
def _nothing_computed() -> Iterator[None]:
    from dvc.stage import run

    def refuse(stage: Any, **settings: Any) -> None:
        raise NotComputed(stage.addressing)

    before, run.cmd_run = run.cmd_run, refuse
    try:
        yield
    finally:
        run.cmd_run = before
