"""t-SNE: points in the plane whose neighbours are the data's neighbours (van der Maaten and Hinton, 2008), in float64.

The same kernels, objective and descent as `repblend.analysis.dosnes`, without its sphere: P = S / sum(S), and the
points are only centred after a step. 300 points and 1000 steps take a second on one core.

Shapes: N points, D dimensions.
"""

import torch
from torch import Tensor

from repblend.analysis.dosnes import descend, gaussian_similarities

INITIAL_DEVIATION = 1e-4


def tsne(points_ND: Tensor, perplexity: float, iterations: int, generator: torch.Generator) -> Tensor:
    """Return points in the plane, (N, 2) float64, centred, near one another where the given points are.

    Args:
        points_ND: (N, D), N at least 3; what matters is their Euclidean distances.
        perplexity: effective number of neighbours of a point, above 1 and below N - 1.
        iterations: steps of gradient descent.
        generator: draws the points to begin with, and nothing else.

    Raises:
        ValueError: the perplexity is out of range.
    """
    similarities_NN = gaussian_similarities(points_ND.double(), perplexity)
    initial_N2 = torch.randn(len(points_ND), 2, generator=generator, dtype=torch.float64)
    return descend(similarities_NN / similarities_NN.sum(), INITIAL_DEVIATION * initial_N2, iterations, _centred)


def _centred(points_N2: Tensor) -> Tensor:
    return points_N2 - points_N2.mean(dim=0)
