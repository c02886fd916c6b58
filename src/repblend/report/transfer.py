"""Sets on what they were not distilled for: other image encoders (the paper's Table 4), other tasks (its Table 5)."""

from repblend.report.metrics import RECALLS, Metrics
from repblend.report.table import Cell, Column, Number, Row, Table, stored_number
from repblend.report.titles import RECALL_TITLES, title
from repblend.store import JSON

MEAN_FIRST = ("mean_recall", *(name for name in RECALLS if name != "mean_recall"))
CAPTIONS = {"held-out": "the students' epoch chosen on validation", "faithful": "selected on test, as published"}


def architectures_table(metrics: Metrics, protocol: str) -> Table:
    """Return what students on other image encoders reach on each set.

    Args:
        protocol: `held-out` or `faithful`.

    Raises:
        ValueError: as `Metrics.transfer`.
    """
    found = _transfers(metrics)
    encoders = _names(found, "architectures") or [None]
    rows = [_architecture_row(metrics, cell, content, encoder, protocol)
            for cell, content in found.items() for encoder in encoders]
    columns = (Column("pairs", "Pairs"), Column("method", "Method"), Column("image_encoder", "Students' image encoder"),
               *(Column(name, RECALL_TITLES[name], spread=True) for name in MEAN_FIRST))
    return Table(f"cross-architecture-{protocol}", "Ours in the form of the paper's Table 4: recall in percent of "
                 f"students on other image encoders than the one that the set was distilled with, {CAPTIONS[protocol]} "
                 "(mean ± standard deviation over the evaluation seeds)", columns, tuple(rows))


def zero_shot_table(metrics: Metrics) -> Table:
    """Return what students reach on tasks that no set was distilled for; raises as `Metrics.transfer`."""
    found = _transfers(metrics)
    tasks = _names(found, "zero_shot") or [None]
    rows = [_task_row(metrics, cell, content, task) for task in tasks for cell, content in found.items()]
    columns = (Column("task", "Task"), Column("method", "Method"), Column("pairs", "Pairs"), Column("metric", "Metric"),
               Column("held_out", "Held-out", spread=True), Column("faithful", "Faithful", spread=True),
               Column("chance", "Chance"))
    return Table("zero-shot", "Ours in the form of the paper's Table 5: in percent, on tasks that the sets were not "
                 "distilled for (mean ± standard deviation over the evaluation seeds)", columns, tuple(rows))


def _transfers(metrics: Metrics) -> dict[tuple[int, str], JSON | None]:
    """Budget and method -> what was measured, for every cell of the grid."""
    return {(budget, method): metrics.transfer(f"{method}-{budget}")
            for budget in metrics.grid.compared_budgets for method in metrics.methods}


def _names(found: dict[tuple[int, str], JSON | None], part: str) -> list[str | None]:
    """Every encoder or task that any cell was tried on, in the order of the files."""
    return list(dict.fromkeys(name for content in found.values() if content for name in content[part]))


def _architecture_row(metrics: Metrics, cell: tuple[int, str], content: JSON | None, encoder: str | None,
                      protocol: str) -> Row:
    budget, method = cell
    tried = content["architectures"].get(encoder) if content else None
    numbers: tuple[Cell, ...] = (None,) * len(MEAN_FIRST)
    if tried:
        key = f"architectures.{encoder}.protocols.{protocol}"
        numbers = tuple(stored_number(tried["protocols"][protocol], name, key) for name in MEAN_FIRST)
    return Row((budget, title(method), encoder, *numbers),
               metrics.file("transfer", f"{method}-{budget}") if tried else None)


def _task_row(metrics: Metrics, cell: tuple[int, str], content: JSON | None, task: str | None) -> Row:
    budget, method = cell
    tried = content["zero_shot"].get(task) if content else None
    cells: tuple[Cell, ...] = (None,) * 4
    if tried:
        key = f"zero_shot.{task}"
        cells = (tried["metric"], *(_task_number(tried["protocols"].get(name), f"{key}.protocols.{name}")
                                    for name in ("held-out", "faithful")),
                 _chance(tried["chance"], f"{key}.chance"))
    return Row((task, title(method), budget, *cells),
               metrics.file("transfer", f"{method}-{budget}") if tried else None)


def _chance(chance: JSON | float, key: str) -> Number:
    """What guessing gives in the number that the task is counted by."""
    if isinstance(chance, dict):
        return Number(chance["mean_recall"], None, f"{key}.mean_recall")
    return Number(chance, None, key)


def _task_number(protocol: JSON | None, key: str) -> Cell:
    """An accuracy, or the mean of the six recalls; a dash where the task has no such protocol."""
    if not protocol:
        return "–"
    return stored_number(protocol, "accuracy" if "accuracy" in protocol["mean"] else "mean_recall", key)
