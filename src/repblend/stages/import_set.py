"""Import of a set by the stage `distill`: a distilled set of the official release as ours, taken as it is.

Nothing is distilled, so the metrics have no curves; later stages evaluate it as any other set.
"""

from repblend.data.features import feature_files, read_features
from repblend.data.karpathy import read_annotations
from repblend.encoders.registry import load_image_encoder
from repblend.matching.synthetic_set import SyntheticSet
from repblend.methods import find_method
from repblend.release.official_set import read_distilled
from repblend.stages.context import StageContext
from repblend.stages.imported import identify, located
from repblend.stages.provenance import provenance
from repblend.stages.specimens import look_at
from repblend.store import write_json


def import_set(context: StageContext, sections: list[str]) -> None:
    """Write the cell's set, `metrics/distill/<cell>.json` and `metrics/specimens/<cell>.json`.

    Args:
        sections: parameter sections that the stage uses.

    Raises:
        ValueError: the file is missing, damaged, no distilled set, not what `sha256` says, or does not fit the cell.
    """
    params, paths, cell = context.params, context.paths, context.cell
    settings = params.distill.settings(str(cell))
    path = located(settings.import_from, paths)
    result = read_distilled(path, {"cell": cell.to_json(), "loss": settings.loss, "imported": path.name})
    imported = identify(f"distill.cells.{cell}.import_from", settings.import_from, [path])
    features = read_features(paths.features)
    _check_fit(str(path), result, context, features.widths[1])
    train = read_annotations(paths.data, params.data.name, params.data.max_caption_words).train
    encoder = load_image_encoder(params.encode.image_encoder, params.data.image_size).to(params.compute.device)
    captions = [caption for image in train for caption in image.captions]
    record = {"cell": cell.to_json(), "imported": imported, "provenance": provenance(
        context, sections, [*feature_files(paths.features), paths.data / "manifest.json"])}
    result.write(paths.set(cell))
    write_json(paths.metrics("specimens", cell),
               record | look_at(result, encoder, features.train_texts, captions, initial=None))
    write_json(paths.metrics("distill", cell), record | {"num_pairs": result.num_pairs})


def _check_fit(place: str, result: SyntheticSet, context: StageContext, text_width: int) -> None:
    """Check that the set has the pairs of its cell, and images and texts of the workspace's sizes."""
    cell, size = context.cell, context.params.data.image_size
    num_pairs = find_method(cell.base_method).num_pairs(cell.budget)
    for what, found, expected, source in (
            ("pairs", result.num_pairs, num_pairs, f"the budget of {cell}"),
            ("image sides", tuple(result.images.shape[2:]), (size, size), "data.image_size"),
            ("text width", result.texts.shape[1], text_width, "encode.text_encoder")):
        if found != expected:
            raise ValueError(f"{place}: {what} {found}, expected {expected} by {source}. Import a set that fits, or "
                             "change the parameter")
