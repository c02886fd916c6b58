"""Studies of the method, ours in the paper's form: ablation (Figure 5), collapse in reference models (Figures 1 and 2),
other encoders and tasks (Tables 4 and 5), noise in the place of blending (Figure 3), sensitivity to settings.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.axes import Axes

from repblend.records.base import RECALLS, Recalls
from repblend.records.results import MEASURES, IconRetrieval, Transferred, WordAccuracy
from repblend.report.drawing import QUIET, WIDTH, canvas, draw_groups, method_legend, save, say_not_run
from repblend.report.grid_records import PROTOCOLS, GridRecords, by_name, stored_number
from repblend.report.results import SPREAD, recall_columns
from repblend.report.table import CellValue, Column, Number, Table, TableRow, columns
from repblend.titles import colour, marker, title

PROTOCOL_COLUMNS = (Column("held_out", "Held-out", spread=True), Column("faithful", "Faithful", spread=True))

# Ablation: LoRS, with blending (RB), with symmetric matching (SM), with both (Figure 5).

PARTS = {"lors": (False, False), "repblend-without-matching": (True, False),
         "repblend-without-blending": (False, True), "repblend": (True, True)}
"""Method -> whether it blends, whether it matches both heads."""
PART_TITLES = {"lors": "LoRS", "repblend-without-matching": "LoRS + RB", "repblend-without-blending": "LoRS + SM",
               "repblend": "LoRS + RB + SM = RepBlend"}


def ablated(records: GridRecords) -> tuple[str, ...]:
    """Return the methods of the ablation that the grid has."""
    return tuple(method for method in PARTS if method in records.learned)


def ablation_table(records: GridRecords) -> Table:
    """Return the mean recall with and without each part, per budget; raises as `GridRecords.evaluation`."""
    rows = []
    for budget in records.grid.budgets:
        for method in ablated(records):
            name = f"{method}-{budget}"
            parts = ("yes" if part else "no" for part in PARTS[method])
            numbers = [records.recall(name, protocol) for protocol in PROTOCOLS]
            rows.append(TableRow((budget, PART_TITLES[method], *parts, *numbers),
                                 records.file("evaluate", name) if numbers[0] else None))
    return Table("ablation", "Ours in the form of the paper's Figure 5, whose values are unknown: mean of the six "
                 "recalls in percent, with and without representation blending (RB) and symmetric matching (SM), by "
                 f"both protocols ({SPREAD})",
                 (*columns("pairs", "method"), Column("rb", "RB"), Column("sm", "SM"),
                  *PROTOCOL_COLUMNS),
                 tuple(rows))


def ablation(records: GridRecords, folder: Path) -> None:
    """Bars of the held-out mean recall, a group per budget."""
    methods = ablated(records)
    with canvas(1, 1, 0.75 * WIDTH, 3.6) as (figure, (panel,)):
        draw_groups(panel, records, "held-out", methods)
        panel.set_ylabel("mean of the six recalls,\nheld-out (%)")
        figure.legend(handles=method_legend({method: PART_TITLES[method] for method in methods}),
                      loc="outside lower center", ncols=2)
        save(figure, folder, "ablation")


# Modality collapse in the embeddings of reference models, set by set (compare Figures 1 and 2).

MEASURE_TITLES = {
    "intra_modal_similarity_img": "Similarity, images", "intra_modal_similarity_txt": "Similarity, texts",
    "concentration_ratio_img": "Concentration, images", "concentration_ratio_txt": "Concentration, texts",
    "effective_rank_img": "Rank, images", "effective_rank_txt": "Rank, texts", "modality_gap": "Modality gap"}
"""Measure -> its title; the records carry the definitions, and the page shows them."""
DIGITS = {"effective_rank_img": 1, "effective_rank_txt": 1}
"""Digits after the point; three for all others."""


def measures_table(records: GridRecords) -> Table:
    """Return every measure of collapse for every set, per budget; raises as `GridRecords.embedding`."""
    rows = []
    for budget, method in _compared(records):
        found = records.embedding(f"{method}-{budget}")
        measures = found.measures if found else {}
        numbers = (Number(measures[name].mean, measures[name].std, f"measures.{name}.mean", digits=DIGITS.get(name, 3))
                   if name in measures else None for name in MEASURES)
        rows.append(TableRow((budget, title(method), *numbers),
                             records.file("embed", f"{method}-{budget}") if found else None))
    return Table("collapse-measures", "Measures of modality collapse (this project's definitions, no unit): "
                 "intra-modal similarity, concentration ratio, effective rank and modality gap, mean ± standard "
                 "deviation over the reference models whose embeddings they are taken in",
                 (*columns("pairs", "method"),
                  *(Column(name, MEASURE_TITLES[name], spread=True) for name in MEASURES)), tuple(rows))


def _compared(records: GridRecords) -> list[tuple[int, str]]:
    """Budget and method of every set that is embedded and transferred."""
    return [(budget, method) for budget in records.grid.compared_budgets for method in records.methods]


# Sets on what they were not distilled for: other image encoders (Table 4), other tasks (Table 5).

MEAN_FIRST = ("mean_recall", *(name for name in RECALLS if name != "mean_recall"))
TASKS = {"icons": "icons", "ten-words": "ten_words"}
"""Task as records and tables call it -> its attribute."""


def architectures_table(records: GridRecords, protocol: str) -> Table:
    """Return what students on other image encoders reach on each set.

    Args:
        protocol: `held-out` or `faithful`.

    Raises:
        ValueError: as `GridRecords.transfer`.
    """
    found = _transfers(records)
    encoders = [*dict.fromkeys(name for each in found.values() if each for name in each.architectures)]
    rows = []
    for (budget, method), each in found.items():
        for encoder in encoders or [None]:
            numbers, file = (None,) * len(MEAN_FIRST), None
            if each and encoder in each.architectures:
                statistics = by_name(each.architectures[encoder].protocols, protocol)
                key = f"architectures.{encoder}.protocols.{protocol}"
                numbers = tuple(stored_number(statistics, name, key) for name in MEAN_FIRST)
                file = records.file("transfer", f"{method}-{budget}")
            rows.append(TableRow((budget, title(method), encoder, *numbers), file))
    chosen = "the students' epoch chosen on validation" if protocol == "held-out" else "selected on test, as published"
    return Table(f"cross-architecture-{protocol}", "Ours in the form of the paper's Table 4: recall in percent of "
                 f"students on other image encoders than the one that the set was distilled with, {chosen} ({SPREAD})",
                 (*columns("pairs", "method"), Column("image_encoder", "Students' image encoder"),
                  *recall_columns(MEAN_FIRST, spread=True)), tuple(rows))


def _transfers(records: GridRecords) -> dict[tuple[int, str], Transferred | None]:
    return {(budget, method): records.transfer(f"{method}-{budget}") for budget, method in _compared(records)}


def zero_shot_table(records: GridRecords) -> Table:
    """Return what students reach on tasks that no set was distilled for; raises as `GridRecords.transfer`."""
    found = _transfers(records)
    tasks = [task for task, name in TASKS.items() if any(each and getattr(each.zero_shot, name)
                                                         for each in found.values())]
    rows = [_task_row(records, budget, method, each, task)
            for task in tasks or [None] for (budget, method), each in found.items()]
    return Table("zero-shot", "Ours in the form of the paper's Table 5: in percent, on tasks that the sets were not "
                 f"distilled for ({SPREAD})", (*columns("task", "method", "pairs", "metric"), *PROTOCOL_COLUMNS,
                                               *columns("chance")), tuple(rows))


def _task_row(records: GridRecords, budget: int, method: str, found: Transferred | None,
              task: str | None) -> TableRow:
    tried: IconRetrieval | WordAccuracy | None = getattr(found.zero_shot, TASKS[task]) if found and task else None
    if not tried:
        return TableRow((task, title(method), budget, *(None,) * 4), None)
    key, name = f"zero_shot.{task}", "accuracy" if isinstance(tried, WordAccuracy) else "mean_recall"
    numbers: list[CellValue] = []
    for protocol in PROTOCOLS:  # a dash where the task has no such protocol
        statistics = getattr(tried.protocols, protocol.replace("-", "_"), None)
        numbers.append(stored_number(statistics, name, f"{key}.protocols.{protocol}") if statistics else "–")
    chance = (Number(tried.chance.mean_recall, None, f"{key}.chance.mean_recall") if isinstance(tried.chance, Recalls)
              else Number(tried.chance, None, f"{key}.chance"))
    return TableRow((task, title(method), budget, tried.metric, *numbers, chance),
                    records.file("transfer", f"{method}-{budget}"))


# Noise in the place of blending: what its level does (Figure 3).

FAMILY = "noise"
"""Its name among the grid's variants."""
NO_PERTURBATION, BLENDING = "repblend-without-blending", "repblend"
COMPARED_MEASURES = ("intra_modal_similarity_img", "intra_modal_similarity_txt", "modality_gap")


class Perturbed(NamedTuple):
    """A set, and how representations were perturbed while it was distilled."""

    method: str
    cell: str
    perturbation: str
    level: float | None
    """Of noise, relative to the root mean square of the representations; None for others, or where not run."""


def _perturbed_sets(records: GridRecords) -> Iterator[Perturbed]:
    budget = records.grid.variants_budget
    yield Perturbed(NO_PERTURBATION, f"{NO_PERTURBATION}-{budget}", "none", None)
    for name in records.grid.variants.get(FAMILY, ()):
        settings = _settings_of(records, f"{name}-{budget}")
        level = settings.get("noise_level")
        shown = f"noise, {name.partition('+')[2]}" if level is None else f"noise {level:g}"
        yield Perturbed(name.partition("+")[0], f"{name}-{budget}", shown, level)
    yield Perturbed(BLENDING, f"{BLENDING}-{budget}", "blending", None)


def noise_table(records: GridRecords) -> Table:
    """Return measures of collapse by perturbation; raises as `GridRecords.distillation`."""
    rows = [TableRow((each.perturbation, *(records.last_measure(each.cell, name) for name in COMPARED_MEASURES)),
                     records.file("distill", each.cell) if records.course(each.cell) else None)
            for each in _perturbed_sets(records)]
    return Table("noise", "Ours in the form of the paper's Figure 3, whose values are unknown: RepBlend, "
                 f"{records.grid.variants_budget} pairs, with noise in the place of blending. Measures of collapse "
                 "after the last iteration, in the embedding of one expert (this project's definitions, no unit)",
                 (*columns("perturbation"), *(Column(name, MEASURE_TITLES[name]) for name in COMPARED_MEASURES)),
                 tuple(rows))


def noise(records: GridRecords, folder: Path) -> None:
    """Recall and measures by the level of noise, with no perturbation and blending as lines."""
    sets = [*_perturbed_sets(records)]
    quantities = {"mean recall,\nheld-out (%)": [records.recall(each.cell, "held-out") for each in sets]}
    quantities |= {f"{MEASURE_TITLES[name].lower()}\n(last iteration)": [
        records.last_measure(each.cell, name) for each in sets] for name in COMPARED_MEASURES}
    with canvas(1, len(quantities), WIDTH, 3.0) as (figure, panels):
        for panel, (label, numbers) in zip(panels, quantities.items(), strict=True):
            values = [(each, number.mean) for each, number in zip(sets, numbers, strict=True) if number]
            noisy = sorted((each.level, value) for each, value in values if each.level is not None)
            if noisy:
                panel.plot(*zip(*noisy, strict=True), "o-", color="#444444", label="noise for RB")
                for each, value in values:
                    if each.level is None:
                        panel.axhline(value, color=colour(each.method), linestyle="--", label=title(each.method))
            else:
                say_not_run(panel)
            panel.set_title(label)
            panel.set_xlabel("level of noise")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
        save(figure, folder, "noise")


# Sensitivity: variants of a method that change a few settings of distillation, by family.

ACROSS = 3
"""Panels beside each other."""
PANEL_HEIGHT = 2.7
AS_IT_IS = "as it is"


@dataclass(frozen=True)
class SettingVariant:
    """One setting of one family."""

    family: str
    method: str
    name: str
    """What stands behind the plus sign; empty for the method as it is."""
    cell: str
    setting: str = ""
    """What it sets, of all that the variants beside it change."""


def sensitivity_table(records: GridRecords) -> Table:
    """Return, by family, what each variant changes and its mean recall; the method as it is comes first.

    Raises:
        ValueError: as `GridRecords.evaluation`.
    """
    rows = []
    for variant in _variants(records):
        number = records.recall(variant.cell, "held-out")
        rows.append(TableRow((variant.family, title(variant.method), variant.setting, number),
                             records.file("evaluate", variant.cell) if number else None))
    return Table("sensitivity", f"Sensitivity to the settings of distillation, {records.grid.variants_budget} pairs: "
                 f"mean of the six recalls in percent, held-out ({SPREAD})"
                 + "".join(f"; {cell}: {caveat}" for cell, caveat in records.grid.caveats.items()),
                 (*columns("family", "method", "setting"), Column("mean_recall", "Mean", spread=True)), tuple(rows))


def _variants(records: GridRecords) -> list[SettingVariant]:
    """Every variant of every family, behind the method that it changes, with what it sets.

    Variants of a method that is no row of the results, such as noise for blending, stand behind RepBlend as it is.
    """
    found, budget = [], records.grid.variants_budget
    for family, names in records.grid.variants.items():
        for method in dict.fromkeys(name.partition("+")[0] for name in names):
            base = method if method in records.learned else BLENDING
            kin = [SettingVariant(family, base, "", f"{base}-{budget}")]
            kin += [SettingVariant(family, method, name.partition("+")[2], f"{name}-{budget}")
                    for name in names if name.partition("+")[0] == method]
            settings = [_settings_of(records, each.cell) if each.method == method else None for each in kin]
            found += [SettingVariant(each.family, each.method, each.name, each.cell, _setting(place, each, settings))
                      for place, each in enumerate(kin)]
    return found


def _setting(place: int, variant: SettingVariant, settings: list[dict[str, Any] | None]) -> str:
    """What the variant at `place` sets, of all that its kin change; its name where there is nothing to compare with.

    Args:
        settings: those of the method as it is, then of its variants; empty where not run, None where the first is
            another method: its variants are then compared with each other.
    """
    base, own = settings[0], settings[place]
    compared = [own, base] if base is not None and place else settings
    compared = [each for each in compared if each]
    keys = sorted({key for each in compared for key in each})
    changed = [key for key in keys if any(each.get(key) != compared[0].get(key) for each in compared)]
    if not (own and changed):
        return variant.name or AS_IT_IS
    shown = ", ".join(f"{key} {_value(own.get(key, 'absent'))}" for key in changed)
    return shown if variant.name else f"{shown} ({AS_IT_IS})"


def _value(value: Any) -> Any:
    return " + ".join(map(str, value)) if isinstance(value, list) else value


def _settings_of(records: GridRecords, cell: str) -> dict[str, Any]:
    """The settings that a set was distilled with, flat; empty if it was not."""
    def flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
        for key, value in settings.items():
            yield from flat(value, f"{prefix}{key}.") if isinstance(value, dict) else [(f"{prefix}{key}", value)]

    found = records.distillation(cell)
    return dict(flat(found.provenance.parameters.get("distill", {}))) if found and found.course else {}


def sensitivity(records: GridRecords, folder: Path) -> None:
    """A panel per family: mean recall by setting, a point per student, whiskers of one standard deviation."""
    families: dict[str, list[SettingVariant]] = {}
    for variant in _variants(records):
        families.setdefault(variant.family, []).append(variant)
    across = min(ACROSS, max(1, len(families)))
    down = max(1, -(-len(families) // across))
    with canvas(down, across, WIDTH * across / ACROSS, PANEL_HEIGHT * down, sharey=True) as (figure, panels):
        for panel, (family, variants) in zip(panels, families.items(), strict=False):
            _draw_family(panel, records, family, variants)
        for panel in panels[len(families):]:
            panel.set_axis_off()
        for panel in panels[::across]:
            panel.set_ylabel("mean recall,\nheld-out (%)")
        save(figure, folder, "sensitivity")


def _draw_family(panel: Axes, records: GridRecords, family: str, variants: list[SettingVariant]) -> None:
    for place, variant in enumerate(variants):
        found = records.evaluation(variant.cell)
        if found:
            statistics, shade = found.protocols.held_out, colour(variant.method)
            values = [seed.mean_recall for seed in statistics.seeds]
            panel.plot([place] * len(values), values, ".", markersize=3.5, color=QUIET)
            panel.errorbar(place, statistics.mean.mean_recall, statistics.std.mean_recall, capsize=2.5, linewidth=1,
                           marker=marker(variant.method), markersize=6, color=shade,
                           markerfacecolor="white" if variant.name else shade)
        else:
            panel.text(place, 0.04, "not run", transform=panel.get_xaxis_transform(), rotation=90, ha="center",
                       va="bottom", fontsize=7.5, color=QUIET)
    methods = dict.fromkeys(title(variant.method) for variant in variants)
    panel.set_title(f"{family}\n({', '.join(methods)})")
    panel.set_xlim(-0.5, len(variants) - 0.5)
    panel.set_xticks(range(len(variants)), [variant.name or AS_IT_IS for variant in variants], rotation=30, ha="right",
                     fontsize=7.5)
