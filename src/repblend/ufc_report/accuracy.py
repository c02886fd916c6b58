"""Accuracy of every kind of student at every budget; and how compensators were learned."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from repblend.report.canvas import QUIET, WIDTH, canvas, save, say_not_run
from repblend.store import JSON
from repblend.ufc_report.metrics import UfcMetrics
from repblend.ufc_report.titles import colour, student_title, title
from repblend.ufc_stages.context import StudentCell

GROUP_WIDTH = 0.88
"""Share of the distance from budget to budget that bars take."""
MARGIN = 4.0
"""Percentage points below the lowest student at which the axis begins."""
LOSSES = {"cross_entropy": "cross-entropy", "bn": "BatchNorm statistics"}


def accuracy(metrics: UfcMetrics, folder: Path) -> None:
    """A panel per student: bars to the mean, whiskers of one standard deviation, a point per seed."""
    students = metrics.params.validation.students
    with canvas(len(students), 1, WIDTH, 4.4 * len(students)) as (figure, panels):
        for panel, student in zip(panels, students, strict=True):
            groups = [[cell for cell in metrics.cells(budget) if cell.student == student]
                      for budget in metrics.params.budgets]
            _draw_groups(panel, metrics, groups)
            panel.set_title(f"Students: {student_title(student)}; epoch chosen on held-out images")
        shown = {title(cell): colour(cell) for cell in metrics.cells(metrics.params.budgets[0])}
        patches = [Patch(color=shade, label=name) for name, shade in shown.items()]
        teachers = Line2D([], [], color="black", linestyle="--", linewidth=1.1, label="teachers, all training images")
        figure.legend(handles=[*patches, teachers], loc="outside lower center", ncols=3)
        save(figure, folder, "accuracy")


def _draw_groups(panel: Axes, metrics: UfcMetrics, groups: list[list[StudentCell]]) -> None:
    lowest = 100.0
    for place, cells in enumerate(groups):
        width = GROUP_WIDTH / len(cells)
        for rank, cell in enumerate(cells):
            centre, found = place + (rank - (len(cells) - 1) / 2) * width, metrics.validated(cell)
            if found:
                lowest = min(lowest, *(seed["best"] for seed in found["seeds"]))
                _draw_bar(panel, centre, width, found, colour(cell))
            else:
                panel.text(centre, 0.02, "not run", rotation=90, ha="center", va="bottom", fontsize=7.5, color=QUIET,
                           transform=panel.get_xaxis_transform())
    for name in metrics.params.teachers.architectures:
        if found := metrics.teacher(name):
            panel.axhline(found["accuracy"]["test"], color="black", linewidth=0.8, linestyle="--")
    panel.set_xticks(range(len(groups)), [f"{budget} images per class" for budget in metrics.params.budgets])
    panel.set(xlim=(-0.5, len(groups) - 0.5), ylim=(max(0.0, lowest - MARGIN), 100.0), ylabel="top-1 accuracy (%)")
    panel.tick_params(axis="x", length=0, labelsize=9)


def _draw_bar(panel: Axes, centre: float, width: float, found: JSON, shade: str) -> None:
    mean, std, values = found["mean"]["best"], found["std"]["best"], [seed["best"] for seed in found["seeds"]]
    panel.bar(centre, mean, 0.88 * width, color=shade, linewidth=0)
    panel.errorbar(centre, mean, std, color="black", linewidth=1, capsize=2)
    beside = [centre + 0.5 * width * ((rank + 0.5) / len(values) - 0.5) for rank in range(len(values))]
    panel.plot(beside, values, "o", markersize=2.2, color="white", markeredgecolor="black", markeredgewidth=0.5)
    panel.annotate(f"{mean:.1f}", (centre, max(mean + std, *values)), xytext=(0, 2), textcoords="offset points",
                   ha="center", va="bottom", fontsize=7)


def generation(metrics: UfcMetrics, folder: Path) -> None:
    """Both parts of the objective by iteration, means over compensators; a line per teacher."""
    names = metrics.params.teachers.architectures
    with canvas(1, len(LOSSES), WIDTH, 3.0) as (figure, panels):
        for panel, (key, words) in zip(panels, LOSSES.items(), strict=True):
            panel.set(title=words, xlabel="iteration", yscale="log")
            found = {name: content for name in names if (content := metrics.generated(name))}
            for name, content in found.items():
                panel.plot(content["curves"]["iteration"], content["curves"][key], label=student_title(name))
            if not found:
                say_not_run(panel)
        if panels[0].lines:
            figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
        save(figure, folder, "generation")
