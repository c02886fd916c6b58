"""Stage `prepare`: put the dataset into the BLIP/Karpathy layout and write down the SHA-256 of every file."""

from repblend.data import openmoji
from repblend.data.karpathy import read_annotations
from repblend.stages.context import StageContext
from repblend.stages.provenance import provenance
from repblend.store import write_json

SECTIONS = ["data"]


def run(context: StageContext) -> None:
    """Build the embedded set and read it back once; write `data/prepared/` and `metrics/prepare.json`."""
    data, paths = context.params.data, context.paths
    manifest = openmoji.build(paths.data, data.image_size, data.num_val, data.num_test, data.max_train,
                              data.max_caption_words)
    read_annotations(paths.data, data.name, data.max_caption_words)
    write_json(paths.metrics("prepare"), {"name": manifest["name"], "counts": manifest["counts"],
                                          "packages": manifest["packages"],
                                          "provenance": provenance(context, SECTIONS, [])})
