"""What LoRS and RepBlend cost (the paper's Table 6): the published numbers, and ours from the benchmark."""

from collections.abc import Iterator

from repblend.report.metrics import EFFICIENCY, Metrics
from repblend.report.published import read_published
from repblend.report.table import Cell, Column, Derived, Number, Published, Row, Table
from repblend.report.titles import title
from repblend.store import JSON

QUANTITIES = {"time_per_iteration": "Time per iteration", "peak_memory": "Peak memory",
              "trajectory_storage": "Trajectory, stored", "time_per_trajectory": "Trajectory, time"}
COMPARED = ("lors", "repblend")
"""Whose costs are divided in the row of ratios."""
RATIO = "LoRS / RepBlend"
TITLES = {"lors-double-backward": "LoRS, gradient as released"}
MIB = 2**20
Costs = dict[str, dict[str, Number | Published]]
"""Method -> quantity -> what it costs; of times ours also has the fastest and the slowest round."""


def efficiency_table(metrics: Metrics) -> Table:
    """Return the published costs, then ours, each with the ratio of LoRS to RepBlend; in the CSV a row per number.

    Raises:
        ValueError: as `read_published` and `Metrics.efficiency`.
    """
    content = metrics.efficiency()
    published, ours = _published(metrics), _ours(content)
    caption = ("The paper's Table 6 (efficiency). Published: from secondary sources (evidence S), setting not stated. "
               f"Ours: {_setting(content)}")
    columns = (Column("from", "From"), Column("method", "Method"),
               *(Column(name, shown) for name, shown in QUANTITIES.items()))
    file = EFFICIENCY if content else None
    rows = (*_rows("published", published, None), *_rows("ours", ours, file))
    return Table("efficiency", caption, columns, rows, _long(caption, published, ours, file))


def _setting(content: JSON | None) -> str:
    if not content:
        return "not run"
    return (f"{content['machine']}, {content['threads']} threads, {content['budget']} pairs of {content['image_size']} "
            "pixels a side; times are medians over rounds, fastest and slowest are in the CSV. Ratios can be compared")


def _published(metrics: Metrics) -> Costs:
    costs: Costs = {}
    for entry in read_published(metrics.repository, "efficiency"):
        costs.setdefault(entry["method"], {})[entry["quantity"]] = entry.number("value", unit=entry["unit"])
    return costs


def _ours(content: JSON | None) -> Costs:
    return {method: _cost(f"methods.{method}", cost) for method, cost in content["methods"].items()} if content else {}


def _cost(key: str, cost: JSON) -> dict[str, Number | Published]:
    times = {name: Number(cost["seconds_per_iteration"][name], None, f"{key}.seconds_per_iteration.{name}", digits=3,
                          unit="s") for name in ("median", "min", "max")}
    return {
        "time_per_iteration": times["median"],
        "time_per_iteration_min": times["min"],
        "time_per_iteration_max": times["max"],
        "peak_memory": Number(cost["peak_memory_mib"], None, f"{key}.peak_memory_mib", digits=0, unit="MiB"),
        "trajectory_storage": Number(cost["trajectory_bytes"] / MIB, None, f"{key}.trajectory_bytes", digits=1,
                                     unit="MiB"),
        "time_per_trajectory": Number(cost["seconds_per_trajectory"], None, f"{key}.seconds_per_trajectory", digits=1,
                                      unit="s"),
    }


def _rows(source: str, costs: Costs, file: str | None) -> Iterator[Row]:
    """A row per method, and the ratios in a row of their own."""
    whose = "published" if source == "published" else ""
    for method in _ordered(costs):
        cost = costs.get(method, {})
        yield Row((source, _title(method), *(cost.get(name) for name in QUANTITIES)), file if cost else None, whose)
    yield Row((source, RATIO, *(_ratio(costs, name) for name in QUANTITIES)), file, whose)


def _ordered(costs: Costs) -> list[str]:
    """LoRS first and RepBlend last, whether or not they are there."""
    first, last = COMPARED
    return [first, *(method for method in costs if method not in COMPARED), last]


def _title(method: str) -> str:
    return TITLES.get(method) or title(method)


def _ratio(costs: Costs, quantity: str) -> Cell:
    found = [costs.get(method, {}).get(quantity) for method in COMPARED]
    if None in found:
        return None
    dividend, divisor = (float(cell.mean) for cell in found)
    return Derived(dividend / divisor, "{:.1f} ×")


def _long(caption: str, published: Costs, ours: Costs, file: str | None) -> Table:
    columns = (Column("from", "From"), Column("method", "Method"), Column("quantity", "Quantity"),
               Column("value", "Value"), Column("unit", "Unit"), Column("evidence", "Evidence"),
               Column("stands_in", "Stands in"))
    rows = (*_long_rows("published", published, None), *_long_rows("ours", ours, file))
    return Table("efficiency", caption, columns, rows)


def _long_rows(source: str, costs: Costs, file: str | None) -> Iterator[Row]:
    whose = "published" if source == "published" else ""
    for method in _ordered(costs):
        for name in costs.get(method, QUANTITIES):
            cell = costs.get(method, {}).get(name)
            yield Row((source, _title(method), name, *_described(cell)), file if cell else None, whose)
    for name in QUANTITIES:
        yield Row((source, RATIO, name, _ratio(costs, name), "", "D", ""), file, whose)


def _described(cell: Number | Published | None) -> tuple[Cell, ...]:
    """Value, unit, evidence, and where the number stands."""
    if cell is None:
        return (None, "", "", "")
    return (cell, cell.unit, *((cell.evidence, cell.origin) if isinstance(cell, Published) else ("", cell.key)))
