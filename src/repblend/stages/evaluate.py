"""Stage `evaluate`: five students on one coreset or distilled set, scored by both protocols (PAPER.md section 6)."""

from repblend.data.features import feature_files, read_features
from repblend.encoders.image import encode_in_chunks
from repblend.encoders.registry import load_image_encoder
from repblend.evaluation.student import Recipe, published_decay_start
from repblend.matching.synthetic_set import SyntheticSet
from repblend.stages.context import StageContext
from repblend.stages.provenance import provenance
from repblend.stages.students import head_pair, make_evaluator
from repblend.store import write_json

SECTIONS = ["compute", "encode", "heads", "evaluate"]


def run(context: StageContext) -> None:
    """Evaluate one cell; write `metrics/evaluate/<cell>.json`."""
    params, paths, cell = context.params, context.paths, context.cell
    features = read_features(paths.features)
    synthetic = SyntheticSet.read(paths.set(cell))
    schedule = params.evaluate.coresets if cell.method in params.grid.coresets else params.evaluate.distilled
    evaluator = make_evaluator(params.evaluate, schedule, {"val": features.val, "test": features.test},
                               head_pair(features, params.heads.width), params.evaluate.num_seeds, params.seed)
    encoder = load_image_encoder(params.encode.image_encoder, synthetic.images.shape[-1])
    images = encode_in_chunks(encoder, synthetic.images, params.compute.encoder_chunk)
    recipe = Recipe(synthetic.lr_img, synthetic.lr_txt, params.evaluate.momentum, params.evaluate.weight_decay,
                    synthetic.metadata["loss"], params.evaluate.temperature, published_decay_start(schedule.epochs))
    scores = evaluator.evaluate_set(images, synthetic.texts, synthetic.similarity.matrix(), recipe)
    write_json(paths.metrics("evaluate", cell), scores.to_json() | {
        "cell": cell.to_json(), "num_pairs": synthetic.num_pairs, "stored_bytes": synthetic.stored_bytes,
        "provenance": provenance(context, SECTIONS, [*feature_files(paths.features), paths.set(cell)])})
