"""t-SNE against scikit-learn's own objective, and on points whose neighbours are known."""

import torch
from sklearn.manifold import TSNE

from repblend.analysis.dosnes import divergence_gradient, gaussian_similarities
from repblend.analysis.tsne import tsne
from repblend.streams import stream


def clusters(num: int, each: int, dimensions: int) -> torch.Tensor:
    draw = stream(0, "test", "clusters")
    centres = 8 * torch.randn(num, dimensions, generator=draw, dtype=torch.float64)
    return torch.cat([centre + torch.randn(each, dimensions, generator=draw, dtype=torch.float64)
                      for centre in centres])


def divergence(points: torch.Tensor, plane: torch.Tensor, perplexity: float) -> float:
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
    theirs = TSNE(perplexity=8.0, init="random", method="exact", random_state=0).fit_transform(points.numpy())
    theirs = torch.from_numpy(theirs).double()
    assert divergence(points, ours, 8.0) <= 1.05 * divergence(points, theirs, 8.0)


def test_the_points_rest_where_the_gradient_vanishes() -> None:
    points = clusters(1, 36, 3)
    plane = tsne(points, 8.0, 2000, stream(0, "test"))
    joint = gaussian_similarities(points, 8.0)
    assert divergence_gradient(joint / joint.sum(), plane).abs().max() < 1e-4


def test_the_same_stream_gives_the_same_plane() -> None:
    points = clusters(2, 8, 4)
    assert torch.equal(tsne(points, 5.0, 50, stream(1, "a")), tsne(points, 5.0, 50, stream(1, "a")))
