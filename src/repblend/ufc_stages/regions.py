"""Stage `regions`: where a student puts test images, in the plane by t-SNE, as in the paper's overview figure.

The paper shows seven classes and does not say which layer is embedded: here it is a student's logits. Seconds per set.
"""

import torch
from torch import Tensor

from repblend.analysis.tsne import tsne
from repblend.stages.context import Cell
from repblend.stages.provenance import provenance
from repblend.store import JSON, read_tensors, write_json
from repblend.streams import stream
from repblend.ufc_stages.context import SETS, StudentCell, UfcContext

SECTIONS = ["compute", "budgets", "validation"]
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
    """Write `metrics/regions/<cell>.json` for every set and budget, with static labels and the first student."""
    validation = context.params.validation
    for cell in (StudentCell(Cell(name, budget), "static", validation.students[0])
                 for budget in context.params.budgets for name in SETS):
        path = context.paths.predictions(cell)
        found, _ = read_tensors(path)
        write_json(context.paths.metrics("regions", cell), {
            "cell": cell.to_json(), **_regions(found["logits"], found["labels"], context.params.seed),
            "definitions": DEFINITIONS, "provenance": provenance(context, SECTIONS, [path])})


def _regions(logits: Tensor, labels: Tensor, seed: int) -> JSON:
    """Test images in the plane, with what the student says of them. All cells begin alike."""
    rows = _shown(labels)
    shown, predicted = logits[rows].double(), logits[rows].argmax(dim=1)
    perplexity = min(PERPLEXITY, len(rows) / 4)
    plane = tsne(shown, perplexity, ITERATIONS, stream(seed, "ufc", "regions"))
    return {"labels": labels[rows].tolist(), "predicted": predicted.tolist(), "perplexity": perplexity,
            "plane": [[round(value, DECIMALS) for value in point] for point in plane.tolist()],
            "disagreement": round(disagreement(plane, predicted), 4)}


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
