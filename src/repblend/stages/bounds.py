"""Stage `bounds`: what the full training set reaches, and what chance alone would; both beside every result."""

from repblend.data.features import feature_files, read_features
from repblend.evaluation.recall import chance_recalls
from repblend.evaluation.student import Recipe
from repblend.evaluation.towers import HeadPair
from repblend.stages.context import StageContext
from repblend.stages.provenance import provenance
from repblend.stages.students import make_evaluator, training_pairs
from repblend.store import write_json

SECTIONS = ["compute", "heads", "experts", "evaluate"]


def run(context: StageContext) -> None:
    """Write `metrics/evaluate/full-data.json` and `metrics/evaluate/chance.json`."""
    params, paths = context.params, context.paths
    features = read_features(paths.features)
    record = {"provenance": provenance(context, SECTIONS, feature_files(paths.features))}
    heads = HeadPair.of_widths(*features.widths, params.heads.width, params.heads.dropout)
    splits = {"val": features.val, "test": features.test}
    evaluator = make_evaluator(params, params.evaluate.full_data, splits, heads, params.evaluate.num_seeds)
    experts = params.experts
    recipe = Recipe(experts.lr, experts.lr, params.evaluate.momentum, params.evaluate.weight_decay, "infonce",
                    experts.temperature, decay_from=None)
    pairs = training_pairs(features)
    scores = evaluator.evaluate_full_data(pairs, recipe)
    cell = {"method": "full-data", "budget": len(pairs.texts)}
    write_json(paths.metrics("evaluate", "full-data"),
               scores.to_json() | record | {"cell": cell, "num_pairs": len(pairs.texts), "stored_bytes": None})
    write_json(paths.metrics("evaluate", "chance"),
               record | {"unit": "percent", "expected": chance_recalls(features.test.text_to_image)})
