"""The paper's own numbers beside ours: its Tables 1 and 2, and 3 to 5 as far as they are known. None is taken for ours.

They are read from `paper/published`: CSV files whose columns are declared here. Its `README.md` says where each number
comes from.
"""

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from repblend.grid import ENCODER_STUDENTS
from repblend.records.base import RECALLS
from repblend.report.grid_records import EXPERTS_THEMSELVES, GridRecords, stored_number
from repblend.report.results import recall_columns
from repblend.report.table import (
    EVIDENCE,
    Column,
    Derived,
    Number,
    Published,
    Table,
    TableRow,
    Unknown,
    columns,
    difference_in_deviations,
)
from repblend.titles import RECALL_TITLES, TITLES, title

FOLDER = "paper/published"
MEND = f"Restore it with `git restore {FOLDER}`"
Parser = Callable[[str], Any]


def _number(cell: str) -> Decimal:
    try:
        value = Decimal(cell)
    except InvalidOperation:
        value = Decimal("NaN")
    if not value.is_finite():
        raise ValueError(f"expected a number, found {cell!r}")
    return value


def _maybe(parse: Parser) -> Parser:
    return lambda cell: parse(cell) if cell else None


def _count(cell: str) -> int:
    if not (cell.isascii() and cell.isdigit()):
        raise ValueError(f"expected a whole number, found {cell!r}")
    return int(cell)


def _one_of(*choices: str) -> Parser:
    def parse(cell: str) -> str:
        if cell not in choices:
            raise ValueError(f"expected one of {', '.join(choices)}, found {cell!r}")
        return cell
    return parse


def _words(cell: str) -> str:
    if not cell.strip():
        raise ValueError("expected text, found nothing")
    return cell


_METHOD = _one_of(*TITLES, "start")
_RECALL = _one_of(*RECALLS)
_RESULTS: dict[str, Parser] = {"budget": lambda cell: cell if cell == "full" else _count(cell), "method": _METHOD,
                               "recall": _RECALL, "mean": _number, "std": _maybe(_number)}
UFC_QUANTITIES = ("accuracy_percent", "compression_percent")
"""Top-1 accuracy of a student on the test images, and stored bytes of those of the whole training set."""
FILES: dict[str, dict[str, Parser]] = {
    "flickr30k": _RESULTS,
    "coco": _RESULTS,
    "efficiency": {"method": _METHOD, "quantity": _words, "value": _number, "unit": _words},
    "cross-architecture": {"dataset": _words, "budget": _count, "method": _METHOD, "architecture": _words,
                           "mean_recall": _number},
    "zero-shot": {"task": _words, "metric": _RECALL, "method": _METHOD, "value": _number},
    "collapse": {"method": _METHOD, "quantity": _words, "iteration": _maybe(_count), "value": _number,
                 "reading": _one_of("plot", "caption", "annotation")},
    "released-code": {"dataset": _words, "budget": _count, "method": _METHOD, "seed": _words,
                      "iteration": _maybe(_count), "mean": _number, "std": _maybe(_number)},
    "ufc": {"dataset": _words, "budget": _count, "student": str, "quantity": _one_of(*UFC_QUANTITIES),
            "method": _words, "mean": _number, "std": _maybe(_number)},
}
"""File name -> column -> how its cells are read. Every file also has `source` and `evidence`."""
COMMON: dict[str, Parser] = {"source": _words, "evidence": _one_of(*EVIDENCE)}
NOT_KEYS = {"mean", "std", "value", "mean_recall", *COMMON}
"""Columns in which two rows about one thing could differ."""


@dataclass(frozen=True)
class PublishedRow:
    """A row of a file."""

    values: dict[str, Any]
    """Column -> what its cell holds: text, a count, a `Decimal` with the digits as printed, or None."""
    origin: str
    """File and row."""

    def __getitem__(self, column: str) -> Any:
        return self.values[column]

    def number(self, value: str, std: str | None = None, unit: str = "") -> Published:
        """The number in column `value`, with the deviation in column `std`, as a cell of a table."""
        return Published(self[value], self[std] if std else None, self.origin, self["evidence"], unit)


def read_published(root: Path, name: str) -> list[PublishedRow]:
    """Return the rows of `paper/published/<name>.csv` of a workspace.

    Raises:
        ValueError: the file is missing, a column is unknown or absent, a cell is not what its column holds, or two rows
            are about the same; the message names the file and the row (the header is row 1).
    """
    path, columns = root / FOLDER / f"{name}.csv", FILES[name] | COMMON
    try:
        with path.open(encoding="utf-8", newline="") as lines:
            header, *rows = [*csv.reader(lines)] or [[]]
    except FileNotFoundError as error:
        raise ValueError(f"{path}: no such file. {MEND}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected UTF-8, found byte {error.object[error.start]:#04x}. {MEND}") from error
    if header != list(columns):
        wrong = ", ".join(sorted(set(header) ^ set(columns))) or "their order"
        raise _error(path, 1, f"expected the columns {', '.join(columns)}; unknown or missing: {wrong}")
    entries, seen = [], set()
    for number, row in enumerate(rows, 2):
        values = _parse_row(path, number, columns, row)
        key = tuple(value for column, value in values.items() if column not in NOT_KEYS)
        if key in seen:
            raise _error(path, number, "an earlier row is about the same")
        seen.add(key)
        entries.append(PublishedRow(values, f"{FOLDER}/{path.name}, row {number}"))
    return entries


def _parse_row(path: Path, number: int, columns: dict[str, Parser], row: list[str]) -> dict[str, Any]:
    if len(row) != len(columns):
        raise _error(path, number, f"expected {len(columns)} cells, found {len(row)}")
    values = {}
    for (column, parse), cell in zip(columns.items(), row, strict=True):
        try:
            values[column] = parse(cell)
        except ValueError as error:
            raise _error(path, number, f"{column}: {error}") from error
    return values


def _error(path: Path, row: int, problem: str) -> ValueError:
    return ValueError(f"{path}, row {row}: {problem}. {MEND}")


# Tables 1 and 2: ours only where the pipeline ran on that very data set, by the faithful protocol, as the paper counts.

COMPARED_TITLES = {"flickr30k": "The paper's Table 1 (Flickr30K)", "coco": "The paper's Table 2 (COCO)"}
"""Data set -> what its table is called."""
SIX = tuple(name for name in RECALLS if name != "mean_recall")
PROTOCOL = "faithful"
NO_DIFFERENCE = "–"


@dataclass(frozen=True)
class ComparedMethod:
    """The recalls of a method at a budget, in the order of `SIX`: the paper's, ours, and what lies between them."""

    budget: int | str
    method: str
    published: tuple[Published, ...]
    ours: tuple[Number | None, ...]
    differences: tuple[Derived | None, ...]
    """Ours minus the paper's, in standard deviations."""
    file: str | None
    """Our record, if the method was run on this data set."""


def comparison_table(records: GridRecords, dataset: str) -> Table:
    """Return, per budget and method, the published recalls, ours and the difference; in the CSV a row per recall.

    Args:
        dataset: `flickr30k` or `coco`.

    Raises:
        ValueError: as `read_published` and `GridRecords.evaluation`.
    """
    compared = [*_compared(records, dataset)]
    encoded = records.encoded() if any(each.file for each in compared) else None
    setting = "only if this data set was run"
    if encoded:  # with other encoders a difference is no failure to reproduce
        setting = (f"mean ± standard deviation by the faithful protocol, with {encoded.image_encoder} and "
                   f"{encoded.text_encoder}")
    caption = (f"{COMPARED_TITLES[dataset]}: recall in percent. Published: mean (standard deviation), with NFNet and "
               f"BERT. Ours: {setting}. Difference: (ours - published) / sqrt(both variances added), this project's "
               "definition")
    rows, long = [], []
    for each in compared:
        head = (each.budget, title(each.method))
        rows += [TableRow((*head, "published", *each.published), None),
                 TableRow((*head, "ours", *each.ours), each.file)]
        if any(each.differences):
            shown = (difference or NO_DIFFERENCE for difference in each.differences)
            rows.append(TableRow((*head, "difference", *shown), each.file))
        long += [TableRow((*head, recall, published, published.evidence, published.origin, ours, difference), each.file)
                 for recall, published, ours, difference in zip(SIX, each.published, each.ours, each.differences,
                                                                strict=True)]
    long_columns = (*columns("pairs", "method", "recall"), Column("published", "Published", spread=True),
                    *columns("evidence", "published_in"), Column("ours", "Ours", spread=True),
                    Column("difference_in_std", "Difference"))
    return Table(f"published-{dataset}", caption, (*columns("pairs", "method", "from"), *recall_columns(SIX)),
                 tuple(rows),
                 Table(f"published-{dataset}", caption, long_columns, tuple(long)))


def _compared(records: GridRecords, dataset: str) -> Iterator[ComparedMethod]:
    entries: dict[tuple[int | str, str], dict[str, PublishedRow]] = {}
    for entry in read_published(records.repository, dataset):
        entries.setdefault((entry["budget"], entry["method"]), {})[entry["recall"]] = entry
    for (budget, method), recalls in entries.items():
        if missing := set(SIX) - set(recalls):
            raise ValueError(f"{records.repository / FOLDER / dataset}.csv: {method} at budget {budget} lacks "
                             f"{', '.join(sorted(missing))}. {MEND}")
        published = tuple(recalls[recall].number("mean", "std") for recall in SIX)
        # The published students on coresets train the image encoder: ours as well, if such were asked for. The paper's
        # row of the full training set is nearest to what an expert itself reaches: both are shown.
        beside = ENCODER_STUDENTS if method in records.grid.encoder_coresets else ""
        names = (method, EXPERTS_THEMSELVES) if budget == "full" else (f"{method}{beside}-{budget}",)
        for name in names:
            ours = tuple(records.recall(name, PROTOCOL, recall) if records.is_of(dataset) else None for recall in SIX)
            yield ComparedMethod(budget, name if budget == "full" else method, published, ours,
                                 tuple(map(difference_in_deviations, ours, published)),
                                 records.result_file(name) if all(ours) else None)


# Tables 3, 4 and 5, whose values are in no source at hand: their rows and columns, and what stands in.
#
# Each row says whom it is from. What the paper holds is "unknown", what we did not run is "not run"; numbers of another
# paper name that paper.

BUDGETS = (100, 200, 500)
"""Pairs in the paper's tables."""
DATASETS = {"flickr30k": "Flickr30K", "coco": "COCO"}
ARCHITECTURES = {"NF-ResNet+BERT": "nf_resnet50", "NF-RegNet+BERT": "nf_regnet_b1"}
"""Column of Table 4 -> its image encoder in `params.yaml`."""
COMPARED = ("lors", "repblend")
DATASET_COLUMN = Column("dataset", "Data set")


def larger_encoders_table(records: GridRecords) -> Table:
    """Return the paper's Table 3: its values and its three budgets are unknown."""
    rows = [TableRow((budget, "LLaVA-cc3m", "DINOv2 + BGE-1.5", title("repblend"), source, *[value] * len(SIX)), None,
                     whose)
            for budget in ("first", "second", "third")
            for source, value, whose in (("published", Unknown(), "published"), ("ours", None, ""))]
    return Table("published-larger-encoders", "The paper's Table 3 (larger encoders): recall in percent. It has three "
                 "budgets; which, and its values, are not known",
                 (*columns("budget"), DATASET_COLUMN, *columns("encoders", "method", "from"), *recall_columns(SIX)),
                 tuple(rows))


def cross_architecture_table(records: GridRecords) -> Table:
    """Return the paper's Table 4, unknown, with what MDM measured of LoRS in its stead, and ours on these data sets.

    Raises:
        ValueError: as `read_published` and `GridRecords.transfer`.
    """
    rows = [TableRow(("published", title(method), "not stated", "not stated", *(Unknown() for _ in ARCHITECTURES)),
                     None, "published") for method in COMPARED]
    stand_ins: dict[tuple[str, int, str], dict[str, PublishedRow]] = {}
    for entry in read_published(records.repository, "cross-architecture"):
        key = (entry["dataset"], entry["budget"], entry["method"])
        stand_ins.setdefault(key, {})[entry["architecture"]] = entry
    for (dataset, budget, method), entries in stand_ins.items():
        if dataset in DATASETS:
            numbers = (entries[shown].number("mean_recall") if shown in entries else Unknown()
                       for shown in ARCHITECTURES)
            rows.append(TableRow(("published by MDM", title(method), DATASETS[dataset], budget, *numbers), None,
                                 "published"))
    rows += [_our_architectures(records, dataset, method, budget)
             for dataset in DATASETS for budget in BUDGETS for method in COMPARED]
    return Table("published-cross-architecture", "The paper's Table 4 (cross-architecture), distilled with NFNet and "
                 "BERT: mean of the six recalls in percent on other encoders. The paper's values are not known; those "
                 "of LoRS in MDM's Table 2 stand in",
                 (*columns("from", "method"), DATASET_COLUMN, *columns("pairs"),
                  *(Column(encoder, shown, spread=True) for shown, encoder in ARCHITECTURES.items())), tuple(rows))


def _our_architectures(records: GridRecords, dataset: str, method: str, budget: int) -> TableRow:
    """Ours by the faithful protocol, as published; only if this data set was run."""
    name = f"{method}-{budget}"
    found = records.transfer(name) if records.is_of(dataset) else None
    tried = found.architectures if found else {}
    numbers = [stored_number(tried[encoder].protocols.faithful, "mean_recall",
                             f"architectures.{encoder}.protocols.faithful") if encoder in tried else None
               for encoder in ARCHITECTURES.values()]
    return TableRow(("ours", title(method), DATASETS[dataset], budget, *numbers),
                    records.file("transfer", name) if any(numbers) else None)


def quoted_zero_shot_table(records: GridRecords) -> Table:
    """Return the paper's Table 5: one number of it is quoted, and its setting is not, so none of ours stands beside it.

    Raises:
        ValueError: as `read_published`.
    """
    quoted = {(entry["task"], entry["metric"]): entry.number("value")
              for entry in read_published(records.repository, "zero-shot")}
    cells = [("ImageNet-10", "not stated", quoted.get(("imagenet-10", "accuracy"), Unknown()))]
    cells += [("TextCaps", RECALL_TITLES[name], quoted.get(("textcaps", name), Unknown())) for name in SIX]
    rows = [TableRow((task, metric, title("repblend"), value, value.evidence if isinstance(value, Published) else "",
                      None), None) for task, metric, value in cells]
    return Table("published-zero-shot", "The paper's Table 5 (zero-shot). One number is quoted in a secondary source "
                 "(evidence S), without its budget or setting",
                 columns("task", "metric", "method", "published", "evidence", "ours"), tuple(rows))
