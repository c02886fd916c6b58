"""The paper's Tables 3, 4 and 5, whose values are in no source at hand: their rows and columns, and what stands in.

Each row says whom it is from. What the paper holds is "unknown", what we did not run is "not run"; numbers of another
paper name that paper.
"""

from collections.abc import Iterator

from repblend.report.metrics import Metrics
from repblend.report.published import Entry, read_published
from repblend.report.table import Cell, Column, Published, Row, Table, Unknown, stored_number
from repblend.report.titles import RECALL_TITLES, title

SIX = tuple(name for name in RECALL_TITLES if name != "mean_recall")
BUDGETS = (100, 200, 500)
"""Pairs in the paper's tables."""
DATASETS = {"flickr30k": "Flickr30K", "coco": "COCO"}
ARCHITECTURES = {"NF-ResNet+BERT": "nf_resnet50", "NF-RegNet+BERT": "nf_regnet_b1"}
"""Column of Table 4 -> its image encoder in `params.yaml`."""
COMPARED = ("lors", "repblend")


def larger_encoders_table(metrics: Metrics) -> Table:
    """Return the paper's Table 3: its values and its three budgets are unknown."""
    rows = [Row((budget, "LLaVA-cc3m", "DINOv2 + BGE-1.5", title("repblend"), source, *[value] * len(SIX)), None, whose)
            for budget in ("first", "second", "third")
            for source, value, whose in (("published", Unknown(), "published"), ("ours", None, ""))]
    columns = (Column("budget", "Budget"), Column("dataset", "Data set"), Column("encoders", "Encoders"),
               Column("method", "Method"), Column("from", "From"), *(Column(name, RECALL_TITLES[name]) for name in SIX))
    return Table("published-larger-encoders", "The paper's Table 3 (larger encoders): recall in percent. It has three "
                 "budgets; which, and its values, are not known", columns, tuple(rows))


def cross_architecture_table(metrics: Metrics) -> Table:
    """Return the paper's Table 4, unknown, with what MDM measured of LoRS in its stead, and ours on these data sets.

    Raises:
        ValueError: as `read_published` and `Metrics.transfer`.
    """
    unknown = [Row(("published", title(method), "not stated", "not stated", *(Unknown() for _ in ARCHITECTURES)), None,
                   "published")
               for method in COMPARED]
    ours = [row for dataset in DATASETS for budget in BUDGETS for row in _our_rows(metrics, dataset, budget)]
    columns = (Column("from", "From"), Column("method", "Method"), Column("dataset", "Data set"),
               Column("pairs", "Pairs"),
               *(Column(encoder, shown, spread=True) for shown, encoder in ARCHITECTURES.items()))
    return Table("published-cross-architecture", "The paper's Table 4 (cross-architecture), distilled with NFNet and "
                 "BERT: mean of the six recalls in percent on other encoders. The paper's values are not known; those "
                 "of LoRS in MDM's Table 2 stand in", columns, (*unknown, *_stand_ins(metrics), *ours))


def _stand_ins(metrics: Metrics) -> Iterator[Row]:
    cells: dict[tuple[str, int, str], dict[str, Entry]] = {}
    for entry in read_published(metrics.repository, "cross-architecture"):
        cells.setdefault((entry["dataset"], entry["budget"], entry["method"]), {})[entry["architecture"]] = entry
    for (dataset, budget, method), entries in cells.items():
        if dataset in DATASETS:
            numbers = (entries[shown].number("mean_recall") if shown in entries else Unknown()
                       for shown in ARCHITECTURES)
            yield Row(("published by MDM", title(method), DATASETS[dataset], budget, *numbers), None, "published")


def _our_rows(metrics: Metrics, dataset: str, budget: int) -> Iterator[Row]:
    """Ours by the faithful protocol, as published; only if this data set was run."""
    for method in COMPARED:
        name = f"{method}-{budget}"
        found = metrics.transfer(name) if metrics.is_of(dataset) else None
        tried = found["architectures"] if found else {}
        numbers = [stored_number(tried[encoder]["protocols"]["faithful"], "mean_recall",
                                 f"architectures.{encoder}.protocols.faithful") if encoder in tried else None
                   for encoder in ARCHITECTURES.values()]
        yield Row(("ours", title(method), DATASETS[dataset], budget, *numbers),
                  metrics.file("transfer", name) if any(numbers) else None)


def zero_shot_table(metrics: Metrics) -> Table:
    """Return the paper's Table 5: one number of it is quoted, and its setting is not, so none of ours stands beside it.

    Raises:
        ValueError: as `read_published`.
    """
    quoted = {(entry["task"], entry["metric"]): entry.number("value")
              for entry in read_published(metrics.repository, "zero-shot")}
    cells = [("ImageNet-10", "not stated", _known(quoted, "imagenet-10", "accuracy"))]
    cells += [("TextCaps", RECALL_TITLES[name], _known(quoted, "textcaps", name)) for name in SIX]
    rows = [Row((task, metric, title("repblend"), value, value.evidence if isinstance(value, Published) else "", None),
                None) for task, metric, value in cells]
    columns = (Column("task", "Task"), Column("metric", "Metric"), Column("method", "Method"),
               Column("published", "Published"), Column("evidence", "Evidence"), Column("ours", "Ours"))
    return Table("published-zero-shot", "The paper's Table 5 (zero-shot). One number is quoted in a secondary source "
                 "(evidence S), without its budget or setting", columns, tuple(rows))


def _known(quoted: dict[tuple[str, str], Published], task: str, metric: str) -> Cell:
    return quoted.get((task, metric), Unknown())
