"""What the paper claims, tried on ours; and the paper's own numbers, beside ours where the data set is the same."""

from collections.abc import Iterator

from repblend.report.deviations import difference_in_deviations
from repblend.report.published import Entry, read_published
from repblend.report.table import Column, Derived, Number, Row, Table
from repblend.stages.context import Cell
from repblend.ufc_report.metrics import UfcMetrics
from repblend.ufc_report.titles import DATASETS, FOR_224_PIXELS, PUBLISHED, student_title, title
from repblend.ufc_stages.context import StudentCell

CLAIMS = (("ufc", "static", "random", "hard"), ("ufc", "static", "random", "static"),
          ("ufc", "static", "real", "static"), ("ufc", "dynamic", "ufc", "static"),
          ("ufc", "dynamic", "random", "dynamic"))
"""Set and labels that are expected to do better, and those that they are compared with."""
TWO_DEVIATIONS = 2.0
METHODS = {"random": ("random", "hard"), "ufc-static": ("ufc", "static"), "ufc-dynamic": ("ufc", "dynamic")}
"""Published method -> the cell of ours that is measured the same way."""


def claims_table(metrics: UfcMetrics) -> Table:
    """Return, per budget, whether what is expected to do better does so, by the epoch chosen on held-out images."""
    rows = []
    for budget in metrics.params.budgets:
        for student in metrics.params.validation.students:
            rows += [_claim_row(metrics, StudentCell(Cell(better, budget), labels, student),
                                StudentCell(Cell(other, budget), other_labels, student))
                     for better, labels, other, other_labels in CLAIMS]
    columns = (Column("ipc", "Images per class"), Column("better", "Expected to be better"), Column("than", "Than"),
               Column("student", "Student"), Column("points", "Difference in points"),
               Column("deviations", "In deviations"), Column("verdict", "Verdict"))
    return Table("claims", "What should do better, and by how much it does: the difference of mean accuracies, the "
                 "epoch chosen on held-out images, and the same over sqrt(both variances added), this project's "
                 "definition. Better and worse: by more than two deviations", columns, tuple(rows))


def _claim_row(metrics: UfcMetrics, better: StudentCell, other: StudentCell) -> Row:
    head = (better.set.budget, title(better), title(other), student_title(better.student))
    ours, theirs = _accuracy(metrics, better), _accuracy(metrics, other)
    if ours is None or theirs is None:
        return Row((*head, None, None, None), None)
    deviations = difference_in_deviations(ours, theirs)
    return Row((*head, Derived(ours.mean - theirs.mean, "{:+.1f}"), deviations or "", _verdict(deviations)),
               metrics.file("validate", better))


def _verdict(deviations: Derived | None) -> str:
    if deviations is None or abs(deviations.value) <= TWO_DEVIATIONS:
        return "no difference"
    return "better" if deviations.value > 0 else "worse"


def _accuracy(metrics: UfcMetrics, cell: StudentCell, measure: str = "best") -> Number | None:
    found = metrics.validated(cell)
    return Number(found["mean"][measure], found["std"][measure], f"mean.{measure}") if found else None


def published_table(metrics: UfcMetrics) -> Table:
    """Return every published accuracy, and ours where this workspace's data set and student are the same.

    The release logs the last and the best epoch on test; which of them the paper prints is not said. Ours is the last.

    Raises:
        ValueError: as `read_published`.
    """
    columns = (Column("dataset", "Data set"), Column("ipc", "Images per class"), Column("student", "Student"),
               Column("method", "Method"), Column("published", "Published", True), Column("evidence", "Evidence"),
               Column("ours", "Ours", True), Column("difference_in_std", "Difference"))
    return Table("published", "Published top-1 accuracies in percent, mean (standard deviation). Ours, mean ± standard "
                 "deviation after the last epoch, only if this data set was run. Difference: (ours - published) / "
                 "sqrt(both variances added), this project's definition", columns, tuple(_published_rows(metrics)))


def _published_rows(metrics: UfcMetrics) -> Iterator[Row]:
    for entry in read_published(metrics.paths.repository, "ufc"):
        if entry["quantity"] != "accuracy_percent":
            continue
        cell = _own_cell(metrics, entry)
        ours = _accuracy(metrics, cell, "last") if cell else None
        published = entry.number("mean", "std")
        yield Row((DATASETS[entry["dataset"]], entry["budget"], student_title(entry["student"]),
                   PUBLISHED[entry["method"]], published, published.evidence, ours,
                   difference_in_deviations(ours, published)), metrics.file("validate", cell) if ours else None)


def _own_cell(metrics: UfcMetrics, entry: Entry) -> StudentCell | None:
    """The cell that is measured as an entry was, if this workspace has the entry's data set."""
    if entry["dataset"] != metrics.params.data.name or entry["method"] not in METHODS:
        return None
    name, labels = METHODS[entry["method"]]
    student = next((own for own in metrics.params.validation.students
                    if own.removeprefix(FOR_224_PIXELS) == entry["student"]), entry["student"])
    return StudentCell(Cell(name, entry["budget"]), labels, student)
