"""Stage `evaluate`: students on one coreset or distilled set, scored by both protocols (`paper/METHOD.md`, section 8).

Students are those of the set's method: heads on frozen encoders, or the whole image encoder and a text head where that
is what the method matches. `random+encoder-students` and the like train such students on a coreset, as their baseline.
"""

from repblend.data.features import feature_files, read_features
from repblend.evaluation.protocol import Scores
from repblend.evaluation.student import OnEpoch
from repblend.grid import Cell, schedule_of
from repblend.matching.synthetic_set import SyntheticSet
from repblend.params import Params
from repblend.records.results import Evaluation
from repblend.runtime.context import Paths
from repblend.runtime.provenance import provenance
from repblend.stages.pipeline import Context
from repblend.stages.setup import image_encoder_of
from repblend.stages.students import make_evaluator, recipe_of, student_model, write_evaluation


def run(context: Context) -> None:
    """Evaluate one cell; write `records/evaluate/<cell>/` and its flat metrics."""
    params, paths, cell = context.params, context.paths, context.cell
    path = paths.set(cell.base if cell.is_coreset else cell)
    synthetic = SyntheticSet.read(path)
    scores = evaluate_cell(cell, synthetic, params, paths)
    write_evaluation(Evaluation(**scores.to_json(), cell=cell.record, num_pairs=synthetic.num_pairs,
                                stored_bytes=synthetic.stored_bytes,
                                provenance=provenance(context, [*feature_files(paths.features), path])),
                     str(cell), paths)


def evaluate_cell(cell: Cell, synthetic: SyntheticSet, params: Params, paths: Paths, *onlookers: OnEpoch) -> Scores:
    """Train a cell's students on a set and score them on both splits of the workspace; others may look on after every
    epoch.

    Raises:
        ValueError: a file of the workspace is missing or damaged, or a student diverged.
    """
    features = read_features(paths.features)
    model = student_model(cell, image_encoder_of(params), params, paths, features)
    recipe = recipe_of(cell, synthetic.lr_img, synthetic.lr_txt, synthetic.metadata["loss"], params,
                           synthetic.metadata.get("temperature"))
    evaluator = make_evaluator(schedule_of(cell, params.evaluate), params, model.splits, model.towers,
                               params.evaluate.num_seeds, cell.seed)
    return evaluator.evaluate_set(model.inputs(synthetic.images), synthetic.texts, synthetic.similarity.matrix(),
                                  recipe, *onlookers)
