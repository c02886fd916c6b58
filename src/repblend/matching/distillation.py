"""The outer loop of RepBlend and its relatives: one iteration of distillation (PAPER.md section 2; DESIGN section 6).

Nothing here knows about files. All draws of iteration t come from streams named by t, so a resumed run needs only the
learned tensors and the optimiser's memory.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from repblend.matching.batches import draw_batches
from repblend.matching.blending import draw_blend
from repblend.matching.encode_once import Encode, KeptGraph, Recomputed
from repblend.matching.gradient import (
    InnerStep, MatchingGradient, Normaliser, Objective, PerModality, Segment, Student, SyntheticData,
)
from repblend.matching.outer import Learned, optimiser_tensors, restore_optimiser
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
    inner_steps: int
    """S, steps of the student."""
    batch_size: int
    """B, pairs of an inner step."""
    blend_alpha: float | None
    """Parameter of the Beta distribution of blending weights; None blends nothing."""
    expert_span: int
    """Snapshots from a segment's start to its target (`expert_epochs`)."""
    max_start: int
    """Segments start at snapshots 0 .. max_start - 1 (`max_start_epoch`)."""

    def segment(self, iteration: int, trajectories: Trajectories) -> Segment:
        """Take the experts in turn, in a new order each round; start at a random snapshot."""
        turn, position = divmod(iteration, len(trajectories))
        order = torch.randperm(len(trajectories), generator=stream(self.seed, "distill", "experts", turn))
        generator = stream(self.seed, "distill", "start", iteration)
        start = int(torch.randint(self.max_start, (), generator=generator))
        expert = int(order[position])
        return Segment(trajectories.snapshot(expert, start), trajectories.snapshot(expert, start + self.expert_span))

    def steps(self, iteration: int, num_pairs: int) -> list[InnerStep]:
        """Draw each inner step's pairs and its blend."""
        batches = draw_batches(num_pairs, self.inner_steps, self.batch_size,
                               stream(self.seed, "distill", "batches", iteration))
        if self.blend_alpha is None:
            return [InnerStep(indices, None) for indices in batches]
        generator = stream(self.seed, "distill", "blends", iteration)
        return [InnerStep(indices, draw_blend(len(indices), self.blend_alpha, generator)) for indices in batches]


@dataclass(frozen=True)
class Matcher:
    """The fixed parts of the matching problem."""

    encode: Encode
    """The frozen image encoder."""
    encoder_chunk: int
    encoder_graph: type[KeptGraph] | type[Recomputed]
    student: Student
    objective: Objective
    normaliser: Normaliser
    gradient: Callable[..., MatchingGradient]


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
        learned, matcher = self.learned, self._matcher
        # 1. An expert and the segment of its trajectory to match.
        segment = self._draws.segment(iteration, self._trajectories)
        # 2. Batches and blends of the student's steps.
        steps = self._draws.steps(iteration, len(learned.images))
        # 3. Features of the distinct images drawn, once.
        drawn = torch.cat([step.indices for step in steps]).unique()
        once = matcher.encoder_graph(learned.images, drawn, matcher.encode, matcher.encoder_chunk)
        data = SyntheticData(once.features(), learned.texts, learned.similarity)
        # 4. The student's steps, the matching loss and its gradient with respect to features.
        rates = learned.rates
        matching = matcher.gradient(data, rates, segment, steps, matcher.student, matcher.objective,
                                    matcher.normaliser)
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


def _check_finite(iteration: int, losses: PerModality, gradients: dict[str, Tensor]) -> None:
    named = {"loss of the image side": losses.img, "loss of the text side": losses.txt}
    named |= {f"gradient of {name}": value for name, value in gradients.items()}
    for name, value in named.items():
        if not value.isfinite().all():
            raise ValueError(f"iteration {iteration}: the {name} is not finite, the distillation diverged. The last "
                             "checkpoint is kept; lower the outer learning rates or the initial inner ones")
