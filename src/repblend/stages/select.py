"""Stage `select`: choose a coreset of real pairs; the methods are in `repblend.coresets`."""

import torch

from repblend.coresets import RealPairs, choose
from repblend.data.features import feature_files, read_features
from repblend.encoders.registry import PUBLISHED_MEAN, PUBLISHED_STD
from repblend.evaluation.towers import HeadPair
from repblend.matching.similarity import IdentitySimilarity
from repblend.matching.synthetic_set import SyntheticSet
from repblend.records.outputs import RealPair, Selected
from repblend.runtime.provenance import provenance
from repblend.stages.pipeline import Context
from repblend.stages.setup import annotations_of, captions_in, read_pixels
from repblend.streams import seed_of_set


def run(context: Context) -> None:
    """Choose one cell's pairs; write its set and `records/select/<cell>/record.json`."""
    params, paths, cell, select = context.params, context.paths, context.cell, context.params.select
    features, train = read_features(paths.features), annotations_of(params, paths).train
    method, seed = cell.base_method, seed_of_set(params.seed, cell.seed)
    heads = HeadPair.of_widths(*features.widths, params.heads.width, params.heads.dropout)
    pairs = choose(method, cell.budget, RealPairs(features, heads, select, seed))
    shown = [train[features.train_image_index[pair]] for pair in pairs]
    # Every encoder sees images with this mean and deviation, so none has to be loaded.
    mean, std = torch.tensor(PUBLISHED_MEAN), torch.tensor(PUBLISHED_STD)
    images = read_pixels(paths, shown, params.data.image_size, mean, std)
    SyntheticSet(images, features.texts_of(pairs), IdentitySimilarity(len(pairs)), select.lr_img[method],
                 select.lr_txt[method], {"cell": cell.to_json(), "loss": select.loss, "pairs": pairs}
                 ).write(paths.set(cell))
    captions = captions_in(train)
    Selected(cell=cell.record, pairs=[RealPair(image=image.image, caption=captions[pair])
                                      for image, pair in zip(shown, pairs, strict=True)],
             provenance=provenance(context, [*feature_files(paths.features), paths.data / "manifest.json"])
             ).write(paths.record("select", cell))
