"""RepBlend's claims on the records of a workspace: which numbers a claim compares, and of which sets.

Sets of a method at a budget are found by the names of their cells: `METHOD-BUDGET` has seed 0, and
`METHOD+seed-N-BUDGET` seed N. Where numbers are looked for is a class, so that `repro claims` can look into the metrics
that git keeps where records were not brought.

Nothing here imports matplotlib.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

from repblend.methods import find_method
from repblend.params import read_params
from repblend.params.grid import base_method, seed_apart
from repblend.records.results import AccuracyProtocol, MethodCost, Protocol
from repblend.report.claims import MEASURES, START, Entry, check_methods, read_entries
from repblend.report.grid_records import EFFICIENCY, GridRecords
from repblend.report.intervals import SetResult, measured_once, over_rounds
from repblend.report.table import Table
from repblend.report.verdicts import Claim, Found, Trial, claims_table, counted_trial, judge, ratio_trial, trial
from repblend.stages.pipeline import Context
from repblend.titles import TITLES, full_title

PARTS = 10
"""Of a course: the last one counts where noise of single iterations is averaged."""
Read = Callable[[str, str, str], tuple[SetResult, str] | None]
"""From a method, a metric and a cell to what the cell's set reaches, and the file that has it; None if not run."""


def seeds_of(names: Iterable[str], cell: str) -> dict[int, str]:
    """Return the sets of a cell among names, by their seeds: `repblend-50` is 0, `repblend+seed-2-50` is 2."""
    method, _, budget = cell.rpartition("-")
    found = {}
    for name in names:
        other, _, pairs = name.rpartition("-")
        plain, seed = seed_apart(other)
        if (plain, pairs) == (method, budget):
            found[seed] = name
    return {seed: found[seed] for seed in sorted(found)}


@dataclass(frozen=True)
class Evidence:
    """Where a claim's numbers are: in the records of a workspace, as its report shows them."""

    records: GridRecords

    @cached_property
    def cells(self) -> Mapping[str, Sequence[str]]:
        """Stage -> the cells that the workspace's parameters ask for; records of others are nobody's results."""
        found: dict[str, list[str]] = {}
        for stage, cell in Context.pipeline.cells(read_params(self.records.root / "params.yaml")):
            found.setdefault(stage, []).append(str(cell))
        return found

    def recall(self, cell: str, metric: str) -> tuple[SetResult, str] | None:
        """Return what the students of one cell reach, and the file that says so; raises as `GridRecords.evaluation`."""
        found = self.records.evaluation(cell)
        return (of_students(found.protocols.held_out, metric), self.records.file("evaluate", cell)) if found else None

    def trajectory_bytes(self, encoder: bool) -> tuple[int, str] | None:
        """Return the bytes of an expert's trajectory, and the file that says so; raises as `GridRecords.evaluation`.

        Args:
            encoder: of the experts that train the whole encoder.
        """
        found = self.records.encoder_experts() if encoder else self.records.experts()
        return (found.trajectory_bytes, f"records/{'encoder-' * encoder}experts.json") if found else None

    def sets(self, stage: str, cell: str, read: Callable[[str], tuple[SetResult, str] | None]) -> Found:
        """Return the sets of a cell and its further seeds that a stage has, and `read` finds."""
        found = {seed: read(name) for seed, name in seeds_of(self.cells.get(stage, ()), cell).items()}
        return {seed: each for seed, each in found.items() if each}


def of_students(found: Protocol | AccuracyProtocol, metric: str) -> SetResult:
    """Return what one set reaches by a protocol."""
    return SetResult(getattr(found.mean, metric), getattr(found.std, metric), len(found.seeds))


def claims(records: GridRecords) -> list[Claim]:
    """Return every claim about RepBlend with what this workspace's records say of it.

    Raises:
        ValueError: as `read_entries`, `published_effects` and `GridRecords.evaluation`.
    """
    return claims_of(Evidence(records))


def claims_of(evidence: Evidence) -> list[Claim]:
    """Likewise, from any evidence."""
    root = evidence.records.repository
    entries = read_entries(root, "repblend")
    check_methods(root, entries, lambda name: base_method(name) in TITLES,
                  f"one of {', '.join(TITLES)}, or a variant of it")
    return [judge(root, entry, TRIALS[entry.measure](evidence, entry)) for entry in entries]


# Every measure: from an entry to its comparisons.


def _compared(evidence: Evidence, entry: Entry, stage: str, every: Sequence[int], read: Read,
              *more: str) -> Iterator[Trial]:
    """Compare what `read` finds of a stage's cells, at every budget, by every metric, with every other method.

    Args:
        every: budgets where the entry asks for all.
        more: what else sets these comparisons apart.
    """
    for budget in every if entry.budgets == "all" else entry.budgets:
        for metric in entry.metrics:
            first, *others = (evidence.sets(stage, f"{entry.first if method == START else method}-{budget}",
                                            partial(read, method, metric)) for method in (entry.first, *entry.second))
            named = [metric.replace("_", " ")] * (len(entry.metrics) > 1)
            for method, other in zip(entry.second, others, strict=True):
                yield trial(", ".join([f"{budget} pairs", *more, *named]), _against(method), first, other,
                            MEASURES[entry.measure].digits)


def _against(method: str) -> str:
    return "its own start" if method == START else full_title(method)


def _recall(evidence: Evidence, entry: Entry) -> Iterator[Trial]:
    grid = evidence.records.grid
    of_pair = entry.first.partition("+")[2] in grid.pairs
    return _compared(evidence, entry, "evaluate", grid.pair_budgets if of_pair else grid.budgets,
                     lambda method, metric, cell: evidence.recall(cell, metric))


def _transfer(evidence: Evidence, entry: Entry) -> Iterator[Trial]:
    records = evidence.records
    budgets = records.grid.compared_budgets if entry.budgets == "all" else entry.budgets
    encoders = dict.fromkeys(name for budget in budgets if (found := records.transfer(f"{entry.first}-{budget}"))
                             for name in found.architectures)

    def reached(encoder: str, method: str, metric: str, cell: str) -> tuple[SetResult, str] | None:
        found = records.transfer(cell)
        scores = found.architectures.get(encoder) if found else None
        return (of_students(scores.protocols.held_out, metric), records.file("transfer", cell)) if scores else None

    for encoder in encoders or ["other encoders"]:  # without any the comparison is named as not run
        yield from _compared(evidence, entry, "transfer", budgets, partial(reached, encoder), encoder)


def _of_stage(stage: str, read: Callable[[GridRecords, str, str, str], SetResult | None], evidence: Evidence,
              entry: Entry) -> Iterator[Trial]:
    """Compare what `read` finds, by method and metric, in the record of a cell that a stage wrote."""
    records = evidence.records
    budgets = records.grid.budgets if stage == "distill" else records.grid.compared_budgets

    def found(method: str, metric: str, cell: str) -> tuple[SetResult, str] | None:
        result = read(records, method, metric, cell)
        return (result, records.file(stage, cell)) if result else None

    return _compared(evidence, entry, stage, budgets, found)


def _task(records: GridRecords, method: str, task: str, cell: str) -> SetResult | None:
    found = records.transfer(cell)
    tried = getattr(found.zero_shot, task) if found else None
    return of_students(tried.protocols.held_out, "mean_recall" if task == "icons" else "accuracy") if tried else None


def _collapse(records: GridRecords, method: str, metric: str, cell: str) -> SetResult | None:
    found = records.embedding(cell)
    each = found.measures.get(metric) if found else None
    return SetResult(each.mean, each.std or 0.0, len(each.values)) if each else None


def _course(records: GridRecords, method: str, metric: str, cell: str) -> SetResult | None:
    course = records.course(cell)
    return SetResult(getattr(course.checkpoints, metric)[0 if method == START else -1]) if course else None


def _sides(records: GridRecords, method: str, metric: str, cell: str) -> SetResult | None:
    course = records.course(cell)
    if course is None:
        return None
    image, text = course.curves.matching_loss_img, course.curves.matching_loss_txt
    last = max(1, len(image) // PARTS)
    return SetResult(abs(sum(image[-last:]) - sum(text[-last:])) / last)


def _cost(evidence: Evidence, entry: Entry) -> Iterator[Trial]:
    measured = evidence.records.efficiency()
    where = f"{measured.budget} pairs of {measured.image_size} pixels" if measured else "not measured"
    for metric in entry.metrics:
        for method in entry.second:
            costs = [measured.methods.get(name) if measured else None for name in (entry.first, method)]
            first, second = (None if cost is None else COSTS[metric](cost) for cost in costs)
            effect = (over_rounds(first, second) if len(first) > 1 else measured_once(first[0], second[0])
                      ) if first and second else None
            words = f"{where}, {metric.replace('_', ' ')}" if len(entry.metrics) > 1 else where
            yield ratio_trial(words, _against(method), first and first[0], second and second[0], effect, [EFFICIENCY])


COSTS: dict[str, Callable[[MethodCost], tuple[float, ...]]] = {
    "time_per_iteration": lambda cost: (
        cost.seconds_per_iteration.median, cost.seconds_per_iteration.min, cost.seconds_per_iteration.max),
    "peak_memory": lambda cost: (cost.peak_memory_mib,),
    "time_per_trajectory": lambda cost: (cost.seconds_per_trajectory,)}
"""Metric -> median, lowest and highest over rounds, or the one number there is."""


def _trajectory(evidence: Evidence, entry: Entry) -> Iterator[Trial]:
    for method in entry.second:
        found = (evidence.trajectory_bytes(find_method(name).matched == "image-encoder")
                 for name in (entry.first, method))
        yield counted_trial("bytes of one expert", _against(method), *found)


TRIALS: dict[str, Callable[[Evidence, Entry], Iterator[Trial]]] = {
    "recall": _recall, "transfer": _transfer, "task": partial(_of_stage, "transfer", _task),
    "collapse": partial(_of_stage, "embed", _collapse), "course": partial(_of_stage, "distill", _course),
    "sides": partial(_of_stage, "distill", _sides), "cost": _cost, "trajectory": _trajectory}
"""Measure of an entry -> what makes its comparisons."""


def records_table(records: GridRecords) -> Table:
    """Return every comparison behind the claims; raises as `claims`."""
    return claims_table(claims(records))
