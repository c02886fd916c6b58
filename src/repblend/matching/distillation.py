"""The outer loop: one iteration of distillation, and everything that it changes (`paper/METHOD.md`, sections 6 and 7).

`Distillation.iterate` has the seven steps in the paper's order. Below it: what is drawn, how images are encoded once
per iteration, and the course of the losses. What is learned, and by which optimiser: `repblend.matching.optimiser`.

Nothing here knows about files. All draws of iteration t come from streams named by t, so a resumed run needs only the
learned tensors and the optimiser's memory.

Shapes: N pairs of the set, U distinct images drawn in an iteration, D features, P parameters of one modality.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from repblend.experts.trajectories import TrajectoryStore
from repblend.matching.blending import DrawPerturbation
from repblend.matching.gradient import MatchSegments, Segment, pulled_back
from repblend.matching.optimiser import Learned, OuterOptimiser
from repblend.matching.student import (
    NO_DROPOUT,
    DrawMasks,
    InnerStep,
    PerModality,
    SyntheticData,
    draw_batches,
)
from repblend.store import JSON
from repblend.streams import stream


class IterationResult(NamedTuple):
    """What one iteration measured, before its update; scalars."""

    losses: PerModality
    """Matching losses, averaged over the iteration's segments."""
    rates: PerModality
    """Inner learning rates."""


class Distillation:
    """A distillation in progress: what is learned, its optimiser, and how one iteration changes them."""

    def __init__(self, learned: Learned, optimiser: OuterOptimiser, schedule: Callable[[int], float],
                 min_rate: float, matcher: Matcher, draws: Draws, trajectories: TrajectoryStore) -> None:
        """Put the parts together.

        Args:
            schedule: iteration -> factor of the optimiser's learning rates.
            min_rate: the inner learning rates are raised to this after every update.

        Raises:
            ValueError: the expert trajectories are too short for the draws.
        """
        last = draws.max_start - 1 + draws.expert_span
        if last >= trajectories.num_snapshots:
            raise ValueError(f"distill: max_start {draws.max_start} and expert_span {draws.expert_span} need snapshot "
                             f"{last}, but the experts have {trajectories.num_snapshots} (0 to "
                             f"{trajectories.num_snapshots - 1}); lower one of them or train the experts longer")
        self.learned, self._optimiser, self._schedule, self._min_rate = learned, optimiser, schedule, min_rate
        self._matcher, self._draws, self._trajectories = matcher, draws, trajectories

    def iterate(self, iteration: int) -> IterationResult:
        """Run one iteration, in the paper's order.

        Raises:
            ValueError: a matching loss or a gradient is not finite; nothing was updated.
        """
        learned, matcher, draws = self.learned, self._matcher, self._draws
        # 1. The stretches of expert trajectories to match.
        device = learned.images.device
        segments = [segment.to(device) for segment in draws.segments(iteration, self._trajectories)]
        # 2. Batches, perturbations and dropout of each student's steps.
        students = [[step.to(device) for step in steps] for steps in draws.students(iteration, len(learned.images))]
        # 3. Features of the distinct images drawn, once for all students and all their steps.
        drawn = torch.cat([step.indices for steps in students for step in steps]).unique()
        once = matcher.represent(learned.images, drawn)
        data = SyntheticData(once.features(), learned.texts, learned.similarity, learned.constant)
        # 4. The students' steps, the matching loss and its gradient with respect to features.
        rates = learned.rates
        losses, gradients, rate_gradients = matcher.match(data, rates, segments, students)
        # 5. The feature gradient carried back to the pixels, once, where these are learned.
        if "images" in gradients:
            gradients["images"] = once.pull_back(gradients["images"])
        _check_finite(iteration, losses, gradients)
        # 6. One step of the outer optimiser.
        learned.set_gradients(gradients, rate_gradients)
        self._optimiser.step(self._schedule(iteration))
        # 7. Learning rates kept positive.
        learned.clamp_rates(self._min_rate)
        return IterationResult(losses, rates)

    def tensors(self) -> dict[str, Tensor]:
        """Return everything that changes from iteration to iteration, by name, for a checkpoint."""
        learned = {f"learned/{name}": value for name, value in self.learned.tensors.items()}
        return learned | self._optimiser.tensors()

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Go on from what `tensors` returned."""
        for name, value in self.learned.tensors.items():
            value.copy_(tensors[f"learned/{name}"])
        self._optimiser.restore(tensors)


def _check_finite(iteration: int, losses: PerModality, gradients: dict[str, Tensor]) -> None:
    named = {"loss of the image side": losses.img, "loss of the text side": losses.txt}
    named |= {f"gradient of {name}": value for name, value in gradients.items()}
    for name, value in named.items():
        # A sum is read once and quickly. It is finite only where all terms are; it may overflow where they are.
        if not value.sum().isfinite() and not value.isfinite().all():
            raise ValueError(f"iteration {iteration}: the {name} is not finite, the distillation diverged. The last "
                             "checkpoint is kept; lower the outer learning rates or the initial inner ones")


@dataclass(frozen=True)
class Matcher:
    """The fixed parts of the matching problem."""

    represent: Callable[[Tensor, Tensor], EncodeOnce]
    """From images (N, 3, H, W) and the rows (U,) that are drawn to what students see of them, for one iteration."""
    match: MatchSegments


# What is drawn in an iteration.


@dataclass(frozen=True)
class Draws:
    """How the random choices of an iteration are made."""

    seed: int
    num_segments: int
    """Segments matched per iteration, each by a student of its own; 1 as published. They share the encoder's pass."""
    inner_steps: int
    """K, steps of the student."""
    batch_size: int
    """B, pairs of an inner step."""
    perturb: DrawPerturbation | None
    """Draws what a step's representations go through; None leaves them as they are."""
    expert_span: int
    """Snapshots from a segment's start to its target (`expert_epochs`)."""
    max_start: int
    """Segments start at snapshots 0 .. max_start - 1 (`max_start_epoch`)."""
    draw_masks: DrawMasks = lambda num_rows, generator: NO_DROPOUT
    """Draws what the heads' dropout keeps in a step."""
    masks: Literal["same", "different"] = "same"
    """Whether TESLA's second pass has the first one's draws of dropout. The matching loss belongs to the heads that the
    student's run really had, so only then is the data gradient that of the loss. The released code draws anew."""
    expert_sides: Literal["same-expert", "shuffled"] = "same-expert"
    """Whether both sides of a segment are of one expert, or the text side is that of another, by one permutation."""

    def segments(self, iteration: int, trajectories: TrajectoryStore) -> list[Segment]:
        """Take the experts in turn, in a new order each round; start each segment at a random snapshot."""
        return [self._segment(number, trajectories) for number in self._numbers(iteration)]

    def students(self, iteration: int, num_pairs: int) -> list[list[InnerStep]]:
        """Draw, for each segment, its student's batches, perturbations and dropout."""
        return [self._steps(number, num_pairs) for number in self._numbers(iteration)]

    def _numbers(self, iteration: int) -> range:
        """The segments of an iteration, counted through all iterations."""
        return range(iteration * self.num_segments, (iteration + 1) * self.num_segments)

    def _segment(self, number: int, trajectories: TrajectoryStore) -> Segment:
        turn, position = divmod(number, len(trajectories))
        order = torch.randperm(len(trajectories), generator=stream(self.seed, "distill", "experts", turn))
        start = int(torch.randint(self.max_start, (), generator=stream(self.seed, "distill", "start", number)))
        expert = of_texts = int(order[position])
        if self.expert_sides == "shuffled":
            partners = torch.randperm(len(trajectories), generator=stream(self.seed, "distill", "partners of experts"))
            of_texts = int(partners[expert])

        def snapshot(index: int) -> PerModality:
            sides = trajectories.snapshot(expert, index)
            return sides if of_texts == expert else PerModality(sides.img, trajectories.snapshot(of_texts, index).txt)

        return Segment(snapshot(start), snapshot(start + self.expert_span))

    def _steps(self, number: int, num_pairs: int) -> list[InnerStep]:
        batches = draw_batches(num_pairs, self.inner_steps, self.batch_size,
                               stream(self.seed, "distill", "batches", number))
        blends, first, second = (stream(self.seed, "distill", purpose, number)
                                 for purpose in ("blends", "dropout", "dropout of the second pass"))
        steps = []
        for indices in batches:
            perturbation = self.perturb(len(indices), blends) if self.perturb else None
            kept = self.draw_masks(len(indices), first)
            kept_again = kept if self.masks == "same" else self.draw_masks(len(indices), second)
            steps.append(InnerStep(indices, perturbation, kept, kept_again))
        return steps


# Encode once per iteration. With a frozen encoder every inner step and all second-order terms live in the heads. They
# need the features of each distinct image only once, and leave one gradient per feature, which one vector-Jacobian
# product carries back to the pixels. Exact: a sum over steps of products with one Jacobian is its product with the sum.

Encode = Callable[[Tensor], Tensor]
"""Images (B, 3, H, W) -> features (B, D), differentiable once."""


class Pixels:
    """Images as they are: the students' own encoder looks at them, so nothing can be encoded once; or they are the
    features of images that are not learned, encoded once and for all.
    """

    def __init__(self, images: Tensor, drawn: Tensor) -> None:
        self._images = images

    def features(self) -> Tensor:
        return self._images

    def pull_back(self, feature_gradient: Tensor) -> Tensor:
        return feature_gradient


class KeptGraph:
    """Features of the drawn images whose encoder graph is kept until the pull-back: one forward, one backward."""

    def __init__(self, images: Tensor, drawn: Tensor, encode: Encode, chunk: int) -> None:
        """Encode the drawn images.

        Args:
            images: (N, 3, H, W).
            drawn: (U,) distinct indices into the images.
            encode: the frozen encoder.
            chunk: images that pass through the encoder at once.
        """
        self._images, self._parts = images, drawn.split(chunk)
        self._leaves = [images[part].detach().requires_grad_() for part in self._parts]
        self._encoded = [encode(leaf) for leaf in self._leaves]

    def features(self) -> Tensor:
        """Return (N, D) features; rows of images that were not drawn are zero."""
        return _assembled(len(self._images), self._parts, [encoded.detach() for encoded in self._encoded])

    def pull_back(self, feature_gradient: Tensor) -> Tensor:
        """Carry a gradient (N, D) of the features back to the pixels, (N, 3, H, W). Frees the graph: call it once."""
        pixels = [pulled_back([encoded], [feature_gradient[part]], [leaf])[0]
                  for encoded, leaf, part in zip(self._encoded, self._leaves, self._parts, strict=True)]
        self._encoded = []
        return _assembled(len(self._images), self._parts, pixels)


class Recomputed:
    """As `KeptGraph`, but each chunk is encoded again for its pull-back: a third more time, one chunk of memory."""

    def __init__(self, images: Tensor, drawn: Tensor, encode: Encode, chunk: int) -> None:
        self._images, self._encode, self._parts = images, encode, drawn.split(chunk)

    def features(self) -> Tensor:
        with torch.no_grad():
            encoded = [self._encode(self._images[part]) for part in self._parts]
        return _assembled(len(self._images), self._parts, encoded)

    def pull_back(self, feature_gradient: Tensor) -> Tensor:
        pixels = [KeptGraph(self._images, part, self._encode, len(part)).pull_back(feature_gradient)[part]
                  for part in self._parts]
        return _assembled(len(self._images), self._parts, pixels)


def _assembled(num_rows: int, parts: Sequence[Tensor], values: Sequence[Tensor]) -> Tensor:
    """Return (N, ...) with the values (len(part), ...) of each part at its rows, and zeros elsewhere."""
    whole = values[0].new_zeros(num_rows, *values[0].shape[1:])
    for part, value in zip(parts, values, strict=True):
        whole.index_copy_(0, part, value)
    return whole


EncodeOnce = Pixels | KeptGraph | Recomputed
"""The images of one iteration, as students see them."""
ENCODER_GRAPHS: dict[str, type[KeptGraph] | type[Recomputed]] = {"keep": KeptGraph, "recompute": Recomputed}
"""What happens to the encoder's graph between encoding and pull-back, by its name in `params.yaml`."""


# What a distillation writes down as it goes.

CRITERION = "val_mean_recall"
CRITERIA = {"best-validation": CRITERION, "best-test": "test_mean_recall", "last": "iteration"}
"""Which column of the validations decides which iteration is the result, by its name in `params.yaml`: the highest
value's, of equal ones the first."""


@dataclass
class History:
    """The course of one distillation; all of it goes into its checkpoints and its record."""

    curves: dict[str, list[float]] = field(default_factory=dict)
    """Name -> one value per iteration, measured before its update."""
    checkpoints: dict[str, list[float]] = field(default_factory=dict)
    """Name -> one value per validation."""
    criterion: str = CRITERION
    """The column of `checkpoints` that decides."""

    def record(self, iteration: int, result: IterationResult) -> None:
        """Note what one iteration measured."""
        losses, rates = result
        _append(self.curves, {
            "iteration": iteration, "matching_loss": (losses.img + losses.txt).item(),
            "matching_loss_img": losses.img.item(), "matching_loss_txt": losses.txt.item(),
            "lr_img": rates.img.item(), "lr_txt": rates.txt.item(),
        })

    def observe(self, iteration: int, measures: dict[str, float]) -> bool:
        """Note one validation; return whether it is the best so far (of equal ones, the first)."""
        row = {"iteration": iteration} | measures
        best = all(row[self.criterion] > value for value in self.checkpoints.get(self.criterion, []))
        _append(self.checkpoints, row)
        return best

    @property
    def chosen_iteration(self) -> int:
        """The iteration of the best validation."""
        values = self.checkpoints[self.criterion]
        return int(self.checkpoints["iteration"][values.index(max(values))])

    def to_json(self) -> JSON:
        return {"curves": self.curves, "checkpoints": self.checkpoints}


def _append(columns: dict[str, list[float]], row: dict[str, float]) -> None:
    for name, value in row.items():
        columns.setdefault(name, []).append(value)
