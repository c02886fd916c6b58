"""What LoRS and RepBlend cost (Table 6): the published numbers, and ours from `benchmarks/efficiency.json`."""

from repblend.records.results import MethodCost
from repblend.report.grid_records import EFFICIENCY, GridRecords
from repblend.report.published import read_published
from repblend.report.table import CellValue, Column, Derived, Number, Published, Table, TableRow, columns
from repblend.titles import title

QUANTITIES = {"time_per_iteration": "Time per iteration", "peak_memory": "Peak memory",
              "trajectory_storage": "Trajectory, stored", "time_per_trajectory": "Trajectory, time"}
COMPARED = ("lors", "repblend")
"""Whose costs are divided in the row of ratios."""
RATIO = "LoRS / RepBlend"
TITLES = {"lors-double-backward": "LoRS, gradient as released"}
MIB = 2**20
Costs = dict[str, dict[str, Number | Published]]
"""Method -> quantity -> what it costs; of times ours also has the fastest and the slowest round."""


def efficiency_table(records: GridRecords) -> Table:
    """Return the published costs, then ours, each with the ratio of LoRS to RepBlend; in the CSV a row per number.

    Raises:
        ValueError: as `read_published` and `GridRecords.efficiency`.
    """
    measured = records.efficiency()
    published: Costs = {}
    for entry in read_published(records.repository, "efficiency"):
        published.setdefault(entry["method"], {})[entry["quantity"]] = entry.number("value", unit=entry["unit"])
    ours = {method: _cost(f"methods.{method}", cost) for method, cost in measured.methods.items()} if measured else {}
    setting = "not run"
    if measured:
        setting = (f"{measured.machine}, {measured.threads} threads, {measured.budget} pairs of {measured.image_size} "
                   "pixels a side; times are medians over rounds, fastest and slowest are in the CSV. Only ratios can "
                   "be compared")
    caption = ("The paper's Table 6 (efficiency). Published: from secondary sources (evidence S), setting not stated. "
               f"Ours: {setting}")
    rows, long = [], []
    for source, costs, file in (("published", published, None), ("ours", ours, EFFICIENCY if measured else None)):
        whose = "published" if source == "published" else ""
        for method in (COMPARED[0], *(method for method in costs if method not in COMPARED), COMPARED[1]):
            cost, shown = costs.get(method, {}), TITLES.get(method, title(method))
            rows.append(TableRow((source, shown, *(cost.get(name) for name in QUANTITIES)), file if cost else None,
                                 whose))
            for name in cost or QUANTITIES:
                cell = cost.get(name)
                described = ("", "", "")
                if cell is not None:
                    stands_in = (cell.evidence, cell.origin) if isinstance(cell, Published) else ("", cell.key)
                    described = (cell.unit, *stands_in)
                long.append(TableRow((source, shown, name, cell, *described), file if cell else None, whose))
        ratios = {name: _ratio(costs, name) for name in QUANTITIES}
        rows.append(TableRow((source, RATIO, *ratios.values()), file, whose))
        long += [TableRow((source, RATIO, name, ratio, "", "D", ""), file, whose) for name, ratio in ratios.items()]
    long_columns = columns("from", "method", "quantity", "value", "unit", "evidence", "stands_in")
    return Table("efficiency", caption,
                 (*columns("from", "method"), *(Column(name, shown) for name, shown in QUANTITIES.items())),
                 tuple(rows), Table("efficiency", caption, long_columns, tuple(long)))


def _cost(key: str, cost: MethodCost) -> dict[str, Number | Published]:
    times = {name: Number(getattr(cost.seconds_per_iteration, name), None, f"{key}.seconds_per_iteration.{name}",
                          digits=3, unit="s") for name in ("median", "min", "max")}
    return {
        "time_per_iteration": times["median"],
        "time_per_iteration_min": times["min"],
        "time_per_iteration_max": times["max"],
        "peak_memory": Number(cost.peak_memory_mib, None, f"{key}.peak_memory_mib", digits=0, unit="MiB"),
        "trajectory_storage": Number(cost.trajectory_bytes / MIB, None, f"{key}.trajectory_bytes", unit="MiB"),
        "time_per_trajectory": Number(cost.seconds_per_trajectory, None, f"{key}.seconds_per_trajectory", unit="s"),
    }


def _ratio(costs: Costs, quantity: str) -> CellValue:
    found = [costs.get(method, {}).get(quantity) for method in COMPARED]
    if None in found:
        return None
    dividend, divisor = (float(cell.mean) for cell in found)
    return Derived(dividend / divisor, "{:.1f} ×")
