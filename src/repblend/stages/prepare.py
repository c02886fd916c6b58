"""Stage `prepare`: put the data set into the BLIP/Karpathy layout and write down the SHA-256 of every file.

The embedded set is drawn; of a real one the annotations are cleaned and written, while its images stay where they are.
"""

from pathlib import Path

from repblend.data import openmoji
from repblend.data.karpathy import SPLITS, annotation_file, read_annotations
from repblend.data.source import build, kept_of, source_of
from repblend.params.data import Data, OpenMojiData
from repblend.records.outputs import Prepared
from repblend.runtime.provenance import provenance
from repblend.stages.pipeline import Context
from repblend.store import JSON, sha256


def run(context: Context) -> None:
    """Prepare the data set and read it back once; write `data/prepared/` and `records/prepare.json`."""
    data, paths = context.params.data, context.paths
    if isinstance(data, OpenMojiData):
        manifest = openmoji.build(paths.data, data.image_size, data.num_val, data.num_test, data.max_train,
                                  data.max_caption_words, data.fold)
    else:
        journal = paths.checkpoint("prepare", "images.jsonl")
        manifest = build(paths.data, source_of(data, paths.repository), data, journal)
        journal.unlink(missing_ok=True)
    read_annotations(paths.data, data.name, data.max_caption_words)
    # The manifest holds the hashes of the images.
    hashed = ["manifest.json", *(annotation_file(Path(), data.name, split).name for split in SPLITS)]
    Prepared(name=manifest["name"], counts=manifest["counts"], packages=manifest["packages"],
             sha256={name: sha256(paths.data / name) for name in hashed},
             provenance=provenance(context, [])).write(paths.record("prepare"))


def counts_ahead(data: Data, repository: Path) -> JSON | None:
    """Return how many images and captions this stage is going to count in each split: the captions alone are read.

    Args:
        data: the entry of the parameters.
        repository: what a relative folder starts at.

    Returns:
        As the manifest has them; None where the folder or a file of captions is not there yet.

    Raises:
        ValueError: a row is not as it should be, or a split is left without an image.
    """
    if isinstance(data, OpenMojiData):
        drawings = openmoji.find_drawings(data.max_caption_words)
        return openmoji.annotations_of(openmoji.split_drawings(
            drawings, data.num_val, data.num_test, data.max_train, data.fold)).counts()
    if not (repository / data.folder).is_dir():
        return None
    captions = source_of(data, repository).captions
    return kept_of(captions.read(), data).counts() if all(file.exists() for file in captions.files) else None
