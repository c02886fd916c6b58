"""Students as `params.yaml` describes them: what `distill`, `evaluate`, `bounds` and `select` have in common."""

from repblend.data.features import Features
from repblend.encoders.heads import HeadSpec
from repblend.evaluation.evaluate import Evaluator
from repblend.evaluation.protocol import HeadPair, Split
from repblend.experts.training import TrainingPairs
from repblend.params import Evaluate, StudentSchedule


def head_pair(features: Features, width: int) -> HeadPair:
    """Return the sizes of both heads on these features."""
    return HeadPair(HeadSpec(features.train_images.shape[-1], width), HeadSpec(features.train_texts.shape[-1], width))


def training_pairs(features: Features) -> TrainingPairs:
    """Return the real training set as frozen features."""
    return TrainingPairs(features.train_images, features.train_texts, features.train_image_index)


def make_evaluator(settings: Evaluate, schedule: StudentSchedule, splits: dict[str, Split], heads: HeadPair,
                   num_seeds: int, seed: int) -> Evaluator:
    """Return how sets are evaluated on the given splits."""
    return Evaluator(splits, heads, seed, num_seeds, schedule.epochs, schedule.scored_intervals, settings.batch_size)
