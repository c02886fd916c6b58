"""Stage `embed`: where a set's embeddings lie, in the models trained on all real pairs (Figures 1 and 2).

Takes seconds. The random coreset of the same budget holds the real pairs that a distillation starts from.
"""

import torch

from repblend.analysis import collapse, dosnes
from repblend.analysis.collapse import embedded, measure_set
from repblend.encoders.image import encode_in_chunks
from repblend.evaluation.towers import HeadPair
from repblend.experts.trajectories import TrajectoryStore, trajectory_files
from repblend.grid import Cell
from repblend.matching.student import PerModality, TwoTower
from repblend.matching.synthetic_set import SyntheticSet
from repblend.records.results import Embedding, Sphere
from repblend.runtime.provenance import provenance
from repblend.stages.pipeline import Context
from repblend.stages.setup import image_encoder_of
from repblend.streams import stream

PERPLEXITY = 30.0
"""Of the sphere; of few points a third of their number, so that a point's neighbours are never most of the others."""
ITERATIONS = 1000
DECIMALS = 6


def run(context: Context) -> None:
    """Measure one cell's set; write `records/embed/<cell>/record.json`."""
    params, paths, cell = context.params, context.paths, context.cell
    files = [paths.set(cell), paths.set(Cell("random", cell.budget))]
    sets = [SyntheticSet.read(path) for path in files]
    encoder = image_encoder_of(params, image_size=sets[0].images.shape[-1])
    pairs, real = (PerModality(encode_in_chunks(encoder, synthetic.images, params.compute.encoder_chunk),
                               synthetic.texts) for synthetic in sets)
    trajectories = TrajectoryStore(paths.experts)
    references = [trajectories.last(expert) for expert in range(len(trajectories))]
    student = HeadPair.of_widths(pairs.img.shape[-1], pairs.txt.shape[-1], params.heads.width).student
    Embedding(
        cell=cell.record, num_pairs=len(pairs.txt), num_references=len(references),
        measures=measure_set(pairs, real, references, student), sphere=_sphere(pairs, references[0], student,
                                                                               params.seed),
        definitions=collapse.DEFINITIONS | dosnes.DEFINITIONS,
        provenance=provenance(context, [*trajectory_files(paths.experts), *dict.fromkeys(files)])
    ).write(paths.record("embed", cell))


def _sphere(pairs: PerModality, heads: PerModality, student: TwoTower, seed: int) -> Sphere:
    """Return both modalities' unit embeddings under one model, together on one sphere."""
    points = torch.cat([collapse.unit(side) for side in embedded(pairs, heads, student)])  # (2 N, D)
    perplexity = min(PERPLEXITY, len(points) / 3)
    # One stream for all cells: their spheres begin alike.
    sphere = dosnes.dosnes(points, perplexity, ITERATIONS, stream(seed, "embed", "sphere"))
    rows = [[round(value, DECIMALS) for value in point] for point in sphere.tolist()]
    return Sphere(images=rows[:len(pairs.img)], texts=rows[len(pairs.img):], perplexity=perplexity,
                  iterations=ITERATIONS)
