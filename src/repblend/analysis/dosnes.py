"""DOSNES and t-SNE: points on a sphere, or in the plane, whose neighbours are the data's neighbours (Figure 1).

Doubly stochastic neighbour embedding on spheres (Lu, Yang, Corander, arXiv 1609.01977), in float64:

1. similarities s_ij = p(j | i) + p(i | j), where p(. | i) is a Gaussian kernel around point i, as in t-SNE;
2. P = D S D / N with the diagonal D > 0 for which D S D is doubly stochastic (Sinkhorn-Knopp): no point counts more
   than another, so that none has a reason to be in the middle and all of them fit on a sphere;
3. minimise KL(P || Q), q_ij = w_ij / sum of all w, w_ij = 1 / (1 + |y_i - y_j|^2), over y in three dimensions, all
   points centred and put back on a sphere after every step;
4. scale to radius 1.

The paper's bandwidths and optimiser settings are not stated. This project's choice: each point has the bandwidth that
gives its kernel the perplexity asked for; gradient descent with momentum, with the larger P of early exaggeration in
the first quarter; the sphere's radius is the mean distance of the centred points from their centre, so it finds its
own size. 200 points and 1000 steps take half a second on one core.

t-SNE (van der Maaten and Hinton, 2008) has the same kernels, objective and descent without the sphere: P = S / sum(S),
and the points, in the plane, are only centred after a step.

Shapes: N points, D dimensions, E of them on the page or the sphere.
"""

from collections.abc import Callable

import torch
from torch import Tensor

DEFINITIONS = {
    "sphere": "DOSNES: doubly stochastic Gaussian similarities of the unit embeddings of both modalities, each point's "
              "bandwidth by perplexity, embedded on a sphere by the t-SNE objective",
}
SWEEPS = 200
SUM_TOLERANCE = 1e-9
"""How far a row's sum may be from 1."""
INITIAL_RADIUS = 0.01
EXAGGERATION = 12.0
STEP_PER_POINT = 0.25
"""The step length is this times N, as a point's share of P is 1 / N, divided by the exaggeration. Points drawn on a
sphere are found again from every start that was tried; with a step four times as long they stay folded from some."""
EARLY_MOMENTUM, MOMENTUM = 0.5, 0.8
INITIAL_DEVIATION = 1e-4
"""Of the points that t-SNE begins with."""


def dosnes(points_ND: Tensor, perplexity: float, iterations: int, generator: torch.Generator) -> Tensor:
    """Return points on the unit sphere, (N, 3) float64, near one another where the given points are.

    Args:
        points_ND: (N, D), N at least 3; what matters is their Euclidean distances.
        perplexity: effective number of neighbours of a point, above 1 and below N - 1.
        iterations: steps of gradient descent.
        generator: draws the points to begin with, and nothing else.

    Raises:
        ValueError: the perplexity is out of range, or the similarities cannot be made doubly stochastic.
    """
    similarities_NN = gaussian_similarities(points_ND.double(), perplexity)
    initial_N3 = torch.randn(len(points_ND), 3, generator=generator, dtype=torch.float64)
    return spread_on_sphere(doubly_stochastic(similarities_NN, SWEEPS), initial_N3, iterations)


def tsne(points_ND: Tensor, perplexity: float, iterations: int, generator: torch.Generator) -> Tensor:
    """Return points in the plane, (N, 2) float64, centred, near one another where the given points are; as `dosnes`."""
    similarities_NN = gaussian_similarities(points_ND.double(), perplexity)
    initial_N2 = torch.randn(len(points_ND), 2, generator=generator, dtype=torch.float64)
    return descend(similarities_NN / similarities_NN.sum(), INITIAL_DEVIATION * initial_N2, iterations,
                   lambda points_N2: points_N2 - points_N2.mean(dim=0))


def gaussian_similarities(points_ND: Tensor, perplexity: float) -> Tensor:
    """Return p(j | i) + p(i | j), (N, N), symmetric with a diagonal of zeros.

    Raises:
        ValueError: the perplexity is not above 1 and below N - 1.
    """
    if not 1 < perplexity < len(points_ND) - 1:
        raise ValueError(f"perplexity {perplexity}: expected more than 1 and less than {len(points_ND) - 1}, one less "
                         f"than the {len(points_ND)} points; choose it in between")
    neighbours_NN = gaussian_neighbours(points_ND, perplexity)
    return neighbours_NN + neighbours_NN.mT


def gaussian_neighbours(points_ND: Tensor, perplexity: float) -> Tensor:
    """Return p(j | i), (N, N): rows that sum to 1, with exp(entropy) the perplexity and a diagonal of zeros.

    Each row's inverse bandwidth is bisected in log space, in units of the row's mean squared distance. Where more
    points than the perplexity are equally near, the narrowest kernel is kept: these points share the row.
    """
    distances_NN = torch.cdist(points_ND, points_ND, compute_mode="donot_use_mm_for_euclid_dist").square()
    scale_N1 = distances_NN.mean(dim=1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
    relative_NN = (distances_NN / scale_N1).fill_diagonal_(torch.inf)
    low_N1, high_N1 = torch.full_like(scale_N1, -30.0), torch.full_like(scale_N1, 30.0)
    target = torch.tensor(perplexity, dtype=torch.float64).log()
    for _ in range(64):
        middle_N1 = (low_N1 + high_N1) / 2
        entropy_N1 = torch.special.entr(_kernel(relative_NN, middle_N1)).sum(dim=1, keepdim=True)
        too_wide_N1 = entropy_N1 > target
        low_N1 = torch.where(too_wide_N1, middle_N1, low_N1)
        high_N1 = torch.where(too_wide_N1, high_N1, middle_N1)
    return _kernel(relative_NN, high_N1)


def _kernel(distances_NN: Tensor, log_inverse_bandwidth_N1: Tensor) -> Tensor:
    return torch.softmax(-distances_NN * log_inverse_bandwidth_N1.exp(), dim=1)


def doubly_stochastic(similarities_NN: Tensor, sweeps: int) -> Tensor:
    """Scale a symmetric matrix to one that is still symmetric and whose rows and columns all sum to 1.

    Finds d > 0 with d_i s_ij d_j doubly stochastic. A sweep of Sinkhorn and Knopp would be d <- 1 / (S d); for a
    symmetric matrix the geometric mean of old and new, d <- sqrt(d / (S d)), has the same fixed point, keeps to one
    vector, and does not slow down when the points fall into clusters.

    Args:
        similarities_NN: (N, N) float64, symmetric, not negative.
        sweeps: updates of d.

    Raises:
        ValueError: after these sweeps a sum is not within 1e-9 of 1.
    """
    scale_N = torch.ones_like(similarities_NN[0])
    for _ in range(sweeps):
        scale_N = (scale_N / (similarities_NN @ scale_N)).sqrt()
    scaled_NN = scale_N[:, None] * scale_N * similarities_NN
    error = (scaled_NN.sum(dim=1) - 1).abs().max().item()
    if not error < SUM_TOLERANCE:
        raise ValueError(f"similarities: a row sums to 1 only within {error:.1e} after {sweeps} sweeps, expected "
                         f"{SUM_TOLERANCE:.0e}; take more sweeps or a larger perplexity")
    return scaled_NN


def spread_on_sphere(similarities_NN: Tensor, initial_N3: Tensor, iterations: int) -> Tensor:
    """Return the (N, 3) points of the unit sphere that descent from the initial ones leads to.

    Args:
        similarities_NN: (N, N) float64, doubly stochastic.
        initial_N3: (N, 3) float64; only their directions from their centre count.
    """
    points_N3 = on_sphere(initial_N3)
    points_N3 = points_N3 * (INITIAL_RADIUS / points_N3.norm(dim=1).mean())
    points_N3 = descend(similarities_NN / len(similarities_NN), points_N3, iterations, on_sphere)
    return points_N3 / points_N3.norm(dim=1, keepdim=True)


def descend(joint_NN: Tensor, points_NE: Tensor, iterations: int, settle: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the points that descent on KL(P || Q) leads to, with momentum and, in the first quarter, a larger P.

    Args:
        joint_NN: P, (N, N) float64, symmetric, sums to 1.
        points_NE: (N, E) float64, to begin with.
        iterations: steps.
        settle: puts the points where they may be, after every step.
    """
    velocity_NE = torch.zeros_like(points_NE)
    for iteration in range(iterations):
        early = 4 * iteration < iterations
        exaggeration, momentum = (EXAGGERATION, EARLY_MOMENTUM) if early else (1.0, MOMENTUM)
        step = STEP_PER_POINT * len(points_NE) / exaggeration
        slope_NE = divergence_gradient(exaggeration * joint_NN, points_NE)
        velocity_NE = momentum * velocity_NE - step * slope_NE
        points_NE = settle(points_NE + velocity_NE)
    return points_NE


def on_sphere(points_N3: Tensor) -> Tensor:
    """Centre points and move each along its radius to their mean distance from the centre."""
    centred_N3 = points_N3 - points_N3.mean(dim=0)
    radii_N1 = centred_N3.norm(dim=1, keepdim=True)
    return centred_N3 * (radii_N1.mean() / radii_N1)


def divergence_gradient(joint_NN: Tensor, points_NE: Tensor) -> Tensor:
    """Return the gradient of KL(P || Q) in the points, (N, E): 4 sum_j (p_ij - q_ij) w_ij (y_i - y_j).

    Args:
        joint_NN: (N, N), P or a multiple of it; symmetric, with a diagonal of zeros.
    """
    weights_NN = _student_t(points_NE)
    forces_NN = (joint_NN - weights_NN / weights_NN.sum()) * weights_NN
    return 4 * (forces_NN.sum(dim=1, keepdim=True) * points_NE - forces_NN @ points_NE)


def _student_t(points_NE: Tensor) -> Tensor:
    """The kernel w, (N, N), with a diagonal of zeros."""
    squares_N = points_NE.square().sum(dim=1)
    distances_NN = squares_N[:, None] + squares_N - 2 * points_NE @ points_NE.mT
    return (1 / (1 + distances_NN)).masked_fill(torch.eye(len(points_NE), dtype=torch.bool), 0)
