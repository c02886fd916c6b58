"""UFC's claims on the records of a workspace: which numbers a claim compares, and of which sets.

A set with its labels is `ufc+static` in `paper/claims.yaml`; comparisons are made for every budget and every kind of
student. Sets of one kind differ in the draw of their real images (`seeds`).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from repblend.report.claims import MEASURES, Entry, check_methods, read_entries
from repblend.report.intervals import SetResult
from repblend.report.table import Table
from repblend.report.verdicts import Claim, Found, Trial, claims_table, counted_trial, judge, trial
from repblend.ufc.records import DecisionRegions, Validated
from repblend.ufc.report.ufc_records import LABELS, SETS, UfcRecords, kind_title, student_title
from repblend.ufc.stages.pipeline import StudentCell

KINDS = tuple(f"{name}+{labels}" for name in SETS for labels in LABELS)
"""What `first` and `second` of an entry may be."""
Read = Callable[[str, str], tuple[SetResult, str] | None]
"""From a metric and a cell to what the cell's set reaches, and the file that has it; None if not run."""


@dataclass(frozen=True)
class UfcEvidence:
    """Where a claim's numbers are: in the records of a workspace, as its report shows them."""

    records: UfcRecords

    def accuracy(self, metric: str, cell: str) -> tuple[SetResult, str] | None:
        """Return what the students of one cell reach, and the file that says so; raises as `UfcRecords.find`."""
        found = self.records.find(Validated, cell)
        if found is None:
            return None
        std = getattr(found.std, metric) if found.std else 0.0
        return SetResult(getattr(found.mean, metric), std, len(found.seeds)), self.records.file(Validated, cell)

    def disagreement(self, metric: str, cell: str) -> tuple[SetResult, str] | None:
        """Likewise of decision regions, which one student has."""
        found = self.records.find(DecisionRegions, cell)
        return (SetResult(found.disagreement), self.records.file(DecisionRegions, cell)) if found else None

    def passes(self, cell: str) -> tuple[int, str] | None:
        """Return the images that go through teachers for one student; raises as `UfcRecords.find`."""
        found = self.records.find(Validated, cell)
        return (found.cost.teacher_passes, self.records.file(Validated, cell)) if found else None


def claims(records: UfcRecords) -> list[Claim]:
    """Return every claim about UFC with what this workspace's records say of it.

    Raises:
        ValueError: as `read_entries`, `published_effects` and `UfcRecords.find`.
    """
    return claims_of(UfcEvidence(records))


def claims_of(evidence: UfcEvidence) -> list[Claim]:
    """Likewise, from any evidence."""
    root = evidence.records.paths.repository
    entries = read_entries(root, "ufc")
    check_methods(root, entries, KINDS.__contains__, f"one of {', '.join(KINDS)}")
    return [judge(root, entry, TRIALS[entry.measure](evidence, entry)) for entry in entries]


def records_table(records: UfcRecords) -> Table:
    """Return every comparison behind the claims; raises as `claims`."""
    return claims_table(claims(records))


def _places(evidence: UfcEvidence, entry: Entry, students: list[str]) -> Iterator[tuple[int, str, str, str]]:
    """Yield budget, student, metric, and what these are called, of every comparison with one other kind."""
    for budget in evidence.records.params.budgets if entry.budgets == "all" else entry.budgets:
        for student in students:
            for metric in entry.metrics:
                more = [student_title(student)] * (len(students) > 1) + [metric] * (len(entry.metrics) > 1)
                yield budget, student, metric, ", ".join([f"{budget} per class", *more])


def _compared(read_of: Callable[[UfcEvidence], Read], all_students: bool, evidence: UfcEvidence, entry: Entry
              ) -> Iterator[Trial]:
    students, read = evidence.records.params.validation.students, read_of(evidence)

    def sets(kind: str, student: str, budget: int, metric: str) -> Found:
        first = StudentCell.parse(f"{kind}+{student}-{budget}")
        return {drawn.set.seed: found for drawn in first.draws(evidence.records.params)
                if (found := read(metric, str(drawn)))}

    for budget, student, metric, where in _places(evidence, entry, list(students if all_students else students[:1])):
        for kind in entry.second:
            yield trial(where, kind_title(*kind.split("+")), sets(entry.first, student, budget, metric),
                        sets(kind, student, budget, metric), MEASURES[entry.measure].digits)


def _passes(evidence: UfcEvidence, entry: Entry) -> Iterator[Trial]:
    for budget, student, _, where in _places(evidence, entry, list(evidence.records.params.validation.students)):
        first, *others = (evidence.passes(f"{kind}+{student}-{budget}") for kind in (entry.first, *entry.second))
        for kind, other in zip(entry.second, others, strict=True):
            yield counted_trial(where, kind_title(*kind.split("+")), first, other)


TRIALS: dict[str, Callable[[UfcEvidence, Entry], Iterator[Trial]]] = {
    "accuracy": partial(_compared, lambda evidence: evidence.accuracy, True),
    "regions": partial(_compared, lambda evidence: evidence.disagreement, False),
    "passes": _passes}
"""Measure of an entry -> what makes its comparisons."""
