"""Stage `prepare`: put the dataset into the BLIP/Karpathy layout and write down the SHA-256 of every file.

The embedded set is drawn; of a real one the annotations are cleaned and written, while its images stay where they are.
"""

from pathlib import Path

from repblend.data import openmoji
from repblend.data.karpathy import SPLITS, annotation_file, read_annotations
from repblend.data.source import build, source_of
from repblend.data_params import OpenMojiData, RealData
from repblend.stages.context import StageContext
from repblend.stages.provenance import provenance
from repblend.store import JSON, sha256, write_json

SECTIONS = ["data"]


def run(context: StageContext) -> None:
    """Prepare the dataset and read it back once; write `data/prepared/` and `metrics/prepare.json`."""
    data, paths = context.params.data, context.paths
    manifest = _embedded(data, context) if isinstance(data, OpenMojiData) else _real(data, context)
    read_annotations(paths.data, data.name, data.max_caption_words)
    # The manifest holds the hashes of the images.
    hashed = ["manifest.json", *(annotation_file(Path(), data.name, split).name for split in SPLITS)]
    write_json(paths.metrics("prepare"), {"name": manifest["name"], "counts": manifest["counts"],
                                          "packages": manifest["packages"],
                                          "sha256": {name: sha256(paths.data / name) for name in hashed},
                                          "provenance": provenance(context, SECTIONS, [])})


def _embedded(data: OpenMojiData, context: StageContext) -> JSON:
    return openmoji.build(context.paths.data, data.image_size, data.num_val, data.num_test, data.max_train,
                          data.max_caption_words)


def _real(data: RealData, context: StageContext) -> JSON:
    journal = context.paths.checkpoint("prepare", "images.jsonl")
    manifest = build(context.paths.data, source_of(data, context.paths.repository), data, journal)
    journal.unlink(missing_ok=True)
    return manifest
