"""The tables of the unimodal report: accuracies, every student, what sets and labels cost, and origins."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from repblend.grid import Cell
from repblend.records.base import Traced
from repblend.report.intervals import SetResult
from repblend.report.published import read_published
from repblend.report.sets import COLUMNS, WORDS, summed_up
from repblend.report.table import (
    CellValue,
    Column,
    Number,
    Table,
    TableRow,
    difference_in_deviations,
    with_best,
)
from repblend.report.verdicts import claims_text
from repblend.runtime.locked import left_out
from repblend.ufc.records import MEASURES, DecisionRegions, MadeSet, PreparedImages, TaughtNetwork, Validated
from repblend.ufc.report.evidence import claims, records_table
from repblend.ufc.report.ufc_records import FOR_224_PIXELS, SETS, SomeRecord, UfcRecords, student_title, title
from repblend.ufc.stages.pipeline import Labels, StudentCell

Kind = tuple[str, Labels]
"""A set and its labels."""
MEASURE_COLUMNS = (Column("best", "Chosen on held-out", True), Column("last", "Last epoch", True),
                   Column("best_on_test", "Best on test", True))
CELL_COLUMNS = (Column("ipc", "Images per class"), Column("set", "Students learn from"), Column("student", "Student"))


def results_table(records: UfcRecords) -> Table:
    """Return the accuracy of every kind of student at every budget, and of the teachers, on all training images."""
    rows, prepared = [], records.find(PreparedImages)
    for budget in records.params.budgets:
        rows += with_best([_row(records, Validated, cell, _head(cell), 1 + len(MEASURES), lambda found: (
            found.num_images, *_numbers(found.mean, found.std, "mean"))) for cell in records.cells(budget)])
    for name in records.params.teachers.architectures:  # one network has no deviation, and is scored after training
        found = records.find(TaughtNetwork, name)
        rows.append(TableRow(("all", "All training images (teacher)", student_title(name),
                              prepared.num_images["train"] if prepared else None, "",
                              Number(found.accuracy.test, None, "accuracy.test") if found else None, ""),
                             records.file(TaughtNetwork, name) if found else None))
    return Table("results", "Top-1 accuracy in percent on the test images, mean ± standard deviation over students. "
                 "The epoch is chosen on held-out images, is the last, or is chosen on the test images themselves, as "
                 "the release reports it", (*CELL_COLUMNS, Column("images", "Images"), *MEASURE_COLUMNS), tuple(rows))


def _row(records: UfcRecords, kind: type[SomeRecord], cell: object, head: tuple[CellValue, ...], num: int,
         values: Callable[[SomeRecord], tuple[CellValue, ...]]) -> TableRow:
    """Return a row of a record's `num` values behind its head; none and no file where it was not run."""
    found = records.find(kind, cell)
    return TableRow((*head, *(values(found) if found else (None,) * num)), records.file(kind, cell) if found else None)


def _head(cell: StudentCell) -> tuple[int, str, str]:
    return cell.set.budget, title(cell), student_title(cell.student)


def _numbers(mean: Any, std: Any | None, key: str) -> tuple[Number, ...]:
    return tuple(Number(getattr(mean, name), getattr(std, name) if std else None, f"{key}.{name}") for name in MEASURES)


def seeds_table(records: UfcRecords) -> Table:
    """Return what every single student reached."""
    rows = []
    for cell in records.cells():
        found = records.find(Validated, cell)
        each: list[tuple[CellValue, ...]] = [(None,) * (2 + len(MEASURES))]
        if found:
            each = [(number, found.epochs, *_numbers(seed, None, f"seeds.{number}"))
                    for number, seed in enumerate(found.seeds)]
        rows += [TableRow((*_head(cell), *values), records.file(Validated, cell) if found else None) for values in each]
    columns = (*CELL_COLUMNS, Column("seed", "Seed"), Column("epochs", "Epochs"),
               *(Column(column.name, column.title) for column in MEASURE_COLUMNS))
    return Table("seeds", "Top-1 accuracy in percent of every student", columns, tuple(rows))


def sets_table(records: UfcRecords) -> Table:
    """Return the accuracy of every kind of student over draws of the real images; raises as `UfcRecords.find`."""
    rows = []
    for cell in records.cells():
        draws = cell.draws(records.params)
        found = [SetResult(each.mean.best, each.std.best if each.std else 0.0, len(each.seeds))
                 for drawn in draws if (each := records.find(Validated, drawn))]
        rows.append(TableRow((*_head(cell), *summed_up(found, len(draws))),
                             records.file(Validated, cell) if len(found) == len(draws) else None))
    return Table("sets", "Top-1 accuracy in percent on the test images, the epoch chosen on held-out images, over sets "
                 f"that differ in the draw of their real images alone. {WORDS}", (*CELL_COLUMNS, *COLUMNS),
                 tuple(rows) if records.params.seeds else ())


# The paper's own numbers, beside ours where the data set is the same.

METHODS: dict[str, Kind] = {"random": ("random", "hard"), "ufc-static": ("ufc", "static"),
                            "ufc-dynamic": ("ufc", "dynamic")}
"""Published method -> the cell of ours that is measured the same way."""
PUBLISHED = {"random": "Random", "ufc-static": "INFER", "ufc-dynamic": "INFER+Dyn", "sre2l": "SRe2L", "dc": "DC",
             "g-vbsm": "G-VBSM", "sre2l-static": "SRe2L, static labels", "g-vbsm-static": "G-VBSM, static labels",
             "dsa": "DSA", "kip": "KIP", "rfad": "RFAD", "mtt": "MTT", "seqmatch": "SeqMatch"}
DATASETS = {"digits": "digits", "glyphs": "glyphs", "cifar10": "CIFAR-10", "cifar100": "CIFAR-100",
            "tiny-imagenet": "Tiny-ImageNet", "imagenet": "ImageNet-1k"}


def _accuracy(records: UfcRecords, cell: StudentCell, measure: str = "best") -> Number | None:
    found = records.find(Validated, cell)
    std = getattr(found.std, measure) if found and found.std else None
    return Number(getattr(found.mean, measure), std, f"mean.{measure}") if found else None


def published_table(records: UfcRecords) -> Table:
    """Return every published accuracy, and ours where this workspace's data set and student are the same.

    The release logs the last and the best epoch on test; which of them the paper prints is not said. Ours is the last.

    Raises:
        ValueError: as `read_published`.
    """
    rows, own = [], records.params
    for entry in read_published(records.paths.repository, "ufc"):
        if entry["quantity"] != "accuracy_percent":
            continue
        cell = ours = None
        if entry["dataset"] == own.data.name and entry["method"] in METHODS:  # then measured as the entry was
            name, labels = METHODS[entry["method"]]
            student = next((student for student in own.validation.students
                            if student.removeprefix(FOR_224_PIXELS) == entry["student"]), entry["student"])
            cell = StudentCell(Cell(name, entry["budget"]), labels, student)
            ours = _accuracy(records, cell, "last")
        published = entry.number("mean", "std")
        rows.append(TableRow((DATASETS[entry["dataset"]], entry["budget"], student_title(entry["student"]),
                              PUBLISHED[entry["method"]], published, published.evidence, ours,
                              difference_in_deviations(ours, published)),
                             records.file(Validated, cell) if ours else None))
    columns = (Column("dataset", "Data set"), Column("ipc", "Images per class"), Column("student", "Student"),
               Column("method", "Method"), Column("published", "Published", True), Column("evidence", "Evidence"),
               Column("ours", "Ours", True), Column("difference_in_std", "Difference"))
    return Table("published", "Published top-1 accuracies in percent, mean (standard deviation). Ours, mean ± standard "
                 "deviation after the last epoch, only if this data set was run. Difference: (ours - published) / "
                 "sqrt(both variances added), this project's definition", columns, tuple(rows))


# What sets and labels cost, how ragged decision regions are, and where numbers come from.


def storage_table(records: UfcRecords) -> Table:
    """Return what every set stores, as the budget counts it and in bytes of either form."""
    columns = (Column("ipc", "Images per class"), Column("set", "Set"), Column("counted", "Images counted"),
               Column("allowed", "Images allowed"), Column("real_bytes", "Real images, bytes"),
               Column("compensator_bytes", "Compensators, bytes"), Column("integrated_bytes", "Image files, bytes"),
               Column("static_label_bytes", "Static labels, bytes"))
    rows = [_row(records, MadeSet, Cell(name, budget), (budget, SETS[name]), 6, lambda found: (
        found.num_counted, found.num_allowed, found.stored_bytes.real_images, found.stored_bytes.compensators,
        found.stored_bytes.integrated, found.stored_bytes.static_labels))
        for budget in records.params.budgets for name in ("random", "real", "ufc")]
    return Table("storage", "What sets store. The budget counts a compensator as one image, though its 32-bit values "
                 "take four times the bytes; the release stores the files of all integrated images instead", columns,
                 tuple(rows))


def label_cost_table(records: UfcRecords) -> Table:
    """Return what labels cost one student: bytes beside the images, or passes of images through a teacher."""
    columns = (*CELL_COLUMNS, Column("epochs", "Epochs"), Column("label_bytes", "Label bytes stored"),
               Column("teacher_passes", "Images through a teacher"))
    rows = [_row(records, Validated, cell, _head(cell), 3, lambda found: (
        found.epochs, found.cost.label_bytes, found.cost.teacher_passes)) for cell in records.cells()]
    return Table("label-cost", "What labels cost a student. Static labels are computed once and stored; dynamic ones "
                 "cost every teacher a pass for every image that the student sees", columns, tuple(rows))


def regions_table(records: UfcRecords) -> Table:
    """Return how ragged decision regions are."""
    rows = [_row(records, DecisionRegions, cell, _head(cell), 1, lambda found: (
        Number(found.disagreement, None, "disagreement"),)) for cell in records.cells()
        if (cell.labels, cell.student) == ("static", records.params.validation.students[0])]
    return Table("regions", "How ragged decision regions are: percentage of a point's ten nearest points in the plane "
                 "that the student gives another class, this project's definition; one student each",
                 (*CELL_COLUMNS, Column("disagreement", "Neighbours of another class (%)")), tuple(rows))


def origins_table(records: UfcRecords) -> Table:
    """Return, for every row of the results, the record that holds its numbers and the command that wrote it."""
    of: list[tuple[type[Traced], object]] = [*((Validated, cell) for cell in records.cells()),
          *((TaughtNetwork, name) for name in records.params.teachers.architectures)]
    rows = [_row(records, kind, cell, (str(cell), records.file(kind, cell)), 1, lambda found: (
        found.provenance.command,)) for kind, cell in of]
    return Table("origins", "The record of each row of the results, and the command that wrote it",
                 (Column("row", "Row"), Column("file", "Record"), Column("command", "Command")), tuple(rows))


TABLES: dict[str, Callable[[UfcRecords], Table]] = {
    "results": results_table, "claims": records_table, "seeds": seeds_table, "sets": sets_table,
    "published": published_table, "storage": storage_table, "label-cost": label_cost_table, "regions": regions_table,
    "origins": origins_table}
"""Every table of the report by its file name."""


def results_text(root: Path) -> str:
    """Return the results and the claims of a workspace as plain text; raises `ValueError` if `params.yaml` or a record
    is not as expected.
    """
    records = UfcRecords.of(root)
    return "\n\n".join(filter(None, [results_table(records).to_text(), claims_text(claims(records)),
                                      left_out(records.unfit)]))
