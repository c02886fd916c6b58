"""What `repro run` would do with each stage: nothing, bring it from the cache, or run it. Nothing is written."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from repblend.stages.context import Cell
from repro.remote import dvc_repository


class State(StrEnum):
    """What a stage is in for."""

    DONE = "up to date"
    CACHED = "in the cache"
    RUNS = "runs"


@dataclass(frozen=True)
class PlannedStage:
    """A stage of the pipeline."""

    name: str
    """As DVC calls it, for example `distill-encoder@lors-100`."""
    module: str
    """What runs it, for example `distill`."""
    argument: str | None
    """What it is run for: a cell, for example `lors-100`."""
    state: State

    @property
    def record(self) -> str:
        """The name of its run record."""
        return f"{self.module}@{self.argument}" if self.argument else self.module

    @property
    def cell(self) -> Cell | None:
        """The argument as a cell of the multimodal grid; raises `ValueError` if it is none."""
        return Cell.parse(self.argument) if self.argument else None


def planned_stages(root: Path, targets: Iterable[str]) -> list[PlannedStage]:
    """Return the stages that the targets need (all if there are none), each after those that it needs itself.

    The report is left out: it is always made, within a minute.

    Raises:
        ValueError: `root` is no workspace, or a target is no stage of it.
    """
    with dvc_repository(root) as repo, repo.lock:
        stages = {stage.name: stage for stage in repo.index.stages if Path(stage.wdir) == root.resolve()}
        if unknown := set(targets) - set(stages):
            raise ValueError(f"{root / 'dvc.yaml'}: it has no stage {', '.join(sorted(unknown))}; expected some of "
                             f"{', '.join(stages)}")
        needs = {name: [before.name for before in repo.index.graph.successors(stage)]
                 for name, stage in stages.items()}
        made = {out.fs_path for stage in stages.values() for out in stage.outs}
        states: dict[str, State] = {}
        for name in _in_order(targets or stages, needs):
            waits = any(states[before] is State.RUNS for before in needs[name])
            states[name] = State.RUNS if waits else _state(stages[name], made)
        return [_planned(name, stages[name].cmd, state) for name, state in states.items() if name != "report"]


def _in_order(targets: Iterable[str], needs: dict[str, list[str]]) -> list[str]:
    order: dict[str, None] = {}

    def visit(name: str) -> None:
        if name not in order:
            for before in needs[name]:
                visit(before)
            order[name] = None

    for target in targets:
        visit(target)
    return list(order)


def _planned(name: str, command: str, state: State) -> PlannedStage:
    _, _, _, module, *argument = command.split()
    return PlannedStage(name, module, argument[0] if argument else None, state)


def _state(stage: Any, made: Collection[str]) -> State:
    """Return the state of a DVC stage whose needed stages do not run; `made` is what stages write."""
    sources = [dep for dep in stage.deps if dep.fs_path not in made]
    if stage.changed_stage() or any(dep.status() for dep in sources):
        return State.RUNS
    if all(out.exists and not out.changed_checksum() for out in stage.outs):
        return State.DONE
    here = all(out.exists if not out.use_cache else out.exists or _is_cached(out) for out in stage.outs)
    return State.CACHED if here else State.RUNS


def _is_cached(out: Any) -> bool:
    return bool(out.hash_info) and not out.changed_cache()
