"""Stage `prepare`: read the data set and pin it by its hashes; later stages refuse any other."""

from repblend.stages.provenance import provenance
from repblend.store import write_json
from repblend.ufc_stages.context import UfcContext
from repblend.ufc_stages.inputs import read_data, split_hashes

SECTIONS = ["compute", "data"]


def run(context: UfcContext) -> None:
    """Write `metrics/prepare.json`."""
    data, splits = context.params.data, read_data(context)
    write_json(context.paths.metrics("prepare"), {
        "name": data.name, "num_classes": splits.train.num_classes, "image_size": data.image_size,
        "num_images": {name: len(split) for name, split in splits._asdict().items()},
        "sha256": split_hashes(splits), "provenance": provenance(context, SECTIONS, [])})
