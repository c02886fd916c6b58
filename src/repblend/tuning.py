"""Trials of a search for settings: what a method reaches on the validation split with other settings than its own.

`repro tune` starts this in the workspace's folder and asks line by line, so that one process with PyTorch serves a
whole search and the one that searches needs none: `{"cell": ..., "changes": {...}, "processor_seconds": ...}` is
answered by an `Answer`. Only the validation split is looked at. Trials draw from streams of their own, the same for all
of them: a search must not choose what suits the draws of the final run.

Where a trial is given seconds of a processor (all threads), it takes a few iterations and a validation to see what they
cost, then distils with as many as fit, all on one thread. The clock decides their number, how often they are validated,
and nothing else; the study holds both, and the same numbers give the same value again.
"""

import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from repblend.coresets import RealPairs, choose
from repblend.data.features import Features, read_features
from repblend.evaluation.towers import HeadPair
from repblend.grid import Cell, schedule_of
from repblend.matching.distillation import CRITERION
from repblend.params import Params, read_params
from repblend.params.distill import DistillSettings
from repblend.runtime.context import Paths
from repblend.runtime.harness import compute_deterministically, prepare_gpu, prepare_process
from repblend.runtime.processes import stop_with_the_runner
from repblend.stages.distill import Problem, distil, pose
from repblend.stages.setup import annotations_of, image_encoder_of, read_pixels
from repblend.stages.students import make_evaluator, recipe_of, student_model
from repblend.store import JSON
from repblend.streams import stream

SPLIT = "val"
RATES = ("lr_img", "lr_txt")
"""What a coreset's students have in the place of settings of a distillation."""
PILOT, PILOT_SHARE = 3, 0.05
"""Iterations that show what one costs, after a first, which also allocates; fewer once they took this share."""
VALIDATIONS, VALIDATIONS_SHARE = 6, 0.25
"""Of a distillation whose iterations the processor's seconds decide, after that of its start; fewer where they would
take more than this share, as those of students that train an encoder do."""
LEAST_ITERATIONS = 4


class Answer(NamedTuple):
    """What a trial gave."""

    value: float | None
    """Mean recall on validation, percent; None if it diverged."""
    seconds: float
    """By the clock on the wall."""
    processor_seconds: float
    """Of all threads of this process."""
    failed: str | None = None
    """Why it has no value."""
    iterations: int | None = None
    """Of the distillation, where the processor's seconds decided how many."""
    validate_every: int | None = None
    """Likewise."""


class Cost(NamedTuple):
    """What parts of a distillation take, in seconds of a processor."""

    spent: float
    """To set it up and to find this out."""
    iteration: float
    validation: float

    def affordable(self, seconds: float) -> tuple[int, int]:
        """Return how many iterations and validations, besides that of the start, fit into these seconds; a few in any
        case.
        """
        validations = max(1, min(VALIDATIONS, int(VALIDATIONS_SHARE * seconds / self.validation) - 1))
        left = seconds - self.spent - (1 + validations) * self.validation
        return max(LEAST_ITERATIONS, int(left / self.iteration)), validations


class Trials:
    """The trials of one workspace, of whatever cell."""

    def __init__(self, params: Params, paths: Paths) -> None:
        own = int(torch.randint(2**31, (), generator=stream(params.seed, "tune")))
        self.params, self.paths = params.model_copy(update={"seed": own}), paths
        self._chosen: dict[tuple[str, int], list[int]] = {}

    def trial(self, cell: Cell, changes: Mapping[str, Any], processor_seconds: float | None = None) -> Answer:
        """Return what `value` gives and what it took; of a distilled set in about these seconds of a processor."""
        began, used = time.monotonic(), time.process_time()
        value, failed, length = None, None, dict[str, int]()
        try:
            if processor_seconds and not cell.is_coreset:
                iterations, validations = self._cost(cell, changes, processor_seconds).affordable(processor_seconds)
                length = {"iterations": iterations, "validate_every": -(-iterations // validations)}
            value = self.value(cell, {**changes, **length})
        except ValueError as error:
            failed = str(error)
        return Answer(value, time.monotonic() - began, time.process_time() - used, failed, **length)

    def _cost(self, cell: Cell, changes: Mapping[str, Any], seconds: float) -> Cost:
        """Find out what parts cost, of a trial of so many seconds of a processor."""
        began = time.process_time()
        problem = self._pose(cell, changes)
        distillation = problem.distillation()
        distillation.iterate(0)
        first, iteration = time.process_time(), 0
        while not iteration or (iteration < PILOT and time.process_time() - first < PILOT_SHARE * seconds):
            iteration += 1
            distillation.iterate(iteration)
        iterated = time.process_time()
        problem.measure(distillation.learned)
        ended = time.process_time()
        return Cost(ended - began, (iterated - first) / iteration, ended - iterated)

    def value(self, cell: Cell, changes: Mapping[str, Any]) -> float:
        """Return the mean recall on validation, in percent, of a cell with changed settings.

        Args:
            cell: a distilled set, or a coreset.
            changes: of a distilled set field -> value, as `{"optimiser.lr.images": 0.1}`; of a coreset the rates of
                its students, `lr_img` and `lr_txt`.

        Returns:
            Of a distilled set its best validated iteration's, by which stage `distill` chooses the result; of a coreset
            that of its students' best scored epoch.

        Raises:
            ValueError: a setting is wrong, a file is missing, or the trial diverged.
        """
        return self._coreset(cell, changes) if cell.is_coreset else self._distilled(cell, changes)

    def _distilled(self, cell: Cell, changes: Mapping[str, Any]) -> float:
        problem = self._pose(cell, changes)
        history, _ = distil(problem, self.paths.root / "checkpoints/tune/none", f"trial of {cell}")
        return max(history.checkpoints[CRITERION])

    def _pose(self, cell: Cell, changes: Mapping[str, Any]) -> Problem:
        settings = changed(self.params.distill.settings(str(cell)), changes)
        without_files = settings.model_copy(update={"checkpoint_every": settings.iterations + 1,
                                                    "choose": "best-validation"})
        return pose(cell, without_files, self.params, self.paths)

    def _coreset(self, cell: Cell, rates: Mapping[str, float]) -> float:
        evaluate = self.params.evaluate
        of_encoder = evaluate.encoder_coresets.model_copy(update=dict(rates))
        params = self.params.model_copy(update={"evaluate": evaluate.model_copy(
            update={"encoder_coresets": of_encoder})})
        model = student_model(cell, self._encoder, params, self.paths, self._features)
        images, texts = self._pairs(cell.base)
        recipe = recipe_of(cell, rates["lr_img"], rates["lr_txt"], params.select.loss, params)
        evaluator = make_evaluator(schedule_of(cell, evaluate), params, {SPLIT: model.val}, model.towers,
                                   evaluate.num_seeds)
        scores = evaluator.evaluate_set(model.inputs(images), texts, torch.eye(len(texts)), recipe)
        return scores.mean_of_best(SPLIT)

    def _pairs(self, coreset: Cell) -> tuple[Tensor, Tensor]:
        """Normalised images (N, 3, H, W) and text features (N, D_txt) of the chosen pairs."""
        features, key = self._features, (coreset.method, coreset.budget)
        if key not in self._chosen:
            heads = HeadPair.of_widths(*features.widths, self.params.heads.width, self.params.heads.dropout)
            self._chosen[key] = choose(*key, RealPairs(features, heads, self.params.select, self.params.seed))
        train = annotations_of(self.params, self.paths).train
        shown = [train[features.train_image_index[pair]] for pair in self._chosen[key]]
        images = read_pixels(self.paths, shown, self.params.data.image_size, self._encoder.mean, self._encoder.std)
        return images, features.texts_of(self._chosen[key])

    @cached_property
    def _features(self) -> Features:
        return read_features(self.paths.features)

    @cached_property
    def _encoder(self) -> Any:
        return image_encoder_of(self.params)


def changed(settings: DistillSettings, changes: Mapping[str, Any]) -> DistillSettings:
    """Return settings with other values; raises `ValueError` if one is unknown or of the wrong type or range."""
    content = settings.model_dump()
    for key, value in changes.items():
        *sections, last = key.split(".")
        section: Any = content
        for name in sections:
            section = section[name]
        section[last] = value
    return DistillSettings.model_validate(content)


class Point(NamedTuple):
    """A finished trial, for the plot."""

    number: int
    value: float
    settings: dict[str, float]


def plot(folder: Path, name: str, points: Sequence[Point]) -> None:
    """Draw a study as `<name>.svg`, `.pdf` and `.png`: every trial and the best so far, and each setting against the
    value. The first trial, of the settings as they were, stands out.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter  # slow to import, drawn once

    from repblend.report.drawing import QUIET, canvas, save

    keys = list(points[0].settings)
    rows = -(-(len(keys) + 1) // 3)
    with canvas(rows, 3, 9.0, 2.4 * rows) as (figure, panels):
        best = [max(point.value for point in points[:end]) for end in range(1, len(points) + 1)]
        panels[0].step([point.number for point in points], best, where="post", color=QUIET)
        for panel, key in zip(panels, ["trial", *keys], strict=False):
            along = [point.number if key == "trial" else point.settings[key] for point in points]
            panel.scatter(along[1:], [point.value for point in points[1:]], color="#0b5c94", s=14)
            panel.scatter(along[:1], [points[0].value], color="#9a3412", s=26, marker="D")
            panel.set_xlabel(key)
            if all(isinstance(value, int) for value in along):
                panel.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
            else:  # a rate
                panel.set_xscale("log")
                panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
                panel.xaxis.set_minor_formatter(NullFormatter())
        for panel in panels[::3]:
            panel.set_ylabel("mean recall on validation (%)")
        for panel in panels[len(keys) + 1:]:
            panel.set_axis_off()
        save(figure, folder, name)


def answer(trials: Trials, asked: JSON) -> JSON:
    """Do what a line asks for: a trial, or a plot; return the answer."""
    if "plot" in asked:
        plot(Path(asked["plot"]), asked["name"], [Point(*point) for point in asked["points"]])
        return {"plotted": asked["name"]}
    if seconds := asked.get("processor_seconds"):
        torch.set_num_threads(1)  # several spin while they wait for one another, the more the busier the machine is
    return trials.trial(Cell.parse(asked["cell"]), asked["changes"], seconds)._asdict()


def main() -> int:
    """Answer every line of the standard input on the standard output; all else that is printed goes to the other."""
    stop_with_the_runner()
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    params = read_params(Path("params.yaml"))
    compute_deterministically(params.compute.threads)
    if params.compute.device == "cuda":
        prepare_gpu(params.compute.arithmetic)
    trials = Trials(params, Paths(Path.cwd()))
    for line in sys.stdin:
        print(json.dumps(answer(trials, json.loads(line))), file=answers, flush=True)
    return 0


if __name__ == "__main__":
    prepare_process()
    sys.exit(main())
