"""Stage `regions`: where a student puts test images, in the plane by t-SNE, as in the paper's overview figure.

The paper shows seven classes and does not say which layer is embedded: here it is the student's logits. Takes seconds.
"""

import torch
from torch import Tensor

from repblend.analysis.tsne import tsne
from repblend.stages.provenance import provenance
from repblend.store import read_tensors, write_json
from repblend.streams import stream
from repblend.ufc_stages.context import UfcContext

SECTIONS = ["compute"]
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
    """Write `metrics/regions/<cell>.json`."""
    params, paths, cell = context.params, context.paths, context.cell
    path = paths.predictions(cell)
    found, _ = read_tensors(path)
    rows = _shown(found["labels"])
    logits, labels = found["logits"][rows].double(), found["labels"][rows]
    predicted, perplexity = logits.argmax(dim=1), min(PERPLEXITY, len(rows) / 4)
    plane = tsne(logits, perplexity, ITERATIONS, stream(params.seed, "ufc", "regions"))
    write_json(paths.metrics("regions", cell), {
        "cell": cell.to_json(), "labels": labels.tolist(), "predicted": predicted.tolist(),
        "plane": [[round(value, DECIMALS) for value in point] for point in plane.tolist()],
        "disagreement": round(disagreement(plane, predicted), 4), "perplexity": perplexity,
        "definitions": DEFINITIONS, "provenance": provenance(context, SECTIONS, [path])})


def _shown(labels: Tensor) -> Tensor:
    rows = (labels < NUM_CLASSES).nonzero().flatten()
    num = min(NUM_POINTS, len(rows))
    return rows[torch.arange(num) * len(rows) // num]


def disagreement(plane: Tensor, predicted: Tensor) -> float:
    """Return the percentage of a point's nearest points that are predicted to be of another class, mean over points.

    Args:
        plane: (N, 2), N above `NUM_NEIGHBOURS`.
        predicted: (N,) classes.
    """
    distances = torch.cdist(plane, plane).fill_diagonal_(torch.inf)
    nearest = distances.topk(min(NUM_NEIGHBOURS, len(plane) - 1), largest=False).indices
    return float((predicted[nearest] != predicted[:, None]).double().mean()) * 100
