"""Stage `evaluate`: five students on one coreset or distilled set, scored by both protocols (PAPER.md section 6).

Students are those of the set's method: heads on frozen encoders, or the whole image encoder and a text head where that
is what the method matches. `random+encoder-students` and the like train such students on a coreset, as their baseline.
"""

from repblend.data.features import feature_files, read_features
from repblend.encoders.registry import load_image_encoder
from repblend.evaluation.protocol import Scores
from repblend.matching.synthetic_set import SyntheticSet
from repblend.params import Params
from repblend.stages.cell_rules import is_coreset, schedule_of
from repblend.stages.cells import recipe_of, student_model
from repblend.stages.context import Cell, Paths, StageContext
from repblend.stages.provenance import provenance
from repblend.stages.students import make_evaluator
from repblend.store import write_json

SECTIONS = ["compute", "data", "encode", "heads", "evaluate"]


def run(context: StageContext) -> None:
    """Evaluate one cell; write `metrics/evaluate/<cell>.json`."""
    params, paths, cell = context.params, context.paths, context.cell
    path = paths.set(cell.base if is_coreset(cell, params) else cell)
    synthetic = SyntheticSet.read(path)
    scores = evaluate_cell(cell, synthetic, params, paths)
    write_json(paths.metrics("evaluate", cell), scores.to_json() | {
        "cell": cell.to_json(), "num_pairs": synthetic.num_pairs, "stored_bytes": synthetic.stored_bytes,
        "provenance": provenance(context, SECTIONS, [*feature_files(paths.features), path])})


def evaluate_cell(cell: Cell, synthetic: SyntheticSet, params: Params, paths: Paths) -> Scores:
    """Train a cell's students on a set and score them on both splits of the workspace.

    Raises:
        ValueError: a file of the workspace is missing or damaged, or a student diverged.
    """
    features = read_features(paths.features)
    encoder = load_image_encoder(params.encode.image_encoder, params.data.image_size).to(params.compute.device)
    model = student_model(cell, encoder, params, paths, features)
    evaluator = make_evaluator(params, schedule_of(cell, params), {"val": model.val, "test": model.test}, model.towers,
                               params.evaluate.num_seeds)
    return evaluator.evaluate_set(model.inputs(synthetic.images), synthetic.texts, synthetic.similarity.matrix(),
                                  recipe_of(cell, synthetic, params))
