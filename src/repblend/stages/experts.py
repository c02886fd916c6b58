"""Stage `experts`: train the expert heads on frozen features and keep their trajectories (PAPER.md section 5.4).

The features are those that stage `encode` cached; with `experts.views: fresh`, as published, images are augmented anew
and encoded whenever they are drawn. Resumes after the last expert that was finished; every expert draws from streams of
its own, so the bytes are the same.
With `experts.import_from`, the trajectories are the official release's instead.
"""

from functools import partial

from repblend.data.features import Features, feature_files, read_features
from repblend.encoders.image import encode_in_chunks
from repblend.encoders.registry import load_image_encoder
from repblend.evaluation.towers import HeadPair
from repblend.experts.training import Pairs
from repblend.release.official_buffers import Layouts
from repblend.stages.context import StageContext
from repblend.stages.drawn_pairs import pairs_from_files
from repblend.stages.expert_training import ExpertProblem, train_experts
from repblend.stages.import_experts import ExpertImport, import_experts
from repblend.stages.students import captions_of, training_pairs

SECTIONS = ["compute", "data", "encode", "heads", "experts"]
SECTIONS_CACHED = ["compute", "heads", "experts"]
"""Those that decide what is trained on cached features, besides the features themselves."""


def run(context: StageContext) -> None:
    """Train or import all experts; write `experts/` and `metrics/experts.json`."""
    params, paths = context.params, context.paths
    features, fresh = read_features(paths.features), params.experts.views == "fresh"
    heads = HeadPair.of_widths(*features.widths, params.heads.width, params.heads.dropout)
    cached = not fresh and params.experts.text_mode == "eval"
    inputs = [*sorted(feature_files(paths.features)), *([] if cached else [paths.data / "manifest.json"])]
    sections = SECTIONS_CACHED if cached else SECTIONS
    if params.experts.import_from:
        source = ExpertImport("experts", params.experts, heads, Layouts(heads.img, heads.txt), features.val)
        import_experts(context, sections, source, paths.experts, inputs)
        return
    pairs = _fresh_pairs(context, features) if fresh else training_pairs(features)
    problem = ExpertProblem("expert", params.experts, pairs, features.val, heads,
                            captions_of(params.experts, params, paths))
    train_experts(context, sections, problem, paths.experts, inputs)


def _fresh_pairs(context: StageContext, features: Features) -> Pairs:
    params = context.params
    encoder = load_image_encoder(params.encode.image_encoder, params.data.image_size).to(params.compute.device)
    encode = partial(encode_in_chunks, encoder, chunk=params.compute.encoder_chunk)
    return pairs_from_files(context, params.experts, features, encoder, encode)
