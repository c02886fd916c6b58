"""What the report consists of: its tables and figures, the sections that a workspace may have no cells for, and where
the paper's own tables and figures are.

To add a table, put a function from records into `TABLES`, and show it in `paper/report.ipynb`. Where only some grids
have cells for a table or figure, name it in `SECTIONS` as well.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from repblend.report.blending import blending_table
from repblend.report.carried import FAMILY as CARRIED
from repblend.report.carried import carried_table
from repblend.report.efficiency import efficiency_table
from repblend.report.encoder_pairs import larger_table, pairs_table
from repblend.report.evidence import records_table
from repblend.report.figures import FIGURES
from repblend.report.grid_records import EFFICIENCY, PROTOCOLS, GridRecords
from repblend.report.page import ReportSection, ReportSpec
from repblend.report.pictures import methods_with_similarity
from repblend.report.published import (
    COMPARED_TITLES,
    comparison_table,
    cross_architecture_table,
    larger_encoders_table,
    quoted_zero_shot_table,
)
from repblend.report.results import (
    origins_table,
    results_table,
    seeds_table,
    storage_table,
)
from repblend.report.sets import sets_table
from repblend.report.studies import (
    FAMILY,
    ablated,
    ablation_table,
    architectures_table,
    measures_table,
    noise_table,
    sensitivity_table,
    zero_shot_table,
)
from repblend.report.table import Column, Table, TableRow
from repblend.titles import EMBEDDED, data_title


def has_embeddings(records: GridRecords) -> bool:
    """Whether the grid has sets that are embedded in reference models, and tried on other encoders and tasks."""
    return bool(records.grid.compared_budgets)


def has_learned(records: GridRecords) -> bool:
    """Whether the grid has methods that distill."""
    return bool(records.learned)


def has_lors(records: GridRecords) -> bool:
    """Whether the grid has what the paper compares throughout: LoRS and RepBlend."""
    return {"lors", "repblend"} <= set(records.learned)


SECTIONS = (
    ReportSection("How much depends on the draw of a set", ("sets",), (), ("evaluate",),
                  lambda records: bool(records.grid.seeds)),
    ReportSection("The paper's Tables 1 and 2", tuple(f"published-{name}" for name in COMPARED_TITLES), (), (),
                  lambda records: has_lors(records) or any(map(records.is_of, COMPARED_TITLES))),
    ReportSection("What each part brings", ("ablation",), ("ablation",), ("evaluate",),
                  lambda records: len(ablated(records)) > 1),
    ReportSection("What carries a set", ("carried",), ("carried",), ("evaluate",),
                  lambda records: CARRIED in records.grid.variants),
    ReportSection("Blending, here and in the paper's regime", ("blending",), ("blending",), ("distill", "evaluate"),
                  lambda records: bool(records.grid.regimes)),
    ReportSection("How much the settings matter", ("sensitivity",), ("sensitivity",), ("evaluate",),
                  lambda records: bool(records.grid.variants)),
    ReportSection("Noise in the place of blending", ("noise",), ("noise",), ("distill", "evaluate"),
                  lambda records: FAMILY in records.grid.variants),
    ReportSection("Other pairs of encoders (the paper's Figures 6 and 7)", ("encoder-pairs",), ("encoder-pairs",),
                  ("encode", "evaluate"), lambda records: bool(records.grid.encoder_pairs)),
    ReportSection("Larger encoders", ("larger-encoders",), (), ("encode", "evaluate"),
                  lambda records: bool(records.grid.larger_pairs)),
    ReportSection("The paper's Table 3: larger encoders", ("published-larger-encoders",), (), (),
                  lambda records: has_lors(records) or records.is_of("cc3m")),
    ReportSection("Other image encoders (the paper's Table 4)",
                  (*(f"cross-architecture-{name}" for name in PROTOCOLS), "published-cross-architecture"), (),
                  ("transfer",), has_embeddings),
    ReportSection("Other tasks (the paper's Table 5)", ("zero-shot", "published-zero-shot"), (), ("transfer",),
                  has_embeddings),
    ReportSection("What distilling costs (the paper's Table 6)", ("efficiency",), (), (), has_lors),
    ReportSection("How the sets were learned", (), ("learning-curves",), ("distill",), has_learned),
    ReportSection("Learned similarity", (), ("similarity",), ("distill",),
                  lambda records: bool(methods_with_similarity(records))),
    ReportSection("Modality collapse", (), ("collapse",), ("distill",), has_learned),
    ReportSection("Collapse beside the paper's Figure 2", (), ("published-similarity",), ("distill",), has_lors),
    ReportSection("Collapse in reference models", ("collapse-measures",), ("spheres",), ("embed",), has_embeddings),
)
"""Sections that a report leaves out where the workspace has no cells or no records for them, in its order."""


# Every table and figure of the paper, where this report has it, and what ours rests on.


@dataclass(frozen=True)
class InventoryItem:
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
GRID = "the embedded grid"
PAIRS = "records/encode/*/record.json"
"""A record for each further pair of encoders."""
DATASET_OF = {"Table 1": "flickr30k", "Table 2": "coco", "Table 3": "cc3m"}
"""Table of the paper -> the data set that it is about."""
INVENTORY = (
    InventoryItem("Figure 1", "Embeddings of three sets on the sphere", "Collapse in reference models", GRID,
                  "records/embed/*/record.json"),
    InventoryItem("Figure 2, left", "Intra-modal similarity by iteration", "Modality collapse", GRID,
                  "records/distill/*/record.json"),
    InventoryItem("Figure 2, right", "Learned similarity matrices", "Learned similarity", GRID,
                  "records/distill/*/record.json"),
    InventoryItem("Figure 3", "Noise in the place of blending", "Noise in the place of blending",
                  "the variants with noise", "records/evaluate/repblend-with-noise*/record.json"),
    InventoryItem("Figure 4", "Not described in any source at hand", "How the sets were learned",
                  "probably the matching losses of both modalities, which are shown there",
                  "records/distill/*/record.json"),
    InventoryItem("Figure 5", "Ablation of blending and symmetric matching", "What each part brings", GRID,
                  "records/evaluate/*/record.json"),
    InventoryItem("Figures 6 and 7", "Sets distilled with other encoder pairs",
                  "Other pairs of encoders (the paper's Figures 6 and 7)",
                  "the pairs of grid.pairs in params.yaml; here those of packaged encoders", PAIRS),
    InventoryItem("Table 1", "Flickr30K: all methods by budget", "The paper's Tables 1 and 2",
                  f"Flickr30K; {GRID} stands in under Results", "records/evaluate/*/record.json"),
    InventoryItem("Table 2", "COCO: all methods by budget", "The paper's Tables 1 and 2",
                  f"COCO; {GRID} stands in under Results", "records/evaluate/*/record.json"),
    InventoryItem("Table 3", "Larger encoders, LLaVA-cc3m", "The paper's Table 3: larger encoders",
                  "LLaVA-cc3m, DINOv2 and BGE-1.5; two larger EfficientNets stand in", PAIRS),
    InventoryItem("Table 4", "Students on other encoders", "Other image encoders (the paper's Table 4)",
                  OTHER_ENCODERS, "records/transfer/*/record.json"),
    InventoryItem("Table 5", "Zero-shot transfer to other tasks", "Other tasks (the paper's Table 5)",
                  "icons and ten words stand in", "records/transfer/*/record.json"),
    InventoryItem("Table 6", "Time and memory", "What distilling costs (the paper's Table 6)", EFFICIENCY, EFFICIENCY),
)


def inventory_table(records: GridRecords) -> Table:
    """Return every item of the paper with the number of records that stand behind ours."""
    left_out = {section.heading for sections in REPORT.left_out(records) for section in sections}
    rows = []
    for item in INVENTORY:
        folder = records.repository if item.files == EFFICIENCY else records.root
        files = sorted(folder.glob(item.files)) if item.files else []
        section = "not in this report" if item.section in left_out else item.section or "none"
        rows.append(TableRow((item.name, item.shows, section, _rests_on(records, item), len(files) or None),
                             files[0].relative_to(folder).as_posix() if files else None))
    return Table("inventory", "The paper's tables and figures, and where this report has them",
                 (Column("item", "In the paper"), Column("shows", "Shows"), Column("section", "Section here"),
                  Column("rests_on", "Ours rests on"), Column("records", "Records of ours")), tuple(rows))


def _rests_on(records: GridRecords, item: InventoryItem) -> str:
    """What ours is made from: where a real data set was run, it takes the place of the embedded one."""
    name = records.dataset()
    if name in (None, EMBEDDED):
        return item.rests_on
    this_run = f"the results on {data_title(name)}"
    if item.name in DATASET_OF and records.is_of(DATASET_OF[item.name]):
        return this_run
    return item.rests_on.partition(";")[0].replace(GRID, this_run).replace(OTHER_ENCODERS, this_run)


TABLES: dict[str, Callable[[GridRecords], Table]] = {
    **{f"results-{name}": partial(results_table, protocol=name) for name in PROTOCOLS},
    "inventory": inventory_table,
    "seeds": seeds_table,
    "sets": sets_table,
    "claims": records_table,
    "storage": storage_table,
    "origins": origins_table,
    **{f"published-{name}": partial(comparison_table, dataset=name) for name in COMPARED_TITLES},
    "published-larger-encoders": larger_encoders_table,
    "published-cross-architecture": cross_architecture_table,
    "published-zero-shot": quoted_zero_shot_table,
    **{f"cross-architecture-{name}": partial(architectures_table, protocol=name) for name in PROTOCOLS},
    "zero-shot": zero_shot_table,
    "encoder-pairs": pairs_table,
    "larger-encoders": larger_table,
    "efficiency": efficiency_table,
    "collapse-measures": measures_table,
    "ablation": ablation_table,
    "carried": carried_table,
    "blending": blending_table,
    "sensitivity": sensitivity_table,
    "noise": noise_table,
}
"""Every table of the report by its file name."""
REPORT = ReportSpec(GridRecords.of, TABLES, FIGURES, Path("paper/report.ipynb"), SECTIONS)
