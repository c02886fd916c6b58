"""How long stages take, how much memory they need, and how one knows: measured, extrapolated, or published.

Measured: the run record of the same stage in the same workspace. Extrapolated: the time of the same kind of stage in
the repository's own grid, times the ratio of their work (`repro.plan_work`). Published: times and GPU memory of the
paper's own runs (PAPER.md sections 5.4 and 8), for its encoders only; their hardware is not stated exactly.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from repblend.params import Params
from repblend.stages.cell_rules import is_coreset, trains_encoder
from repblend.stages.context import Cell
from repblend.store import JSON, read_json
from repro.plan_state import PlannedStage
from repro.plan_work import Counts, Workload, work

PUBLISHED_ENCODERS = ("nfnet_l0", "bert-base-uncased")
MINUTES_PER_EXPERT = {"experts": 40, "encoder-experts": 70}
SECONDS_PER_ITERATION = {"repblend": 1.71, "lors": 11.5}
GPU_GIB = {"repblend": 10.17, "lors": 21.78}


EXTRAPOLATED = "extrapolated"
ON_A_CPU = "extrapolated, CPU"
"""Where the pipeline computes on a GPU: the grid that it is extrapolated from ran on a CPU."""


@dataclass(frozen=True)
class Estimate:
    """What one stage needs, as far as it is known."""

    seconds: float | None
    basis: str
    """`measured`, `EXTRAPOLATED`, `ON_A_CPU`, or why there is no estimate."""
    peak_mib: float | None
    """Main memory when this stage last ran, in MiB."""
    published_gpu_seconds: float | None
    published_gpu_gib: float | None


@dataclass(frozen=True)
class Grid:
    """A pipeline with the run records of what has run of it."""

    load: Workload | None
    """None where the size of its dataset is not known yet."""
    params: Params | None
    """None where it is of another kind than the multimodal pipeline."""
    records: dict[str, JSON]

    @classmethod
    def of(cls, root: Path, params: Params | None, counts: Counts | None) -> "Grid":
        """Read the records of a workspace."""
        files = sorted((root / "metrics" / "runs").glob("*.json"))
        records = {record["stage"]: record for record in map(read_json, files) if "stage" in record}
        return cls(Workload(params, counts) if counts else None, params, records)


def estimate(stage: PlannedStage, grid: Grid, reference: Grid) -> Estimate:
    """Return what a stage of `grid` needs; `reference` is a grid that has run, with everything known about it."""
    seconds, basis = _seconds(stage, grid, reference)
    record = grid.records.get(stage.record)
    gpu_seconds, gpu_gib = _published(stage, grid.params) if grid.params else (None, None)
    return Estimate(seconds, basis, record and record["peak_memory_mib"], gpu_seconds, gpu_gib)


def _seconds(stage: PlannedStage, grid: Grid, reference: Grid) -> tuple[float | None, str]:
    if record := grid.records.get(stage.record):
        return record["wall_seconds"], "measured"
    if grid.params is None:
        return None, "nothing like it has run"
    if grid.load is None:
        return None, "the dataset's size is not known"
    alike = [(name, cell) for name, module, cell in _recorded(reference) if module == stage.module
             and _kind(cell, reference.params) == _kind(stage.cell, grid.params)]
    if not alike:
        return None, "nothing like it has run"
    name, cell = max(alike, key=lambda entry: _likeness(entry[1], stage.cell))
    try:
        ratio = work(stage.module, stage.cell, grid.load) / work(stage.module, cell, reference.load)
    except ValueError as error:
        return None, str(error)
    basis = EXTRAPOLATED if grid.params.compute.device == "cpu" else ON_A_CPU
    return reference.records[name]["wall_seconds"] * ratio, basis


def _recorded(grid: Grid) -> Iterator[tuple[str, str, Cell | None]]:
    for name in grid.records:
        module, _, cell = name.partition("@")
        yield name, module, Cell.parse(cell) if cell else None


def _kind(cell: Cell | None, params: Params) -> tuple[bool, bool] | None:
    """Cells of one kind cost alike: coresets or distilled sets, students that train heads or the image encoder."""
    return (is_coreset(cell, params), trains_encoder(cell, params)) if cell else None


def _likeness(cell: Cell | None, wanted: Cell | None) -> tuple[bool, bool, int]:
    """The same variant comes first, then the same method, then the largest budget: it has the least that is fixed."""
    if cell is None:
        return True, True, 0
    return cell.method == wanted.method, cell.base_method == wanted.base_method, cell.budget


def _published(stage: PlannedStage, params: Params) -> tuple[float | None, float | None]:
    """Return the seconds and the GPU memory in GiB that were published for a stage, as far as they were."""
    if (params.encode.image_encoder, params.encode.text_encoder) != PUBLISHED_ENCODERS:
        return None, None
    if stage.module in MINUTES_PER_EXPERT:
        experts = params.experts if stage.module == "experts" else params.encoder_experts
        return 60.0 * MINUTES_PER_EXPERT[stage.module] * experts.num, None
    if stage.module == "distill" and stage.cell.method in SECONDS_PER_ITERATION:
        iterations = params.distill.settings(str(stage.cell)).iterations
        return SECONDS_PER_ITERATION[stage.cell.method] * iterations, GPU_GIB[stage.cell.method]
    return None, None
