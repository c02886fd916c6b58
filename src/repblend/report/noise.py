"""Noise in the place of blending: what its level does (in the form of the paper's Figure 3)."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from matplotlib.axes import Axes

from repblend.report.canvas import WIDTH, canvas, save, say_not_run
from repblend.report.collapse import TITLES
from repblend.report.metrics import Metrics
from repblend.report.table import Column, Number, Row, Table, stored_number
from repblend.report.titles import colour, title

FAMILY = "noise"
"""Its name among the grid's variants."""
NOTHING, BLENDING = "repblend-without-blending", "repblend"
MEASURES = ("intra_modal_similarity_img", "intra_modal_similarity_txt", "modality_gap")


class Perturbed(NamedTuple):
    """A set, and how representations were perturbed while it was distilled."""

    method: str
    cell: str
    perturbation: str
    level: float | None
    """Of noise, relative to the root mean square of the representations; None for others, or where not run."""


def _sets(metrics: Metrics) -> Iterator[Perturbed]:
    budget = metrics.variants_budget
    yield Perturbed(NOTHING, f"{NOTHING}-{budget}", "none", None)
    for name in metrics.variants.get(FAMILY, ()):
        found = metrics.distillation(f"{name}-{budget}")
        level = found["provenance"]["parameters"]["distill"]["noise_level"] if found else None
        shown = f"noise {level:g}" if found else f"noise, {name.partition('+')[2]}"
        yield Perturbed(name.partition("+")[0], f"{name}-{budget}", shown, level)
    yield Perturbed(BLENDING, f"{BLENDING}-{budget}", "blending", None)


def noise_table(metrics: Metrics) -> Table:
    """Return measures of collapse by perturbation; raises as `Metrics.distillation`."""
    rows = [Row((each.perturbation, *(_measure(metrics, each.cell, name) for name in MEASURES)),
                metrics.file("distill", each.cell) if metrics.distillation(each.cell) else None)
            for each in _sets(metrics)]
    return Table("noise", "Ours in the form of the paper's Figure 3, whose values are unknown: RepBlend, "
                 f"{metrics.variants_budget} pairs, with noise in the place of blending. Measures of collapse after "
                 "the last iteration, in the embedding of one expert (this project's definitions, no unit)",
                 (Column("perturbation", "Perturbation"), *(Column(name, TITLES[name]) for name in MEASURES)),
                 tuple(rows))


def _measure(metrics: Metrics, cell: str, name: str) -> Number | None:
    found = metrics.distillation(cell)
    if not found:
        return None
    values = found["checkpoints"][name]
    return Number(values[-1], None, f"checkpoints.{name}.{len(values) - 1}", digits=3)


def _recall(metrics: Metrics, cell: str) -> Number | None:
    found = metrics.evaluation(cell)
    return stored_number(found["protocols"]["held-out"], "mean_recall", "protocols.held-out") if found else None


def noise(metrics: Metrics, folder: Path) -> None:
    """Recall and measures by the level of noise, with no perturbation and blending as lines."""
    sets = [*_sets(metrics)]
    quantities = {"mean recall,\nheld-out (%)": [_recall(metrics, each.cell) for each in sets]}
    quantities |= {f"{TITLES[name].lower()}\n(last iteration)": [_measure(metrics, each.cell, name) for each in sets]
                   for name in MEASURES}
    with canvas(1, len(quantities), WIDTH, 3.0) as (figure, panels):
        for panel, (label, numbers) in zip(panels, quantities.items(), strict=True):
            _draw(panel, [(each, number.mean) for each, number in zip(sets, numbers, strict=True) if number])
            panel.set_title(label)
            panel.set_xlabel("level of noise")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
        save(figure, folder, "noise")


def _draw(panel: Axes, values: list[tuple[Perturbed, float]]) -> None:
    noisy = sorted((each.level, value) for each, value in values if each.level is not None)
    if not noisy:
        say_not_run(panel)
        return
    panel.plot(*zip(*noisy, strict=True), "o-", color="#444444", label="noise for RB")
    for each, value in values:
        if each.level is None:
            panel.axhline(value, color=colour(each.method), linestyle="--", label=title(each.method))
