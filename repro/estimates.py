"""What a run would do with each stage, and what it would take: time, memory, disk, downloads.

A time is *measured* where the stage last ran with the same parameters; else the stage's rows (`repblend.costs`) times
what a row takes: *rehearsed* on this machine (`repro rehearse`), *scaled* from the run of a like stage, *published*
(minutes per expert and seconds per iteration on the authors' GPUs), or *estimated* by multiply-adds alone. Sizes of
outputs follow from the widths of encoders and heads.
"""

import contextlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Any

from repblend.costs import (
    ENCODER_EXPERT,
    ENCODER_SCORED,
    ENCODER_STUDENT,
    IMAGE_ENCODERS,
    PAPERS_ENCODERS,
    PUBLISHED,
    PUBLISHED_BATCH,
    PUBLISHED_GIB,
    TEXT_ENCODERS,
    Counts,
    Rehearsal,
    Work,
    counts_of,
    estimated_seconds,
    papers_params,
    setting_of,
    unimodal_bytes,
    with_encoders_of,
    work_of,
)
from repblend.encoders.hub import checkpoint_of, is_here
from repblend.grid import Cell
from repblend.params import Params
from repblend.params.experts import Experts
from repblend.params.reading import validated
from repblend.records.base import Run
from repblend.runtime.locked import LOCK, Lock
from repblend.runtime.provenance import read_runs
from repblend.runtime.settings import SETTINGS
from repblend.store import JSON
from repblend.ufc.params import UfcParams
from repro.artifacts.remote import dvc_repository
from repro.course import machine_seconds
from repro.fetch.datasets import how_to_bring
from repro.fetch.download import size_in_words
from repro.pipeline import KINDS
from repro.workspace import named_stages

# What `repro run` would do with each stage: nothing, bring it from the cache, or run it. Nothing is written.


class State(StrEnum):
    """What a run would find of a stage."""

    DONE = "up to date"
    CACHED = "in the cache"
    RUNS = "runs"


@dataclass(frozen=True)
class PlannedStage:
    """A stage of the pipeline."""

    name: str
    """As DVC calls it, for example `distill-encoder@lors-100`."""
    run: str
    """As `runs.jsonl` does: `distill@lors-100`."""
    state: State
    needs: tuple[str, ...] = ()
    """Names of the planned stages that it needs."""

    @property
    def module(self) -> str:
        """What runs it: `distill`."""
        return self.run.partition("@")[0]


def planned_stages(workspace: Path, targets: Iterable[str], settings: Mapping[Path, str]) -> list[PlannedStage]:
    """Return the stages that the targets need (all if there are none), each after those that it needs itself; but for
    `settings` and `report`, which take seconds.

    Args:
        settings: file of stage `settings` -> MD5 that it will have: known before that stage runs.

    Raises:
        ValueError: this is no workspace, or a target is no stage of it.
    """
    from dvc.repo.reproduce import plan_repro  # slow to import

    with dvc_repository(workspace) as repo, repo.lock:
        stages = {stage.name: stage for stage in repo.index.stages}
        graph, made = repo.index.graph, {Path(out.fs_path) for stage in stages.values() for out in stage.outs}
        planned: dict[str, PlannedStage] = {}
        for stage in plan_repro(graph, [stages[name] for name in named_stages(workspace, stages, targets)]):
            words = stage.cmd.split()[3:]  # of: python -m PACKAGE MODULE [CELL]
            if words and stage.name != SETTINGS:
                needs = tuple(before.name for before in graph.successors(stage) if before.name in planned)
                waits = any(planned[name].state is State.RUNS for name in needs)
                state = State.RUNS if waits else _state(stage, made, settings)
                planned[stage.name] = PlannedStage(stage.name, "@".join(words), state, needs)
        return list(planned.values())


def _state(stage: Any, made: Collection[Path], settings: Mapping[Path, str]) -> State:
    """Return the state of a DVC stage whose needed stages do not run; `made` is what stages write."""
    def is_changed(dep: Any) -> bool:
        path = Path(dep.fs_path)
        return dep.hash_info.value != settings[path] if path in settings else path not in made and bool(dep.status())

    if stage.changed_stage() or any(map(is_changed, stage.deps)):
        return State.RUNS
    if all(out.exists and not out.changed_checksum() for out in stage.outs):
        return State.DONE
    here = all(out.exists or (out.use_cache and out.hash_info and not out.changed_cache()) for out in stage.outs)
    return State.CACHED if here else State.RUNS


# How long stages take.


@dataclass(frozen=True)
class Ran:
    """A workspace that has run: its stages' last runs, those with these parameters, on so much data."""

    runs: Mapping[str, Run]
    params: Params | UfcParams
    counts: Counts | None

    @cached_property
    def seconds(self) -> Mapping[str, float]:
        """Of the machine, for each run."""
        return machine_seconds((run.stage, run.started, run.wall_seconds, run.beside) for run in self.runs.values())


def runs_of(workspace: Path) -> Ran | None:
    """Return what ran in a workspace with the parameters that dvc.lock has of its last run; None if nothing did. What
    ran with others before is left out: nothing says with which.

    Raises:
        ValueError: `runs.jsonl` or `dvc.lock` is not as expected.
    """
    runs = [run for run in read_runs(workspace / "runs.jsonl") if not run.resumed]  # the time of others is a part
    lock = workspace / LOCK
    settings = Lock.read(lock).stages.get(SETTINGS) if runs and lock.is_file() else None
    for kind in KINDS.values() if settings else ():
        with contextlib.suppress(ValueError):
            params = validated(kind.params, settings.params.get("params.yaml"), str(lock))
            return Ran({run.stage: run for run in runs if run.parameters_sha256 in (
                None, parameters_sha256(params, run.stage))}, params, counts_of(workspace, params))
    return None


def parameters_sha256(params: Params | UfcParams, run: str) -> str | None:
    """Identify the parameters of a stage, named as in `runs.jsonl`; None if they have none for it."""
    pipeline = next(kind.pipeline for kind in KINDS.values() if isinstance(params, kind.params))
    stage, _, cell = run.partition("@")
    try:
        parsed = pipeline.parse_cell(stage, cell) if cell else None
        return pipeline.settings(params, stage, parsed, Path(), lambda source: NOT_ASKED).parameters_sha256
    except (KeyError, ValueError):
        return None


NOT_ASKED = "0" * 64
"""In the place of a source's SHA-256."""


@dataclass(frozen=True)
class Estimate:
    """What one stage needs, as far as it is known."""

    seconds: float | None = None
    """None: a matter of minutes at most, or the data set's size is not known."""
    basis: str = ""
    """`measured`, `rehearsed`, `scaled`, `published` or `estimated`: of most of the time."""
    memory_gib: float | None = None
    gpu_gib: float | None = None
    kinds: Mapping[str, float] = field(default_factory=dict, compare=False)
    """Kind of row -> its seconds, where they are counted so."""
    by_multiply_adds: float | None = None
    """Seconds if published rates grow with the multiply-adds of other encoders than they are of."""


@dataclass(frozen=True)
class Known:
    """What a plan is made from."""

    params: Params | UfcParams
    """Of the workspace that the plan is for, as are the counts of its data set."""
    counts: Counts | None
    ran: Sequence[Ran]
    """Workspaces that have run, this one first."""
    rehearsals: Sequence[Rehearsal]
    """This one's first."""

    def estimate(self, stage: PlannedStage) -> Estimate:
        """Return what a stage needs."""
        wanted = parameters_sha256(self.params, stage.run)
        for found in self.ran:
            run = found.runs.get(stage.run)
            if run and wanted and wanted == parameters_sha256(found.params, stage.run):
                return Estimate(found.seconds[run.stage], "measured", run.peak_memory_mib / 1024,
                                run.gpu.peak_memory_mib / 1024 if run.gpu else None)
        work = work_of(stage.run, self.params, self.counts)
        if not work or not any(work.values()):
            return Estimate()
        seconds: dict[str, float] = defaultdict(float)
        kinds: dict[str, float] = {}
        for kind, rows in work.items():
            each, basis = self._row(kind)
            kinds[kind] = rows * each
            seconds[basis] += kinds[kind]
        likeliest = max(seconds, key=lambda basis: seconds[basis])
        if likeliest == "estimated" and (scaled := self._scaled(stage, work)) is not None:
            return Estimate(scaled, "scaled", kinds=kinds)
        return Estimate(sum(seconds.values()), likeliest, *self._memory(stage, work), kinds,
                        self._by_multiply_adds(kinds) if likeliest == "published" else None)

    def _by_multiply_adds(self, kinds: Mapping[str, float]) -> float | None:
        if _is_papers(self.params) or not isinstance(self.params, Params):
            return None
        papers = papers_params(self.params)
        return sum(seconds * estimated_seconds(kind, self.params, self.counts)
                   / estimated_seconds(kind, papers, self.counts) for kind, seconds in kinds.items())

    def _row(self, kind: str) -> tuple[float, str]:
        """Return the seconds of a row of a kind, and how they are known."""
        for found in self._rehearsed(kind):
            if found.seconds is not None:
                return found.seconds / found.rows, "rehearsed"
        if kind in PUBLISHED and self.params.compute.device == "cuda":
            return PUBLISHED[kind], "published"
        return estimated_seconds(kind, self.params, self.counts), "estimated"

    def _rehearsed(self, kind: str) -> Iterator[Any]:
        return (found for rehearsal in self.rehearsals if rehearsal.setting == setting_of(self.params)
                for found in rehearsal.found if found.kind == kind)

    def _memory(self, stage: PlannedStage, work: Work) -> tuple[float | None, float | None]:
        """Return the most GiB of main memory and of a GPU that a kind of row took, or is published to take; main memory
        else as it was measured without an encoder in training, and the pixels that students are scored on.
        """
        found = [next(self._rehearsed(kind), None) for kind in work]
        main = [each.memory_mib / 1024 for each in found if each]
        gpu = [each.gpu_memory_mib / 1024 for each in found if each and each.gpu_memory_mib]
        if isinstance(self.params, Params) and self.counts and self.params.compute.device == "cuda" and not main:
            held_out = self.counts.val_images + self.counts.test_images
            pixels = held_out * 3 * self.params.data.image_size ** 2 * BYTES["float32"] / 2**30
            main = [PROCESS_GIB + pixels * any(kind in ON_PIXELS for kind in work)]
        batch = PUBLISHED_BATCH
        if isinstance(self.params, Params) and stage.module == "distill":
            batch = max(batch, self.params.distill.settings(stage.run.partition("@")[2]).batch_size)
        published = [PUBLISHED_GIB[kind] * batch / PUBLISHED_BATCH for kind in work if kind in PUBLISHED_GIB]
        return max(main, default=None), max(gpu or (published if _is_papers(self.params) else []), default=None)

    def _scaled(self, stage: PlannedStage, work: Work) -> float | None:
        """Return the time of the likest stage that ran, with these encoders if any did, times the ratio of both's
        estimated times; None if none ran on such images on such a machine.
        """
        asked = cell_of(stage.run)
        for but_for in ((), ("encoders", "width")):
            for found in self.ran:
                like = [run for run in found.runs.values() if run.stage.partition("@")[0] == stage.module
                        and _kind_of(cell_of(run.stage)) == _kind_of(asked)]
                for run in sorted(like, key=lambda run: _likeness(cell_of(run.stage), asked)):
                    params, then = with_encoders_of(run.stage, found.params), work_of(
                        run.stage, found.params, found.counts)
                    if then and _agree(setting_of(params), setting_of(self.params), but_for):
                        return found.seconds[run.stage] * self._estimated(work) / Known(
                            params, found.counts, (), ())._estimated(then)
        return None

    def _estimated(self, work: Work) -> float:
        return sum(rows * estimated_seconds(kind, self.params, self.counts) for kind, rows in work.items())


def _agree(one: JSON, other: JSON, but_for: Sequence[str]) -> bool:
    return all(one.get(key) == other.get(key) for key in one.keys() | other.keys() if key not in but_for)


def _is_papers(params: Params | UfcParams) -> bool:
    return isinstance(params, Params) and (params.encode.image_encoder, params.encode.text_encoder) == PAPERS_ENCODERS


def cell_of(stage: str) -> Cell | None:
    """Return the cell of a stage of the multimodal grid, `distill@lors-100`; None of any other."""
    try:
        return Cell.parse(stage.partition("@")[2])
    except ValueError:
        return None


def _kind_of(cell: Cell | None) -> tuple[bool, bool] | None:
    return (cell.is_coreset, cell.trains_encoder) if cell else None


def _likeness(cell: Cell | None, wanted: Cell | None) -> tuple[bool, bool, bool, int]:
    """Sort the same cell first, then the same variant, the same method, and the largest budget: least of it is fixed.
    """
    if cell is None or wanted is None:
        return False, False, False, 0
    cell, wanted = cell.without_seed, wanted.without_seed  # other draws of the same work
    return cell != wanted, cell.method != wanted.method, cell.base_method != wanted.base_method, -cell.budget


# What stages write, and what has to be fetched before.

BYTES = {"float32": 4, "float16": 2}
PROCESS_GIB = 3.4
"""The most that a process took that trains no encoder: profiles/README.md."""
ON_PIXELS = (ENCODER_EXPERT, ENCODER_STUDENT, ENCODER_SCORED)
"""Kinds whose students are scored on held-out images as pixels, which are in memory."""


def output_bytes(stage: PlannedStage, params: Params | UfcParams, counts: Counts | None) -> float | None:
    """Return the bytes of a stage's large outputs; None where they are small, or follow from nothing that is known."""
    if isinstance(params, UfcParams):
        return unimodal_bytes(stage.run, params)
    if (params.encode.image_encoder not in IMAGE_ENCODERS
            or params.encode.text_encoder not in TEXT_ENCODERS or counts is None):
        return None
    image, encoder_parameters, _ = IMAGE_ENCODERS[params.encode.image_encoder]
    text, width = TEXT_ENCODERS[params.encode.text_encoder][0], params.heads.width

    def head(inputs: int, outputs: int) -> int:
        return (inputs + outputs + 4) * outputs  # two linear layers and a normalisation

    def trajectories(experts: Experts, parameters: int) -> float:
        return BYTES["float32"] * experts.num * experts.num_snapshots(counts.train_captions) * parameters

    match stage.module, cell_of(stage.run):
        case "encode", _:
            training = counts.train_images * params.encode.views.num * image + counts.train_captions * text
            others = ((counts.val_images + counts.test_images) * image
                      + (counts.val_captions + counts.test_captions) * text)
            return BYTES[params.encode.storage] * training + BYTES["float32"] * others
        case "experts", _:
            return trajectories(params.experts, head(image, width) + head(text, width))
        case "encoder-experts", _:
            return trajectories(params.encoder_experts, encoder_parameters + head(text, image))
        case "distill" | "select", Cell(budget=budget):
            return BYTES["float32"] * budget * (3 * params.data.image_size ** 2 + text)
    return None


def missing(params: Params | UfcParams, root: Path) -> list[str]:
    """Return a line for each thing that has to be fetched into the clone at `root`, with its size and the command;
    raises `ValueError` if an encoder's name leads nowhere.
    """
    lines = []
    for name in params.encoders if isinstance(params, Params) else ():
        if (checkpoint := checkpoint_of(name)) and not is_here(checkpoint, root):
            size = size_in_words(checkpoint.num_bytes) if checkpoint.num_bytes else "?"
            lines.append(f"checkpoint {name}: {size}, `repro checkpoints fetch {name}`")
    folder = getattr(params.data, "folder", None)
    # No manifest is ever written of labelled images.
    if folder and not (root / folder / ("manifest.json" if isinstance(params, Params) else "")).exists():
        lines.append(f"data set {params.data.name}: not in {root / folder}, or not checked. "
                     f"{how_to_bring(params.data.name, folder)}")
    return lines
