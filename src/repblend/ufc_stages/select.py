"""Stage `select`: sets of real images that UFC is compared with, stored in the same layout.

`random`: as many images per class as the budget allows. `real`: UFC's own real images without any compensator, fewer
than the budget allows, which says what the compensators add.
"""

from repblend.stages.provenance import provenance
from repblend.store import write_json
from repblend.ufc.baselines import random_images
from repblend.ufc.initial import InitialImages
from repblend.ufc.integration import read_image_set, write_images, write_integrated
from repblend.ufc_stages.context import UfcContext
from repblend.ufc_stages.inputs import budget_of, folder_hash, normalisation_of, read_pinned_data

SECTIONS = ["compute", "data", "teachers", "generation"]


def run(context: UfcContext) -> None:
    """Write the folder `sets/<cell>` and `metrics/sets/<cell>.json`.

    Raises:
        ValueError: no such set of real images is known, or an input is missing or damaged.
    """
    paths, cell = context.paths, context.cell
    if cell.method not in SELECTIONS:
        raise ValueError(f"cell {cell}: expected one of {', '.join(SELECTIONS)} with a budget")
    SELECTIONS[cell.method](context)
    images = read_image_set(paths.set(cell))
    values = images.pixels[0].numel()
    write_json(paths.metrics("sets", cell), {
        "cell": cell.to_json(), "set_sha256": folder_hash(paths.set(cell)),
        "num_images": len(images.labels), "num_counted": len(images.labels),
        "num_allowed": cell.budget * images.num_classes,
        "stored_bytes": {"real_images": len(images.labels) * values, "compensators": 0, "integrated": images.num_bytes,
                         "static_labels": len(images.labels) * images.num_classes * 4},
        "provenance": provenance(context, SECTIONS, [paths.metrics("prepare"), paths.metrics("initial")])})


def _random(context: UfcContext) -> None:
    params, cell = context.params, context.cell
    drawn = random_images(read_pinned_data(context).train, cell.budget, params.seed)
    write_images(context.paths.set(cell), drawn.images, drawn.labels, drawn.num_classes, params.generation)


def _real(context: UfcContext) -> None:
    params, cell, initial = context.params, context.cell, InitialImages(context.paths.initial)
    write_integrated(context.paths.set(cell), initial, {}, budget_of(cell.budget, initial.num_classes, params),
                     normalisation_of(context), params.generation)


SELECTIONS = {"random": _random, "real": _real}
"""Every set of real images by its name."""
