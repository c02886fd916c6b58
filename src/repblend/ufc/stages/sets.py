"""Stages that choose images and make sets: `prepare`, `initial`, `integrate` and `select`.

A set is what students train on. `ufc` has compensators added to real images; `real` is UFC's own real images without
any compensator, fewer than the budget allows, which says what the compensators add; `random` is as many real images per
class as the budget allows. All are stored in the same layout.
"""

import itertools
from collections.abc import Mapping
from pathlib import Path

import torch

from repblend.files import confirmed
from repblend.runtime.context import write_cell
from repblend.runtime.provenance import provenance
from repblend.store import atomic_path, fingerprint, folder_sha256
from repblend.ufc import integration, records, released
from repblend.ufc.data import (
    MANIFEST,
    MAX_PIXEL,
    InitialImages,
    LabelledImages,
    Normalisation,
    draw_positions,
    write_initial_images,
)
from repblend.ufc.generation import Compensators
from repblend.ufc.readers import read_splits
from repblend.ufc.stages.pipeline import UfcContext
from repblend.ufc.stages.setup import (
    budget_of,
    drawn_places,
    first_image,
    first_place,
    normalisation_of,
    read_pinned_data,
)


def prepare(context: UfcContext) -> None:
    """Read the data set and pin it by its hashes, in `records/prepare.json`; later stages refuse any other."""
    data = context.params.data
    splits = read_splits(data, context.paths.repository, context.params.seed)._asdict()
    records.PreparedImages(
        name=data.name, num_classes=splits["train"].num_classes, image_size=data.image_size,
        num_images={name: len(split) for name, split in splits.items()},
        sha256={name: split.sha256() for name, split in splits.items()}, provenance=provenance(context, []),
    ).write(context.paths.record("prepare"))


def initial(context: UfcContext) -> None:
    """Draw or import the real images that compensators are added to, enough for the largest budget.

    Writes `initial/`, and `records/initial.json`, which says what every budget allows.

    Raises:
        ValueError: files to import are missing, damaged or others than the parameters say.
    """
    params, paths = context.params, context.paths
    budgets = [budget_of(ipc, params) for ipc in params.budgets]
    places, train = drawn_places(params), read_pinned_data(context).train
    if source := params.data.initial_from:
        folder = paths.repository / source.path
        files = released.initial_files(folder, len(places), train.num_classes)
        with atomic_path(paths.initial) as aside:
            confirmed(source.sha256, lambda: released.check_imported("data.initial_from", source, folder,
                                                                     itertools.chain(*files)),
                      lambda: released.import_initial(files, aside, train.num_classes, params.data.image_size,
                                                      normalisation_of(params)))
    else:
        write_initial_images(paths.initial, train, places, params.seed)
    counts = [records.BudgetCounts(**{name: getattr(budget, name) for name in records.BudgetCounts.model_fields})
              for budget in budgets]
    records.DrawnImages(num_per_class=len(places), sha256=folder_sha256(paths.initial), budgets=counts,
                        provenance=provenance(context, [paths.record("prepare")])).write(paths.record("initial"))


def integrate(context: UfcContext) -> None:
    """Add compensators to real images, clip and store them, for one budget.

    Writes the folder `sets/ufc-<budget>`, its record and pictures.

    Raises:
        ValueError: the cell is not UFC's, or an input is missing or damaged.
    """
    params, paths, cell = context.params, context.paths, context.cell
    if cell.without_seed.method != "ufc":
        raise ValueError(f"cell {cell}: expected ufc-{cell.budget}; real images come from stage select")
    names, normalisation = params.teachers.architectures, normalisation_of(params)
    budget = budget_of(cell.budget, params)
    if source := params.generation.import_from:
        folder = paths.repository / source.path
        with atomic_path(paths.set(cell)) as aside:
            confirmed(source.sha256, lambda: released.check_imported(
                "generation.import_from", source, folder, sorted(folder.glob("new*/*.jpg"))),
                lambda: integration.import_released_set(folder, aside, budget.num_classes, budget.num_slots))
        images = integration.read_image_set(paths.set(cell))
        _write_record(context, images, len(images), [])
        return
    compensators = {name: Compensators.read(paths.compensators(name)) for name in names}
    integration.write_integrated(paths.set(cell), InitialImages(paths.initial), compensators, budget, normalisation,
                                 params.generation, first_image(cell.seed, params))
    images = integration.read_image_set(paths.set(cell))
    _write_record(context, images, budget.num_stored, [paths.record("initial"), *map(paths.compensators, names)],
                  budget.num_real * budget.num_classes, budget.num_compensators,
                  *(() if cell.seed else _pictures(images, compensators, budget, normalisation)))


def select(context: UfcContext) -> None:
    """Store a set of real images that UFC is compared with; write the folder `sets/<cell>` and its record; raises
    `ValueError` if no such set of real images is known, or an input is missing or damaged.
    """
    params, paths, cell = context.params, context.paths, context.cell
    normalisation = normalisation_of(params)
    name = cell.without_seed.method
    if name == "random":  # the first n0 of every class are the initial images of the same draw
        train, first = read_pinned_data(context).train, first_place(cell.seed, params)
        order = draw_positions(train.labels, train.num_classes, first + cell.budget, params.seed)
        integration.write_images(paths.set(cell), train.select(order[:, first:].flatten()), normalisation,
                                 params.generation)
    elif name == "real":
        integration.write_integrated(paths.set(cell), InitialImages(paths.initial), {}, budget_of(cell.budget, params),
                                     normalisation, params.generation, first_image(cell.seed, params))
    else:
        raise ValueError(f"cell {cell}: expected random-{cell.budget} or real-{cell.budget}; UFC's set comes from "
                         "stage integrate")
    images = integration.read_image_set(paths.set(cell))
    _write_record(context, images, len(images), [paths.record("prepare"), paths.record("initial")])


def _write_record(context: UfcContext, images: LabelledImages, num_counted: int, inputs: list[Path],
                  num_real: int | None = None, num_compensators: int = 0, pictures: records.SetPictures | None = None,
                  files: Mapping[str, bytes] | None = None) -> None:
    """Write a set's record; all of its images are real ones unless `num_real` says how many are."""
    paths, cell, num = context.paths, context.cell, len(images)
    values = images.images[0].numel()
    stored = records.StoredBytes(
        real_images=(num if num_real is None else num_real) * values,
        compensators=num_compensators * values * integration.BYTES_PER_FLOAT,
        integrated=integration.SetManifest.read(paths.set(cell) / MANIFEST).num_bytes,
        static_labels=num * images.num_classes * integration.BYTES_PER_FLOAT)
    write_cell(paths.record("sets", cell), records.MadeSet(
        cell=cell.record, num_images=num, set_sha256=fingerprint(folder_sha256(paths.set(cell))),
        num_counted=num_counted, num_allowed=cell.budget * images.num_classes, stored_bytes=stored, pictures=pictures,
        provenance=provenance(context, inputs)), files or {})


SHOWN_CLASSES, SHOWN_IMAGES = 10, 2
"""At most so many classes and image indices are shown: the first ones."""


def _pictures(images: LabelledImages, compensators: Mapping[str, Compensators], budget: integration.Budget,
              normalisation: Normalisation) -> tuple[records.SetPictures, dict[str, bytes]]:
    """Picture every slot of the shown image indices, its classes side by side, and every compensator that was added.

    A compensator is a difference: 0 is mid-grey, and the largest of the shown ones reaches black or white.

    Returns:
        What is shown, and PNG files by the names that the record has for them.
    """
    num_classes, num_images = min(SHOWN_CLASSES, budget.num_classes), min(SHOWN_IMAGES, budget.num_real)
    files: dict[str, bytes] = {}
    slots, names = [], list(compensators)
    for slot in (slot for slot in budget.slots() if slot.image < num_images):
        shown = records.SlotPicture(architecture=None if slot.architecture is None else names[slot.architecture],
                                    image=slot.image)
        files[shown.png] = _png(torch.cat([images.images[label * budget.num_slots + slot.number]
                                           for label in range(num_classes)], dim=2))
        slots.append(shown)
    deviation = torch.tensor(normalisation.std).view(3, 1, 1)
    differences = {
        records.CompensatorPicture(architecture=name, image=image): compensators[name].values[image] * deviation
        for name in names for image in range(num_images)}
    largest = max(float(difference.abs().max()) for difference in differences.values()) or 1.0
    files |= {shown.png: _png(0.5 + difference / (2 * largest)) for shown, difference in differences.items()}
    return records.SetPictures(num_classes=num_classes, slots=slots, compensators=list(differences),
                               largest_change=round(largest, 6)), files


def _png(pixels: torch.Tensor) -> bytes:
    """Return (3, H, W) pixels, uint8 or floats between 0 and 1, as a PNG file."""
    if pixels.dtype != torch.uint8:
        pixels = (pixels.clamp(0, 1) * MAX_PIXEL).round().to(torch.uint8)
    return integration.encode(pixels, "png")
