"""Stage `prepare`: put the dataset into the BLIP/Karpathy layout and write down the SHA-256 of every file."""

from pathlib import Path

from repblend.data import openmoji
from repblend.data.karpathy import SPLITS, annotation_file, read_annotations
from repblend.stages.context import StageContext
from repblend.stages.provenance import provenance
from repblend.store import sha256, write_json

SECTIONS = ["data"]
HASHED = ["manifest.json", *(annotation_file(Path(), openmoji.NAME, split).name for split in SPLITS)]
"""Files whose hashes stand in the metrics; the manifest holds those of the images."""


def run(context: StageContext) -> None:
    """Build the embedded set and read it back once; write `data/prepared/` and `metrics/prepare.json`."""
    data, paths = context.params.data, context.paths
    manifest = openmoji.build(paths.data, data.image_size, data.num_val, data.num_test, data.max_train,
                              data.max_caption_words)
    read_annotations(paths.data, data.name, data.max_caption_words)
    write_json(paths.metrics("prepare"), {"name": manifest["name"], "counts": manifest["counts"],
                                          "packages": manifest["packages"],
                                          "sha256": {name: sha256(paths.data / name) for name in HASHED},
                                          "provenance": provenance(context, SECTIONS, [])})
