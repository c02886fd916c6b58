"""The outer loop of RepBlend and its relatives: one iteration of distillation (PAPER.md section 2; DESIGN section 6).

Nothing here knows about files. All draws of iteration t come from streams named by t, so a resumed run needs only the
learned tensors and the optimiser's memory.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from repblend.matching.batches import draw_batches
from repblend.matching.dropout import StepMasks, no_masks
from repblend.matching.encode_once import EncodeOnce
from repblend.matching.gradient import MatchingGradient, Normaliser, Segment
from repblend.matching.outer import Learned, optimiser_tensors, restore_optimiser
from repblend.matching.perturbation import Draw
from repblend.matching.step import InnerStep, Objective, PerModality, Student, SyntheticData
from repblend.streams import stream


class Trajectories(Protocol):
    """Where expert snapshots come from."""

    num_snapshots: int

    def __len__(self) -> int: ...

    def snapshot(self, expert: int, index: int) -> PerModality: ...


@dataclass(frozen=True)
class Draws:
    """How the random choices of an iteration are made."""

    seed: int
    num_segments: int
    """Segments matched per iteration, each by a student of its own; 1 as published. They share the encoder's pass."""
    inner_steps: int
    """S, steps of the student."""
    batch_size: int
    """B, pairs of an inner step."""
    perturb: Draw | None
    """Draws what a step's representations go through; None leaves them as they are."""
    expert_span: int
    """Snapshots from a segment's start to its target (`expert_epochs`)."""
    max_start: int
    """Segments start at snapshots 0 .. max_start - 1 (`max_start_epoch`)."""
    masks: StepMasks = no_masks
    """Draws what the heads' dropout keeps in both passes of a step."""

    def segments(self, iteration: int, trajectories: Trajectories) -> list[Segment]:
        """Take the experts in turn, in a new order each round; start each segment at a random snapshot."""
        first = iteration * self.num_segments
        return [self._segment(number, trajectories) for number in range(first, first + self.num_segments)]

    def _segment(self, number: int, trajectories: Trajectories) -> Segment:
        turn, position = divmod(number, len(trajectories))
        order = torch.randperm(len(trajectories), generator=stream(self.seed, "distill", "experts", turn))
        start = int(torch.randint(self.max_start, (), generator=stream(self.seed, "distill", "start", number)))
        expert = int(order[position])
        return Segment(trajectories.snapshot(expert, start), trajectories.snapshot(expert, start + self.expert_span))

    def students(self, iteration: int, num_pairs: int) -> list[list[InnerStep]]:
        """Draw, for each segment, its student's batches, perturbations and dropout."""
        first = iteration * self.num_segments
        return [self._steps(number, num_pairs) for number in range(first, first + self.num_segments)]

    def _steps(self, number: int, num_pairs: int) -> list[InnerStep]:
        batches = draw_batches(num_pairs, self.inner_steps, self.batch_size,
                               stream(self.seed, "distill", "batches", number))
        blends, first, second = (stream(self.seed, "distill", purpose, number)
                                 for purpose in ("blends", "dropout", "dropout of the second pass"))
        return [InnerStep(indices, self.perturb(len(indices), blends) if self.perturb else None,
                          *self.masks(len(indices), first, second)) for indices in batches]


@dataclass(frozen=True)
class Matcher:
    """The fixed parts of the matching problem."""

    represent: Callable[[Tensor, Tensor], EncodeOnce]
    """From images (N, 3, H, W) and the rows that are drawn to what students see of them, for one iteration."""
    student: Student
    objective: Objective
    normaliser: Normaliser
    gradient: Callable[..., MatchingGradient]


class MatchingResult(NamedTuple):
    """Matching losses and gradients, averaged over an iteration's segments."""

    losses: PerModality
    data: dict[str, Tensor]
    rates: PerModality


class IterationResult(NamedTuple):
    """What one iteration measured, before its update."""

    losses: PerModality
    rates: PerModality


class Distillation:
    """A distillation in progress: what is learned, its optimiser, and how one iteration changes them."""

    def __init__(self, learned: Learned, optimiser: torch.optim.Optimizer, schedule: Callable[[int], float],
                 min_rate: float, matcher: Matcher, draws: Draws, trajectories: Trajectories) -> None:
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
        self._base_rates = [group["lr"] for group in optimiser.param_groups]

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
        data = SyntheticData(once.features(), learned.texts, learned.similarity)
        # 4. The students' steps, the matching loss and its gradient with respect to features.
        rates = learned.rates
        matching = _mean([matcher.gradient(data, rates, segment, steps, matcher.student, matcher.objective,
                                           matcher.normaliser)
                          for segment, steps in zip(segments, students, strict=True)])
        # 5. The feature gradient carried back to the pixels, once.
        gradients = matching.data | {"images": once.pull_back(matching.data["images"])}
        _check_finite(iteration, matching.losses, gradients)
        # 6. One step of the outer optimiser.
        learned.set_gradients(gradients, matching.rates)
        for group, rate in zip(self._optimiser.param_groups, self._base_rates, strict=True):
            group["lr"] = rate * self._schedule(iteration)
        self._optimiser.step()
        # 7. Learning rates kept positive.
        learned.clamp_rates(self._min_rate)
        return IterationResult(matching.losses, rates)

    def tensors(self) -> dict[str, Tensor]:
        """Everything that changes from iteration to iteration, by name, for a checkpoint."""
        return {f"learned/{name}": value for name, value in self.learned.tensors.items()} | optimiser_tensors(
            self.learned, self._optimiser)

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Go on from what `tensors` returned."""
        for name, value in self.learned.tensors.items():
            value.copy_(tensors[f"learned/{name}"])
        restore_optimiser(self.learned, self._optimiser, tensors)


def _mean(matchings: list[MatchingGradient]) -> MatchingResult:
    """Average losses and gradients over the segments."""

    def mean(values: Sequence[Tensor]) -> Tensor:
        return torch.stack(list(values)).mean(dim=0)

    losses, rates = (PerModality(*map(mean, zip(*values, strict=True)))
                     for values in ([m.losses for m in matchings], [m.rates for m in matchings]))
    return MatchingResult(losses, {name: mean([m.data[name] for m in matchings]) for name in matchings[0].data}, rates)


def _check_finite(iteration: int, losses: PerModality, gradients: dict[str, Tensor]) -> None:
    named = {"loss of the image side": losses.img, "loss of the text side": losses.txt}
    named |= {f"gradient of {name}": value for name, value in gradients.items()}
    for name, value in named.items():
        if not value.isfinite().all():
            raise ValueError(f"iteration {iteration}: the {name} is not finite, the distillation diverged. The last "
                             "checkpoint is kept; lower the outer learning rates or the initial inner ones")
