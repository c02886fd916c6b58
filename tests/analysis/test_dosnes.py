"""DOSNES against autograd, its definitions in plain loops, and configurations whose picture is known."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from repblend.analysis.dosnes import (
    divergence_gradient,
    dosnes,
    doubly_stochastic,
    gaussian_neighbours,
    gaussian_similarities,
    on_sphere,
    spread_on_sphere,
    tsne,
)
from repblend.streams import stream


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def unit_rows(points: Tensor) -> Tensor:
    return points / points.norm(dim=1, keepdim=True)


def orthogonal_map(seed: int, low: int, high: int) -> Tensor:
    """(low, high) with orthonormal rows."""
    return torch.linalg.qr(normal(seed, high, high)).Q[:low]


def angles(directions: Tensor) -> Tensor:
    """Angles of all pairs of rows."""
    first, second = torch.triu_indices(len(directions), len(directions), offset=1)
    return (directions @ directions.mT)[first, second].clamp(-1, 1).acos()


def test_neighbours_have_the_perplexity_and_the_gaussian_shape() -> None:
    points, perplexity = normal(0, 12, 5) * torch.arange(1, 13)[:, None], 4.5
    rows = gaussian_neighbours(points, perplexity).tolist()
    for i, row in enumerate(rows):
        assert row[i] == 0 and sum(row) == pytest.approx(1, abs=1e-12)
        assert math.exp(-sum(p * math.log(p) for p in row if p > 0)) == pytest.approx(perplexity, rel=1e-9)
        # log p(j | i) falls along one line in the squared distance: its slope is the same from every j to the next.
        squares = [math.dist(points[i], points[j]) ** 2 for j in range(12)]
        others = sorted((j for j in range(12) if row[j] > 1e-100), key=squares.__getitem__)
        slopes = [math.log(row[a] / row[b]) / (squares[b] - squares[a])
                  for a, b in itertools.pairwise(others)]
        assert slopes == pytest.approx([slopes[0]] * len(slopes), rel=1e-6)


def test_similarities_are_symmetric_with_an_empty_diagonal() -> None:
    similarities = gaussian_similarities(normal(1, 9, 4), 3.0)
    assert torch.equal(similarities, similarities.mT) and similarities.diagonal().tolist() == [0] * 9


def test_equal_points_share_their_rows() -> None:
    rows = gaussian_neighbours(torch.ones(5, 3, dtype=torch.float64), 2.0)
    assert torch.allclose(rows, (torch.ones(5, 5) - torch.eye(5)).double() / 4, atol=1e-15)


@pytest.mark.parametrize("perplexity", [1.0, 8.0, float("nan")])
def test_a_perplexity_out_of_range_is_refused(perplexity: float) -> None:
    with pytest.raises(ValueError, match="expected more than 1 and less than 8"):
        gaussian_similarities(normal(2, 9, 4), perplexity)


@pytest.mark.parametrize(("points", "perplexity"), [
    (normal(3, 40, 6), 10.0),
    (normal(4, 40, 256) + 5.0, 12.0),
    (torch.cat([normal(5, 20, 4), 1000 + 0.001 * normal(6, 8, 4), -1000 + normal(7, 5, 4)]), 5.0),
    (normal(8, 60, 3) * normal(9, 60, 1).exp() ** 3, 15.0),
])
def test_rows_and_columns_sum_to_one(points: Tensor, perplexity: float) -> None:
    scaled = doubly_stochastic(gaussian_similarities(points, perplexity), sweeps=200)
    assert torch.equal(scaled, scaled.mT) and scaled.min() >= 0
    for side in (0, 1):
        assert (scaled.sum(dim=side) - 1).abs().max() < 1e-9


def test_scaling_equals_sinkhorn_and_knopps_alternation() -> None:
    similarities = gaussian_similarities(normal(10, 15, 4), 8.0)
    expected = similarities
    for _ in range(2000):
        expected = expected / expected.sum(dim=1, keepdim=True)
        expected = expected / expected.sum(dim=0, keepdim=True)
    assert torch.allclose(doubly_stochastic(similarities, sweeps=200), expected, rtol=1e-9, atol=1e-15)


def test_scaling_undoes_any_diagonal_scaling() -> None:
    cycle = torch.zeros(6, 6, dtype=torch.float64)
    for i in range(6):
        for j in range(6):
            cycle[i, j] = [0, 0.3, 0.15, 0.1, 0.15, 0.3][(i - j) % 6]  # doubly stochastic already
    factors = normal(11, 6).exp()
    assert torch.allclose(doubly_stochastic(factors[:, None] * cycle * factors, sweeps=200), cycle, atol=1e-12)


def test_too_few_sweeps_are_noticed() -> None:
    with pytest.raises(ValueError, match=r"after 1 sweeps, expected 1e-09; take more sweeps"):
        doubly_stochastic(gaussian_similarities(normal(12, 20, 4), 5.0), sweeps=1)


def divergence(joint: Tensor, points: Tensor) -> Tensor:
    """KL(P || Q) pair by pair."""
    pairs = list(itertools.permutations(range(len(points)), 2))
    weights = {(i, j): 1 / (1 + (points[i] - points[j]).square().sum()) for i, j in pairs}
    total = sum(weights.values())
    return sum(joint[pair] * (joint[pair] * total / weights[pair]).log() for pair in pairs)


@pytest.mark.parametrize("scale", [0.01, 1.0, 10.0])
def test_gradient_equals_autograds(scale: float) -> None:
    joint = doubly_stochastic(gaussian_similarities(normal(15, 11, 5), 4.0), sweeps=200) / 11
    points = (scale * normal(16, 11, 3)).requires_grad_()
    (expected,) = torch.autograd.grad(divergence(joint, points), points)
    assert torch.allclose(divergence_gradient(joint, points.detach()), expected, rtol=1e-9, atol=1e-14)


def test_gradient_is_zero_where_the_kernels_agree() -> None:
    simplex = torch.tensor([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], dtype=torch.float64)
    joint = (torch.ones(4, 4, dtype=torch.float64) - torch.eye(4)) / 12
    assert divergence_gradient(joint, simplex).abs().max() < 1e-15


def test_on_sphere_centres_and_keeps_directions_and_the_mean_radius() -> None:
    points = normal(17, 10, 3) + 4
    centred = points - points.mean(dim=0)
    moved = on_sphere(points)
    assert torch.allclose(moved.norm(dim=1), centred.norm(dim=1).mean().expand(10))
    assert torch.allclose(unit_rows(moved), unit_rows(centred))


def test_points_lie_on_the_unit_sphere_and_repeat_bit_for_bit() -> None:
    first, again = (dosnes(normal(18, 30, 8), 8.0, 60, torch.Generator().manual_seed(1)) for _ in range(2))
    assert first.dtype == torch.float64 and (first.norm(dim=1) - 1).abs().max() < 1e-12
    assert torch.equal(first, again)


def test_only_distances_matter() -> None:
    points = normal(19, 30, 6)
    turned = 3 + points @ orthogonal_map(20, 6, 9) * 7
    first, second = (dosnes(given, 8.0, 60, torch.Generator().manual_seed(2)) for given in (points, turned))
    assert torch.allclose(first, second, atol=1e-6)


def test_permuted_points_give_the_permuted_configuration() -> None:
    points, initial = normal(21, 30, 6), normal(22, 30, 3)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(3))

    def configuration(points: Tensor, initial: Tensor) -> Tensor:
        return spread_on_sphere(doubly_stochastic(gaussian_similarities(points, 8.0), 200), initial, 60)

    assert torch.allclose(configuration(points[order], initial[order]), configuration(points, initial)[order],
                          atol=1e-8)


@pytest.mark.parametrize("seed", range(3))
def test_separated_clusters_stay_separated(seed: int) -> None:
    cluster = torch.arange(60) // 20
    points = 20 * torch.eye(3, 10, dtype=torch.float64)[cluster] + normal(23, 60, 10)
    sphere = dosnes(points, 10.0, 400, torch.Generator().manual_seed(seed))
    cosines = (sphere @ sphere.mT).fill_diagonal_(-2)
    assert torch.equal(cluster[cosines.argmax(dim=1)], cluster)
    centres = unit_rows(torch.stack([sphere[cluster == which].mean(dim=0) for which in range(3)]))
    assert torch.equal((sphere @ centres.mT).argmax(dim=1), cluster)


@pytest.mark.parametrize("seed", range(3))
def test_a_sphere_in_twenty_dimensions_is_found_again(seed: int) -> None:
    directions = unit_rows(normal(24, 120, 3))
    sphere = dosnes(directions @ orthogonal_map(25, 3, 20), 25.0, 500, torch.Generator().manual_seed(seed))
    correlation = torch.corrcoef(torch.stack([angles(sphere), angles(directions)]))[0, 1]
    assert correlation > 0.93


# t-SNE.


def clusters(num: int, each: int, dimensions: int) -> torch.Tensor:
    draw = stream(0, "test", "clusters")
    centres = 8 * torch.randn(num, dimensions, generator=draw, dtype=torch.float64)
    return torch.cat([centre + torch.randn(each, dimensions, generator=draw, dtype=torch.float64)
                      for centre in centres])


def plane_divergence(points: torch.Tensor, plane: torch.Tensor, perplexity: float) -> float:
    """KL(P || Q) from its definition."""
    joint = gaussian_similarities(points, perplexity)
    joint = joint / joint.sum()
    total, weights = 0.0, {}
    for i in range(len(plane)):
        for j in range(len(plane)):
            weights[i, j] = 0.0 if i == j else 1 / (1 + float((plane[i] - plane[j]).square().sum()))
    norm = sum(weights.values())
    for (i, j), weight in weights.items():
        if joint[i, j] > 0:
            total += float(joint[i, j] * (joint[i, j] / (weight / norm)).log())
    return total


def test_clusters_stay_together_and_apart() -> None:
    plane = tsne(clusters(4, 15, 10), 10.0, 500, stream(0, "test"))
    labels = torch.arange(60) // 15
    nearest = (torch.cdist(plane, plane) + 1e9 * torch.eye(60)).argmin(dim=1)
    assert torch.equal(labels[nearest], labels)
    assert plane.shape == (60, 2) and plane.mean(dim=0).abs().max() < 1e-9


def test_the_objective_is_as_low_as_that_of_scikit_learn() -> None:
    points = clusters(1, 36, 3)
    ours = tsne(points, 8.0, 1000, stream(0, "test"))
    from sklearn.manifold import TSNE  # for seconds: no other test needs it

    theirs = TSNE(perplexity=8.0, init="random", method="exact", random_state=0).fit_transform(points.numpy())
    theirs = torch.from_numpy(theirs).double()
    assert plane_divergence(points, ours, 8.0) <= 1.05 * plane_divergence(points, theirs, 8.0)


def test_the_points_rest_where_the_gradient_vanishes() -> None:
    points = clusters(1, 36, 3)
    plane = tsne(points, 8.0, 2000, stream(0, "test"))
    joint = gaussian_similarities(points, 8.0)
    assert divergence_gradient(joint / joint.sum(), plane).abs().max() < 1e-4


def test_the_same_stream_gives_the_same_plane() -> None:
    points = clusters(2, 8, 4)
    assert torch.equal(tsne(points, 5.0, 50, stream(1, "a")), tsne(points, 5.0, 50, stream(1, "a")))
