"""Every table and figure of the paper, where this report has it, and what ours rests on (PAPER.md section 9)."""

from dataclasses import dataclass

from repblend.report.metrics import Metrics
from repblend.report.table import Column, Row, Table
from repblend.report.titles import data_title
from repblend.report.wording import EMBEDDED


@dataclass(frozen=True)
class Item:
    """A table or figure of the paper."""

    name: str
    shows: str
    section: str
    """Heading under which this report has it; empty where there is nothing to draw."""
    rests_on: str
    """What ours is made from, or what would be needed."""
    files: str
    """Which files of the workspace hold ours, a glob pattern; empty where nothing does."""


OTHER_ENCODERS = "two other EfficientNets stand in"
DATASET_OF = {"Table 1": "flickr30k", "Table 2": "coco", "Table 3": "cc3m"}
"""Table of the paper -> the data set that it is about."""
ITEMS = (
    Item("Figure 1", "Embeddings of three sets on the sphere", "Modality collapse", "the embedded grid",
         "metrics/embed/*.json"),
    Item("Figure 2, left", "Intra-modal similarity by iteration", "Modality collapse", "the embedded grid",
         "metrics/distill/*.json"),
    Item("Figure 2, right", "Learned similarity matrices", "Learned similarity", "the embedded grid",
         "metrics/specimens/*.json"),
    Item("Figure 3", "Noise in the place of blending", "How much the settings matter",
         "the variants with noise", "metrics/evaluate/repblend-with-noise*.json"),
    Item("Figure 4", "Not described in any source at hand", "How the sets were learned",
         "probably the matching losses of both modalities, which are shown there", "metrics/distill/*.json"),
    Item("Figure 5", "Ablation of blending and symmetric matching", "What each part brings", "the embedded grid",
         "metrics/evaluate/*.json"),
    Item("Figures 6 and 7", "Sets distilled with other encoder pairs", "",
         "a run of the pipeline for each pair: encode.image_encoder and encode.text_encoder in params.yaml", ""),
    Item("Table 1", "Flickr30K: all methods by budget", "The paper's Tables 1 and 2",
         "Flickr30K; the embedded grid stands in under Results", "metrics/evaluate/*.json"),
    Item("Table 2", "COCO: all methods by budget", "The paper's Tables 1 and 2",
         "COCO; the embedded grid stands in under Results", "metrics/evaluate/*.json"),
    Item("Table 3", "Larger encoders, LLaVA-cc3m", "The paper's Table 3: larger encoders",
         "LLaVA-cc3m, DINOv2 and BGE-1.5", ""),
    Item("Table 4", "Students on other encoders", "Other image encoders (the paper's Table 4)",
         OTHER_ENCODERS, "metrics/transfer/*.json"),
    Item("Table 5", "Zero-shot transfer to other tasks", "Other tasks (the paper's Table 5)",
         "icons and ten words stand in", "metrics/transfer/*.json"),
    Item("Table 6", "Time and memory", "What distilling costs (the paper's Table 6)", "benchmarks/efficiency.json",
         "benchmarks/efficiency.json"),
)


def inventory_table(metrics: Metrics) -> Table:
    """Return every item of the paper with the number of metrics files that stand behind ours."""
    rows = [_row(metrics, item) for item in ITEMS]
    return Table("inventory", "The paper's tables and figures, and where this report has them",
                 (Column("item", "In the paper"), Column("shows", "Shows"), Column("section", "Section here"),
                  Column("rests_on", "Ours rests on"), Column("metrics_files", "Metrics files of ours")), tuple(rows))


def _row(metrics: Metrics, item: Item) -> Row:
    files = sorted(metrics.root.glob(item.files)) if item.files else []
    first = files[0].relative_to(metrics.root).as_posix() if files else None
    return Row((item.name, item.shows, item.section or "none", _rests_on(metrics, item), len(files) or None), first)


def _rests_on(metrics: Metrics, item: Item) -> str:
    """What ours is made from: where a real data set was run, it takes the place of the embedded one."""
    name = metrics.dataset()
    if name in (None, EMBEDDED):
        return item.rests_on
    this_run = f"the results on {data_title(name)}"
    if item.name in DATASET_OF and metrics.is_of(DATASET_OF[item.name]):
        return this_run
    return item.rests_on.partition(";")[0].replace("the embedded grid", this_run).replace(OTHER_ENCODERS, this_run)
