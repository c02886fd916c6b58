"""How much the settings of distillation matter: variants of a method that change a few of them, by family."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes

from repblend.report.canvas import QUIET, WIDTH, canvas, save, say_not_run
from repblend.report.metrics import Metrics
from repblend.report.table import Column, Row, Table, stored_number
from repblend.report.titles import colour, marker, title
from repblend.store import JSON

ACROSS = 3
"""Panels beside each other."""
PANEL_HEIGHT = 2.7
METHOD = "repblend"
"""Stands before the variants of a method that is no row of the results itself."""


@dataclass(frozen=True)
class Variant:
    """One setting of one family."""

    family: str
    method: str
    name: str
    """What stands behind the plus sign; empty for the method as it is."""
    cell: str

    @property
    def is_base(self) -> bool:
        return not self.name


def sensitivity_table(metrics: Metrics) -> Table:
    """Return, by family, what each variant changes and its mean recall; the method as it is comes first.

    Raises:
        ValueError: as `Metrics.evaluation`.
    """
    rows = [_row(metrics, variant, settings) for variant, settings in _variants_with_settings(metrics)]
    return Table("sensitivity", f"Sensitivity to the settings of distillation, {metrics.variants_budget} pairs: mean "
                 "of the six recalls in percent, held-out (mean ± standard deviation over the evaluation seeds)",
                 (Column("family", "Family"), Column("method", "Method"), Column("setting", "Setting"),
                  Column("mean_recall", "Mean", spread=True)),
                 tuple(rows) or (Row((None, None, None, None), None),))


def _row(metrics: Metrics, variant: Variant, setting: str) -> Row:
    found = metrics.evaluation(variant.cell)
    number = stored_number(found["protocols"]["held-out"], "mean_recall", "protocols.held-out") if found else None
    return Row((variant.family, title(variant.method), setting, number),
               metrics.file("evaluate", variant.cell) if found else None)


def _variants(metrics: Metrics) -> Iterator[Variant]:
    """Every variant of every family, behind the method that it changes."""
    for family, names in metrics.variants.items():
        for method in dict.fromkeys(name.partition("+")[0] for name in names):
            as_it_is = method if method in metrics.learned else METHOD
            yield Variant(family, as_it_is, "", f"{as_it_is}-{metrics.variants_budget}")
            for name in names:
                base, _, changed = name.partition("+")
                if base == method:
                    yield Variant(family, method, changed, f"{name}-{metrics.variants_budget}")


def _variants_with_settings(metrics: Metrics) -> list[tuple[Variant, str]]:
    variants = [*_variants(metrics)]
    return [(variant, _setting(metrics, variant, [other for other in variants if _kin(other, variant)]))
            for variant in variants]


def _kin(one: Variant, other: Variant) -> bool:
    return (one.family, one.method) == (other.family, other.method)


def _setting(metrics: Metrics, variant: Variant, kin: list[Variant]) -> str:
    """What the variant sets, of all that its kin change; its name where a file to compare is not there.

    Kin without a base are variants of a method that is no row of the results: they are compared with each other.
    """
    parameters = {each.cell: _parameters(metrics, each.cell) for each in kin}
    own, base = parameters[variant.cell], [parameters[each.cell] for each in kin if each.is_base]
    compared = [own, *base] if base and not variant.is_base else list(parameters.values())
    changed = _differing([settings for settings in compared if settings])
    if not (own and changed):
        return variant.name or "as it is"
    shown = ", ".join(f"{key} {own.get(key, 'absent')}" for key in changed)
    return f"{shown} (as it is)" if variant.is_base else shown


def _differing(compared: list[dict[str, object]]) -> list[str]:
    """The keys whose values are not all the same."""
    keys = sorted({key for settings in compared for key in settings})
    return [key for key in keys if any(settings.get(key) != compared[0].get(key) for settings in compared)]


def _parameters(metrics: Metrics, cell: str) -> dict[str, object]:
    """The settings that a set was distilled with, flat; empty if it was not."""
    found = metrics.distillation(cell)
    return dict(_flat(found["provenance"]["parameters"].get("distill", {}))) if found else {}


def _flat(settings: JSON, prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def sensitivity(metrics: Metrics, folder: Path) -> None:
    """A panel per family: mean recall by setting, a point per student, whiskers of one standard deviation."""
    families: dict[str, list[tuple[Variant, str]]] = {}
    for variant, setting in _variants_with_settings(metrics):
        families.setdefault(variant.family, []).append((variant, setting))
    across = min(ACROSS, max(1, len(families)))
    down = max(1, -(-len(families) // across))
    with canvas(down, across, WIDTH * across / ACROSS, PANEL_HEIGHT * down, sharey=True) as (figure, panels):
        for panel, (family, settings) in zip(panels, families.items(), strict=False):
            _draw_family(panel, metrics, family, settings)
        for panel in panels[len(families):]:
            panel.set_axis_off()
        if not families:
            say_not_run(panels[0])
        for panel in panels[::across]:
            panel.set_ylabel("mean recall,\nheld-out (%)")
        save(figure, folder, "sensitivity")


def _draw_family(panel: Axes, metrics: Metrics, family: str, settings: list[tuple[Variant, str]]) -> None:
    for place, (variant, _) in enumerate(settings):
        found = metrics.evaluation(variant.cell)
        if found:
            _draw_point(panel, place, variant, found["protocols"]["held-out"])
        else:
            panel.text(place, 0.04, "not run", transform=panel.get_xaxis_transform(), rotation=90, ha="center",
                       va="bottom", fontsize=7.5, color=QUIET)
    methods = dict.fromkeys(title(variant.method) for variant, _ in settings)
    panel.set_title(f"{family}\n({', '.join(methods)})")
    panel.set_xlim(-0.5, len(settings) - 0.5)
    panel.set_xticks(range(len(settings)), [_label(variant) for variant, _ in settings], rotation=30, ha="right",
                     fontsize=7.5)


def _label(variant: Variant) -> str:
    return variant.name or "as it is"


def _draw_point(panel: Axes, place: int, variant: Variant, protocol: JSON) -> None:
    values = [seed["mean_recall"] for seed in protocol["seeds"]]
    panel.plot([place] * len(values), values, ".", markersize=3.5, color=QUIET)
    panel.errorbar(place, protocol["mean"]["mean_recall"], protocol["std"]["mean_recall"], capsize=2.5, linewidth=1,
                   marker=marker(variant.method), markersize=6, color=colour(variant.method),
                   markerfacecolor=colour(variant.method) if variant.is_base else "white")
