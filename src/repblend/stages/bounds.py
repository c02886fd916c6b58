"""Stage `bounds`: what the full training set reaches, and what chance alone would; both beside every result."""

from repblend.data.features import feature_files, read_features
from repblend.evaluation.recall import chance_recalls
from repblend.evaluation.student import Recipe
from repblend.evaluation.towers import HeadPair
from repblend.experts.training import TrainingPairs
from repblend.grid import complete
from repblend.records.base import CellName, Recalls
from repblend.records.results import Chance, Evaluation, flat_metrics
from repblend.runtime.provenance import provenance, write_metric
from repblend.stages.pipeline import Context
from repblend.stages.students import make_evaluator, write_evaluation

FULL_DATA, CHANCE = "full-data", "chance"


def run(context: Context) -> None:
    """Write records and metrics of `full-data` and `chance`, as those of an evaluated cell."""
    params, paths = context.params, context.paths
    features, experts = read_features(paths.features), params.experts
    made = provenance(context, feature_files(paths.features))
    heads = HeadPair.of_widths(*features.widths, params.heads.width, params.heads.dropout)
    schedule = complete(params.evaluate.full_data, params.evaluate)
    evaluator = make_evaluator(schedule, params, {"val": features.val, "test": features.test}, heads,
                               params.evaluate.num_seeds)
    recipe = Recipe(experts.lr, experts.lr, params.evaluate.momentum, params.evaluate.weight_decay, "infonce",
                    experts.temperature, decay_from=None)
    pairs = TrainingPairs.of(features)
    num_pairs = len(pairs.texts)
    scores = evaluator.evaluate_full_data(pairs, recipe)
    write_evaluation(Evaluation(**scores.to_json(), cell=CellName(method=FULL_DATA, budget=num_pairs),
                                num_pairs=num_pairs, stored_bytes=None, provenance=made), FULL_DATA, paths)
    chance = Chance(expected=Recalls(**chance_recalls(features.test.text_to_image)), provenance=made)
    chance.write(paths.record("evaluate", CHANCE))
    for protocol in ("held-out", "faithful"):  # no epoch to choose: the same by both
        write_metric(paths.metric(protocol, CHANCE), flat_metrics(chance.expected), made)
