"""Stage `regions`: where a student puts test images, in the plane by t-SNE, as in the paper's overview figure.

The paper shows seven classes and does not say which layer is embedded: here it is a student's logits. Seconds per set.
"""

import torch
from torch import Tensor

from repblend.analysis.dosnes import tsne
from repblend.runtime.context import RECORD, csv_of, write_cell
from repblend.runtime.provenance import provenance
from repblend.store import atomic_path
from repblend.streams import stream
from repblend.tensors import read_tensors
from repblend.ufc.records import DecisionRegions
from repblend.ufc.stages.pipeline import UfcContext, regions
from repblend.ufc.stages.setup import of_first_classes

NUM_CLASSES = 7
"""As in the paper: the first so many."""
NUM_POINTS = 350
"""At most so many test images, evenly spaced among those of these classes."""
PERPLEXITY, ITERATIONS, DECIMALS = 30.0, 1000, 4
NUM_NEIGHBOURS = 10
DEFINITIONS = {
    "disagreement": f"percentage of the {NUM_NEIGHBOURS} nearest points in the plane that the student gives another "
                    "class than the point itself, mean over all points: low where decision regions are compact",
}


def run(context: UfcContext) -> None:
    """Write `records/regions/` with a folder for every set and budget, of static labels and the first student.

    The plane is `plane.csv`, a row per test image. All cells begin alike.
    """
    paths = context.paths
    with atomic_path(paths.root / "records" / "regions") as folder:
        for cell in regions(context.params):
            found, _ = read_tensors(paths.predictions(cell))
            rows = of_first_classes(found["labels"], NUM_CLASSES, NUM_POINTS)
            logits, labels = found["logits"][rows], found["labels"][rows]
            perplexity, predicted = min(PERPLEXITY, len(rows) / 4), logits.argmax(dim=1)
            plane = tsne(logits.double(), perplexity, ITERATIONS, stream(context.params.seed, "ufc", "regions"))
            write_cell(folder / str(cell) / RECORD, DecisionRegions(
                cell=cell.record, perplexity=perplexity, disagreement=round(disagreement(plane, predicted), DECIMALS),
                definitions=DEFINITIONS, provenance=provenance(context, [paths.predictions(cell)])),
                {"plane.csv": csv_of(("x", "y", "label", "predicted"), (
                    (round(x, DECIMALS), round(y, DECIMALS), label, guess) for (x, y), label, guess in zip(
                        plane.tolist(), labels.tolist(), predicted.tolist(), strict=True)))})


def disagreement(plane: Tensor, predicted: Tensor) -> float:
    """Return the percentage of a point's nearest points that are predicted to be of another class, mean over points.

    Args:
        plane: (N, 2), N above `NUM_NEIGHBOURS`.
        predicted: (N,) classes.
    """
    distances = torch.cdist(plane, plane).fill_diagonal_(torch.inf)
    nearest = distances.topk(min(NUM_NEIGHBOURS, len(plane) - 1), largest=False).indices
    return float((predicted[nearest] != predicted[:, None]).double().mean()) * 100
