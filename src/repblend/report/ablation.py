"""What each part of the method brings: LoRS, with blending (RB), with symmetric matching (SM), with both (Figure 5)."""

from pathlib import Path

from repblend.report.bars import draw_groups, method_legend
from repblend.report.canvas import WIDTH, canvas, save
from repblend.report.metrics import PROTOCOLS, Metrics
from repblend.report.table import Column, Row, Table, stored_number

PARTS = {"lors": (False, False), "repblend-without-matching": (True, False),
         "repblend-without-blending": (False, True), "repblend": (True, True)}
"""Method -> whether it blends, whether it matches both heads."""
TITLES = {"lors": "LoRS", "repblend-without-matching": "LoRS + RB", "repblend-without-blending": "LoRS + SM",
          "repblend": "LoRS + RB + SM = RepBlend"}


def ablation_table(metrics: Metrics) -> Table:
    """Return the mean recall with and without each part, per budget; raises as `Metrics.evaluation`."""
    rows = [_row(metrics, budget, method) for budget in metrics.grid.budgets for method in PARTS]
    return Table("ablation", "Ours in the form of the paper's Figure 5, whose values are unknown: mean of the six "
                 "recalls in percent, with and without representation blending (RB) and symmetric matching (SM), by "
                 "both protocols (mean ± standard deviation over the evaluation seeds)",
                 (Column("pairs", "Pairs"), Column("method", "Method"), Column("rb", "RB"), Column("sm", "SM"),
                  Column("held_out", "Held-out", spread=True), Column("faithful", "Faithful", spread=True)),
                 tuple(rows))


def _row(metrics: Metrics, budget: int, method: str) -> Row:
    name = f"{method}-{budget}"
    found = metrics.evaluation(name)
    parts = ("yes" if part else "no" for part in PARTS[method])
    numbers = (stored_number(found["protocols"][protocol], "mean_recall", f"protocols.{protocol}") if found else None
               for protocol in PROTOCOLS)
    return Row((budget, TITLES[method], *parts, *numbers), metrics.file("evaluate", name) if found else None)


def ablation(metrics: Metrics, folder: Path) -> None:
    """Bars of the held-out mean recall, a group per budget."""
    with canvas(1, 1, 0.75 * WIDTH, 3.6) as (figure, (panel,)):
        draw_groups(panel, metrics, "held-out", tuple(PARTS))
        panel.set_ylabel("mean of the six recalls,\nheld-out (%)")
        figure.legend(handles=method_legend(TITLES), loc="outside lower center", ncols=2)
        save(figure, folder, "ablation")
