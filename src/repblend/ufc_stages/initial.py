"""Stage `initial`: draw the real images that compensators are added to, enough for the largest budget."""

from repblend.stages.provenance import provenance
from repblend.store import sha256, write_json
from repblend.ufc.initial import write_initial_images
from repblend.ufc_stages.context import UfcContext
from repblend.ufc_stages.inputs import budget_of, read_pinned_data

SECTIONS = ["compute", "data", "teachers", "budgets"]


def run(context: UfcContext) -> None:
    """Write `initial/` and `metrics/initial.json`, which says what every budget allows."""
    params, paths, train = context.params, context.paths, read_pinned_data(context).train
    budgets = [budget_of(ipc, train.num_classes, params) for ipc in params.budgets]
    num = max(budget.num_real for budget in budgets)
    write_initial_images(paths.initial, train, num, params.seed)
    write_json(paths.metrics("initial"), {
        "num_per_class": num, "sha256": {path.name: sha256(path) for path in sorted(paths.initial.iterdir())},
        "budgets": [{"ipc": budget.ipc, "num_real": budget.num_real, "num_slots": budget.num_slots,
                     "num_compensators": budget.num_compensators, "num_stored": budget.num_stored,
                     "num_allowed": budget.num_allowed} for budget in budgets],
        "provenance": provenance(context, SECTIONS, [paths.metrics("prepare")])})
