"""Stage `encoder-experts`: experts that train the whole image encoder and a text head (PAPER.md sections 2 and 5.4).

What MTT-VL, TESLA-VL and LoRS match. The experts see the same augmented views as those of stage `experts`, as pixels.
"""

import torch

from repblend.data.features import Features, feature_files, read_features
from repblend.data.images import normalise, read_images
from repblend.data.karpathy import read_annotations
from repblend.data.views import make_view
from repblend.encoders.image import ImageEncoder
from repblend.encoders.registry import load_image_encoder
from repblend.experts.training import TrainingPairs
from repblend.stages.context import StageContext
from repblend.stages.expert_training import ExpertProblem, train_experts
from repblend.stages.students import encoder_students

SECTIONS = ["compute", "data", "encode", "encoder_experts"]


def run(context: StageContext) -> None:
    """Train all experts; write `encoder-experts/` and `metrics/encoder-experts.json`."""
    params, paths = context.params, context.paths
    features = read_features(paths.features)
    encoder = load_image_encoder(params.encode.image_encoder, params.data.image_size)
    model = encoder_students(params, paths, features, encoder)
    problem = ExpertProblem("encoder expert", params.encoder_experts, _pixel_pairs(context, features, encoder),
                            model.val, model.towers)
    train_experts(context, SECTIONS, problem, paths.encoder_experts,
                  [*sorted(feature_files(paths.features)), paths.data / "manifest.json"])


def _pixel_pairs(context: StageContext, features: Features, encoder: ImageEncoder) -> TrainingPairs:
    """The real training set with every view of every image as normalised pixels, (V, I, 3, H, W)."""
    params, views = context.params, context.params.encode.views
    train = read_annotations(context.paths.data, params.data.name, params.data.max_caption_words).train
    images = read_images(context.paths.data, [image.image for image in train], params.data.image_size)
    shown = [normalise(make_view(images, view, views.crop_scale_min, views.flip, params.seed), encoder.mean,
                       encoder.std) for view in range(views.num)]
    return TrainingPairs(torch.stack(shown), features.train_texts, features.train_image_index)
