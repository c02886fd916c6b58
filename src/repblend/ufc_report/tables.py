"""The tables of the unimodal report: accuracies, every student, comparisons, what sets and labels cost, and origins."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from repblend.report.table import Column, Number, Row, Table
from repblend.stages.context import Cell
from repblend.ufc_report.comparisons import claims_table, published_table
from repblend.ufc_report.metrics import UfcMetrics
from repblend.ufc_report.schema import MEASURES
from repblend.ufc_report.titles import SETS, student_title, title
from repblend.ufc_stages.context import StudentCell

MEASURE_COLUMNS = (Column("best", "Chosen on held-out", True), Column("last", "Last epoch", True),
                   Column("best_on_test", "Best on test", True))
CELL_COLUMNS = (Column("ipc", "Images per class"), Column("set", "Students learn from"), Column("student", "Student"))
NOTHING = (None,) * len(MEASURES)


def results_table(metrics: UfcMetrics) -> Table:
    """Return the accuracy of every kind of student at every budget, and of the teachers, on all training images."""
    rows = [row for budget in metrics.params.budgets for row in _with_best(
        [_result_row(metrics, cell) for cell in metrics.cells(budget)])]
    return Table("results", "Top-1 accuracy in percent on the test images, mean ± standard deviation over students. "
                 "The epoch is chosen on held-out images, is the last, or is chosen on the test images themselves, as "
                 "the release reports it", (*CELL_COLUMNS, Column("images", "Images"), *MEASURE_COLUMNS),
                 (*rows, *(_teacher_row(metrics, name) for name in metrics.params.teachers.architectures)))


def _result_row(metrics: UfcMetrics, cell: StudentCell) -> Row:
    found = metrics.validated(cell)
    images, numbers = (found["num_images"], _numbers(found["mean"], found["std"], "mean")) if found else (None, NOTHING)
    return Row((cell.set.budget, title(cell), student_title(cell.student), images, *numbers),
               metrics.file("validate", cell) if found else None)


def _numbers(mean: dict, std: dict | None, key: str) -> tuple[Number, ...]:
    return tuple(Number(mean[name], std[name] if std else None, f"{key}.{name}") for name in MEASURES)


def _with_best(rows: list[Row]) -> list[Row]:
    """Mark the largest number of each column."""
    columns = zip(*(row.cells for row in rows), strict=True)
    best = [max((cell.mean for cell in column if isinstance(cell, Number)), default=None) for column in columns]
    return [replace(row, cells=tuple(replace(cell, best=cell.mean == most) if isinstance(cell, Number) else cell
                                     for cell, most in zip(row.cells, best, strict=True))) for row in rows]


def _teacher_row(metrics: UfcMetrics, name: str) -> Row:
    """What a teacher reaches: it trains on all images, and one network has no deviation."""
    found, prepared = metrics.teacher(name), metrics.prepared()
    last = Number(found["accuracy"]["test"], None, "accuracy.test") if found else None
    images = prepared["num_images"]["train"] if prepared else None
    return Row(("all", "All training images (teacher)", student_title(name), images, "", last, ""),
               metrics.file("teacher", name) if found else None)


def seeds_table(metrics: UfcMetrics) -> Table:
    """Return what every single student reached."""
    rows = [row for budget in metrics.params.budgets for cell in metrics.cells(budget)
            for row in _seed_rows(metrics, cell)]
    columns = (*CELL_COLUMNS, Column("seed", "Seed"), Column("epochs", "Epochs"),
               *(Column(column.name, column.title) for column in MEASURE_COLUMNS))
    return Table("seeds", "Top-1 accuracy in percent of every student", columns, tuple(rows))


def _seed_rows(metrics: UfcMetrics, cell: StudentCell) -> list[Row]:
    found, head = metrics.validated(cell), (cell.set.budget, title(cell), student_title(cell.student))
    if not found:
        return [Row((*head, None, None, *NOTHING), None)]
    return [Row((*head, number, found["epochs"], *_numbers(seed, None, f"seeds.{number}")),
                metrics.file("validate", cell)) for number, seed in enumerate(found["seeds"])]


def storage_table(metrics: UfcMetrics) -> Table:
    """Return what every set stores, as the budget counts it and in bytes of either form."""
    columns = (Column("ipc", "Images per class"), Column("set", "Set"), Column("counted", "Images counted"),
               Column("allowed", "Images allowed"), Column("real_bytes", "Real images, bytes"),
               Column("compensator_bytes", "Compensators, bytes"), Column("integrated_bytes", "Image files, bytes"),
               Column("static_label_bytes", "Static labels, bytes"))
    rows = [_storage_row(metrics, Cell(name, budget)) for budget in metrics.params.budgets
            for name in ("random", "real", "ufc")]
    return Table("storage", "What sets store. The budget counts a compensator as one image, though its 32-bit values "
                 "take four times the bytes; the release stores the files of all integrated images instead", columns,
                 tuple(rows))


def _storage_row(metrics: UfcMetrics, cell: Cell) -> Row:
    found = metrics.made_set(cell)
    stored = found["stored_bytes"] if found else {}
    counts = [found.get(key) if found else None for key in ("num_counted", "num_allowed")]
    return Row((cell.budget, SETS[cell.method], *counts, *(stored.get(key) for key in (
        "real_images", "compensators", "integrated", "static_labels"))), metrics.file("sets", cell) if found else None)


def label_cost_table(metrics: UfcMetrics) -> Table:
    """Return what labels cost one student: bytes beside the images, or passes of images through a teacher."""
    columns = (*CELL_COLUMNS, Column("epochs", "Epochs"), Column("label_bytes", "Label bytes stored"),
               Column("teacher_passes", "Images through a teacher"))
    rows = []
    for budget in metrics.params.budgets:
        for cell in metrics.cells(budget):
            found = metrics.validated(cell)
            cost = (found["epochs"], *(found["cost"][key] for key in ("label_bytes", "teacher_passes"))) if found else (
                None, None, None)
            rows.append(Row((budget, title(cell), student_title(cell.student), *cost),
                            metrics.file("validate", cell) if found else None))
    return Table("label-cost", "What labels cost a student. Static labels are computed once and stored; dynamic ones "
                 "cost every teacher a pass for every image that the student sees", columns, tuple(rows))


def regions_table(metrics: UfcMetrics) -> Table:
    """Return how ragged decision regions are."""
    rows = []
    for budget in metrics.params.budgets:
        for cell in metrics.cells(budget):
            if (cell.labels, cell.student) != ("static", metrics.params.validation.students[0]):
                continue
            found = metrics.regions(cell)
            value = Number(found["disagreement"], None, "disagreement") if found else None
            rows.append(Row((budget, title(cell), student_title(cell.student), value),
                            metrics.file("regions", cell) if found else None))
    return Table("regions", "How ragged decision regions are: percentage of a point's ten nearest points in the plane "
                 "that the student gives another class, this project's definition; one student each",
                 (*CELL_COLUMNS, Column("disagreement", "Neighbours of another class (%)")), tuple(rows))


def origins_table(metrics: UfcMetrics) -> Table:
    """Return, for every row of the results, the file that holds its numbers and the command that made it."""
    found = [("validate", cell, metrics.validated(cell)) for budget in metrics.params.budgets
             for cell in metrics.cells(budget)]
    found += [("teacher", name, metrics.teacher(name)) for name in metrics.params.teachers.architectures]
    rows = []
    for stage, name, content in found:
        made = (content["provenance"]["command"], content["provenance"]["run"]) if content else (None, None)
        file = metrics.file(stage, name)
        rows.append(Row((str(name), file, *made), file if content else None))
    return Table("origins", "Where each row of the results comes from",
                 (Column("row", "Row"), Column("file", "Metrics file"), Column("command", "Command"),
                  Column("run_record", "Run record")), tuple(rows))


TABLES: dict[str, Callable[[UfcMetrics], Table]] = {
    "results": results_table, "claims": claims_table, "seeds": seeds_table, "published": published_table,
    "storage": storage_table, "label-cost": label_cost_table, "regions": regions_table, "origins": origins_table}
"""Every table of the report by its file name."""


def results_text(root: Path) -> str:
    """Return the results and the comparisons of a workspace as plain text.

    Raises:
        ValueError: `params.yaml` or a metrics file is not as expected.
    """
    metrics = UfcMetrics.of(root)
    return "\n\n".join(table(metrics).to_text() for table in (results_table, claims_table))
