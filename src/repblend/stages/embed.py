"""Stage `embed`: where a set's embeddings lie, in the models trained on all real pairs (figures 1 and 2, PAPER.md 9).

Takes seconds. The random coreset of the same budget holds the real pairs that a distillation starts from.
"""

import torch

from repblend.analysis import collapse, dosnes
from repblend.analysis.reference import embedded, measure_set
from repblend.encoders.image import encode_in_chunks
from repblend.encoders.registry import load_image_encoder
from repblend.evaluation.towers import HeadPair
from repblend.experts.trajectories import TrajectoryStore
from repblend.matching.step import PerModality, Student
from repblend.matching.synthetic_set import SyntheticSet
from repblend.params import Params
from repblend.stages.context import Cell, StageContext
from repblend.stages.provenance import provenance
from repblend.store import JSON, write_json
from repblend.streams import stream

SECTIONS = ["compute", "encode", "heads"]
PERPLEXITY = 30.0
"""Of the sphere; of few points a third of their number, so that a point's neighbours are never most of the others."""
ITERATIONS = 1000
DECIMALS = 6


def run(context: StageContext) -> None:
    """Measure one cell's set; write `metrics/embed/<cell>.json`."""
    params, paths, cell = context.params, context.paths, context.cell
    files = [paths.set(cell), paths.set(Cell("random", cell.budget))]
    pairs, real = (_features(SyntheticSet.read(path), params) for path in files)
    trajectories = TrajectoryStore(paths.experts)
    references = [trajectories.last(expert) for expert in range(len(trajectories))]
    student = HeadPair.of_widths(*(side.shape[-1] for side in pairs), params.heads.width).student
    write_json(paths.metrics("embed", cell), {
        "cell": cell.to_json(), "num_pairs": len(pairs.txt), "num_references": len(references),
        "measures": measure_set(pairs, real, references, student),
        "sphere": _sphere(pairs, references[0], student, params.seed),
        "definitions": collapse.DEFINITIONS | dosnes.DEFINITIONS,
        "provenance": provenance(context, SECTIONS, [*sorted(paths.experts.glob("*.safetensors")),
                                                     *dict.fromkeys(files)])})


def _features(synthetic: SyntheticSet, params: Params) -> PerModality:
    """What the heads of a set's students see of it."""
    encoder = load_image_encoder(params.encode.image_encoder, synthetic.images.shape[-1]).to(params.compute.device)
    return PerModality(encode_in_chunks(encoder, synthetic.images, params.compute.encoder_chunk), synthetic.texts)


def _sphere(pairs: PerModality, heads: PerModality, student: Student, seed: int) -> JSON:
    """Both modalities' unit embeddings under one model, together on one sphere."""
    points = torch.cat([collapse.unit(side) for side in embedded(pairs, heads, student)])  # (2 N, D)
    perplexity = min(PERPLEXITY, len(points) / 3)
    # One stream for all cells: their spheres begin alike.
    sphere = dosnes.dosnes(points, perplexity, ITERATIONS, stream(seed, "embed", "sphere"))
    rows = [[round(value, DECIMALS) for value in point] for point in sphere.tolist()]
    return {"images": rows[:len(pairs.img)], "texts": rows[len(pairs.img):], "perplexity": perplexity,
            "iterations": ITERATIONS}
