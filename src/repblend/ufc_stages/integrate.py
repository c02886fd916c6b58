"""Stage `integrate`: compensators added to real images, clipped and stored, for one budget."""

from repblend.stages.provenance import provenance
from repblend.store import write_json
from repblend.ufc.budget import stored_bytes
from repblend.ufc.generation import Compensators
from repblend.ufc.initial import InitialImages
from repblend.ufc.integration import read_image_set, write_integrated
from repblend.ufc_stages.context import UfcContext
from repblend.ufc_stages.inputs import budget_of, folder_hash, normalisation_of
from repblend.ufc_stages.specimens import specimens

SECTIONS = ["compute", "data", "teachers", "generation"]


def run(context: UfcContext) -> None:
    """Write the folder `sets/ufc-<budget>` and `metrics/sets/ufc-<budget>.json`.

    Raises:
        ValueError: the cell is not UFC's, or an input is missing or damaged.
    """
    params, paths, cell = context.params, context.paths, context.cell
    if cell.method != "ufc":
        raise ValueError(f"cell {cell}: expected ufc-{cell.budget}; real images come from stage select")
    initial, names = InitialImages(paths.initial), params.teachers.architectures
    budget = budget_of(cell.budget, initial.num_classes, params)
    compensators = {name: Compensators.read(paths.compensators(name)) for name in names}
    write_integrated(paths.set(cell), initial, compensators, budget, normalisation_of(context), params.generation)
    images = read_image_set(paths.set(cell))
    stored = stored_bytes(budget, initial.image_size, images.num_bytes, compensators[names[0]].values.shape[1])
    inputs = [paths.metrics("initial"), *map(paths.compensators, names)]
    write_json(paths.metrics("sets", cell), {
        "cell": cell.to_json(), "num_images": len(images.labels), "set_sha256": folder_hash(paths.set(cell)),
        "num_counted": budget.num_stored,
        "num_allowed": budget.num_allowed, "stored_bytes": stored.__dict__,
        "specimens": specimens(images, compensators, budget, normalisation_of(context)),
        "provenance": provenance(context, SECTIONS, inputs)})
