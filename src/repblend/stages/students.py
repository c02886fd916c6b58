"""Students as `params.yaml` describes them: what the stages that train them have in common."""

from repblend.data.features import Features
from repblend.encoders.heads import HeadSpec
from repblend.evaluation.evaluate import Evaluator
from repblend.evaluation.protocol import HeadPair, Split
from repblend.evaluation.student import Recipe, published_decay_start
from repblend.experts.training import TrainingPairs
from repblend.matching.synthetic_set import SyntheticSet
from repblend.params import Evaluate, Params, StudentSchedule
from repblend.stages.context import Cell


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


def schedule_of(cell: Cell, params: Params) -> StudentSchedule:
    """Return how long students train on a cell's set."""
    return params.evaluate.coresets if cell.method in params.grid.coresets else params.evaluate.distilled


def recipe_of(synthetic: SyntheticSet, settings: Evaluate, schedule: StudentSchedule) -> Recipe:
    """Return how students are optimised on a set: its own loss and learning rates, the rest as the parameters say."""
    return Recipe(synthetic.lr_img, synthetic.lr_txt, settings.momentum, settings.weight_decay,
                  synthetic.metadata["loss"], settings.temperature, published_decay_start(schedule.epochs))
