"""A few real steps of each kind of a profile's work, at its real sizes: what they take on this machine.

`repro rehearse` starts this for every kind in a process of its own, in the workspace's folder, so that the peak of
memory is the kind's own, and that a process which is killed for memory is a finding. Steps are those that stages take,
by the same functions. Weights are random where no checkpoint is here; pixels, captions, features and snapshots are
random: none of it changes time or memory.
"""

import contextlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from repblend import costs
from repblend.costs import OUT_OF_MEMORY, Counts, Rehearsed
from repblend.data.features import feature_files, read_features
from repblend.data.karpathy import AnnotatedImage, Annotations, write_annotations
from repblend.encoders.libraries import random_where_absent
from repblend.encoders.registry import load_image_encoder, load_text_encoder
from repblend.evaluation.student import Recipe
from repblend.experts.training import train_expert
from repblend.experts.trajectories import trajectory_path, write_trajectory
from repblend.grid import Cell, complete
from repblend.matching.student import PerModality, on
from repblend.methods import find_method
from repblend.params import Params
from repblend.params.evaluate import StudentSchedule
from repblend.runtime.context import Paths
from repblend.runtime.harness import compute_deterministically, prepare_gpu
from repblend.runtime.processes import stop_with_the_runner
from repblend.runtime.provenance import peak_memory_mib
from repblend.sections import Section
from repblend.stages import distill, encoder_experts, experts
from repblend.stages.encode import encoded_views
from repblend.stages.experts import ExpertProblem, draws_of
from repblend.stages.setup import annotations_of, captions_in, image_encoder_of, view_source
from repblend.stages.students import StudentModel, make_evaluator, student_model
from repblend.streams import stream
from repblend.tensors import write_tensors

REFUSALS = ("out of memory", "can't allocate memory", "Unable to allocate")
PHOTOGRAPH = (500, 375)
"""Width and height of the usual photograph of Flickr30K."""
NUM_FILES, CAPTIONS_PER_IMAGE = 16, 5
LOOKED_AT = 64
"""Held-out images that encoder students are scored on here."""


class Enough(Exception):
    """The steps that were asked for were taken, or their time is over."""


class Clock:
    """Takes the time between ticks; the first step warms up, and counts only if there is no other."""

    def __init__(self, steps: int, seconds: float, device: str) -> None:
        self.num_steps, self._seconds, self._device = steps, seconds, device
        self._taken: list[float] = []
        self.start()

    def start(self) -> None:
        """Leave out what was done until now."""
        self._began = self._last = time.perf_counter()

    def tick(self) -> None:
        """Say that a step is over; raises `Enough` after the last."""
        if self._device == "cuda":
            torch.cuda.synchronize()
        now = time.perf_counter()
        self._taken.append(now - self._last)
        self._last = now
        print(f"  step {len(self._taken)}: {self._taken[-1]:.3g} s", file=sys.stderr, flush=True)
        if len(self._taken) > self.num_steps or now - self._began + self._taken[-1] > self._seconds:
            raise Enough

    def steps(self, work: Iterator[Any]) -> None:
        """Count each item of `work` as a step."""
        self.start()
        for _ in work:
            self.tick()

    @property
    def timed(self) -> list[float]:
        return self._taken[1:] or self._taken


@dataclass(frozen=True)
class Step:
    """What a step of a kind is."""

    what: str
    rows: int
    bytes_written: float = 0.0
    """Per step, on average over a whole stage."""


@dataclass(frozen=True)
class Rehearsing:
    """A kind that is rehearsed, and the folder with random data that stands in for a workspace."""

    kind: str
    params: Params
    counts: Counts
    paths: Paths
    clock: Clock

    def run(self) -> Step:
        """Take the steps; return what they were."""
        kinds: dict[str, Callable[[], Step]] = {
            costs.IMAGE: self._images, costs.CAPTION: self._captions, costs.EXPERT: self._expert,
            costs.ENCODER_EXPERT: self._encoder_expert, costs.STUDENT: self._student,
            costs.ENCODER_STUDENT: self._student, costs.SCORED: self._scored, costs.ENCODER_SCORED: self._scored}
        return kinds.get(self.kind, self._iteration)()

    # Encoding.

    def _images(self) -> Step:
        params, encoder = self.params, image_encoder_of(self.params)
        chunk, views = params.compute.encoder_chunk, params.encode.views.num
        source = view_source(params, self.paths, annotations_of(params, self.paths).train)
        bytes_per_row = encoder.feature_dim * (2 if params.encode.storage == "float16" else 4)
        step = Step(f"encode: {views} views of {chunk} images, read, augmented and encoded", views * chunk,
                    bytes_per_row * views * chunk)
        with contextlib.suppress(Enough):
            self.clock.steps(list(part) for part in encoded_views(encoder, source, views, chunk, "encode", 0))
        return step

    def _captions(self) -> Step:
        encoder = load_text_encoder(self.params.encode.text_encoder).to(self.params.compute.device)
        captions = captions_in(annotations_of(self.params, self.paths).train)
        batches, sizes = encoder.encode_batches(captions), list[int]()
        self.clock.start()
        with contextlib.suppress(Enough):
            for found, _ in batches:
                sizes.append(len(found))
                self.clock.tick()
        rows = max(1, round(statistics.fmean(sizes)))
        return Step(f"encode: batches of about {rows} captions", rows, 4 * rows * encoder.feature_dim)

    # Experts.

    def _expert(self) -> Step:
        return self._train(experts.problem_of(self.params, self.paths))

    def _encoder_expert(self) -> Step:
        features, encoder = read_features(self.paths.features), image_encoder_of(self.params)
        model = self._students(Cell("lors", self.params.grid.budgets[-1]))
        return self._train(encoder_experts.problem_of(self.params, self.paths, features, encoder, model))

    def _train(self, problem: ExpertProblem) -> Step:
        settings, towers, seed = problem.settings, problem.towers, self.params.seed
        initial = towers.initial(stream(seed, "rehearsal"), stream(seed, "rehearsal"))
        with contextlib.suppress(Enough):
            self.clock.steps(train_expert(
                problem.pairs, on(self.params.compute.device, initial), draws_of(0, problem, seed), towers.student,
                settings.lr, settings.momentum, settings.weight_decay, settings.temperature))
        snapshots, captions = settings.num_snapshots(self.counts.train_captions), self.counts.train_captions
        written = 4 * sum(side.numel() for side in initial) * snapshots
        return Step(f"{problem.purpose}: batches of {settings.batch_size}, views {settings.views}, texts in mode "
                    f"{settings.text_mode}", settings.batch_size,
                    written / (settings.epochs_of(captions) * max(1, captions // settings.batch_size)))

    # Distillation: a cell of the kind with the most pairs in an iteration, and of these with the largest budget.

    def _iteration(self) -> Step:
        settings, cell = max(
            ((self.params.distill.settings(name), Cell.parse(name)) for name in self.params.distill.cells
             if costs.DISTILL[find_method(Cell.parse(name).base_method).gradient] == self.kind),
            key=lambda each: (each[0].segments * each[0].inner_steps * each[0].batch_size, each[1].budget))
        problem = distill.pose(cell, settings, self.params, self.paths)
        distillation = problem.distillation()
        with contextlib.suppress(Enough):
            self.clock.steps(map(distillation.iterate, range(settings.iterations)))
        checkpoint = sum(tensor.numel() * tensor.element_size() for tensor in distillation.tensors().values())
        return Step(f"distill {cell}: {settings.segments} x {settings.inner_steps} steps of {settings.batch_size} "
                    f"pairs", settings.segments * settings.inner_steps * settings.batch_size,
                    checkpoint / settings.checkpoint_every)

    # Students.

    def _students(self, cell: Cell) -> StudentModel:
        return student_model(cell, image_encoder_of(self.params), self.params, self.paths,
                             read_features(self.paths.features))

    def _student(self) -> Step:
        params, of_encoder = self.params, self.kind == costs.ENCODER_STUDENT
        evaluate, size = params.evaluate, min(params.evaluate.batch_size, max(params.grid.budgets))
        model = self._students(Cell("lors" if of_encoder else "repblend", size))
        schedule = complete(StudentSchedule(epochs=self.clock.num_steps, scored_intervals=0), evaluate)
        evaluator = make_evaluator(schedule, params, model.splits, model.towers, evaluate.num_seeds)
        shape = tuple(model.val.images.shape[1:]) if not of_encoder else (3, params.data.image_size,
                                                                          params.data.image_size)
        draws = torch.Generator().manual_seed(0)
        images, texts = (torch.randn(size, *each, generator=draws) for each in (shape, model.val.texts.shape[1:]))
        recipe = Recipe(0.01, 0.01, evaluate.momentum, evaluate.weight_decay, "wbce", evaluate.temperature, None)
        self.clock.start()
        with contextlib.suppress(Enough):
            evaluator.evaluate_set(images, texts, torch.eye(size), recipe, lambda *_: self.clock.tick())
        return Step(f"evaluate: {evaluate.num_seeds} students, batches of {size}", evaluate.num_seeds * size)

    def _scored(self) -> Step:
        of_encoder, seeds = self.kind == costs.ENCODER_SCORED, self.params.evaluate.num_seeds
        model = self._students(Cell("lors" if of_encoder else "repblend", max(self.params.grid.budgets)))
        schedule = complete(StudentSchedule(epochs=1, scored_intervals=1), self.params.evaluate)
        evaluator = make_evaluator(schedule, self.params, model.splits, model.towers, seeds)
        initial = model.towers.initial(stream(0, "rehearsal"), stream(0, "rehearsal"))
        heads = on(self.params.compute.device, PerModality(*(side.expand(seeds, -1).clone() for side in initial)))
        self.clock.start()
        with contextlib.suppress(Enough):
            while True:
                evaluator.scores().record(0, lambda: heads, torch.zeros(()))
                self.clock.tick()
        images = sum(len(split.images) for split in model.splits.values())
        return Step(f"evaluate: {seeds} students scored on {images} images",
                    seeds * (images if of_encoder else len(model.splits)))


# Random data in the layout of a workspace.


def furnish(paths: Paths, params: Params, counts: Counts, pixels: bool, num: int | None = None) -> None:
    """Write images, annotations, features and two kinds of experts with as few snapshots as are looked at.

    Args:
        num: training images; by default as many as any kind of step needs.
        pixels: held-out images are looked at as pixels, so there are few; else as features, as many as there are.
    """
    draws = np.random.default_rng(0)
    num = num or max(512, *params.grid.budgets, 2 * params.experts.batch_size)
    val, test = [min(LOOKED_AT, real) if pixels else real for real in (counts.val_images, counts.test_images)]
    names = _write_images(paths.data, draws)

    def annotated(split: str, number: int) -> tuple[AnnotatedImage, ...]:
        folder = paths.data / split
        folder.mkdir()
        for image in range(number):
            (folder / f"{image}.jpg").hardlink_to(names[image % len(names)])
        return tuple(AnnotatedImage(f"{split}/{image}.jpg", tuple(
            " ".join(["word"] * (8 + draws.integers(12))) + f" {image} {caption}"
            for caption in range(CAPTIONS_PER_IMAGE))) for image in range(number))

    write_annotations(paths.data, params.data.name, Annotations(
        annotated("train", num), annotated("val", val if pixels else 1), annotated("test", test if pixels else 1)))
    encoder, text_width = load_image_encoder(params.encode.image_encoder, params.data.image_size), _text_width(params)
    _write_features(paths, encoder.feature_dim, text_width, num, (val, test))
    last = max(settings.max_start - 1 + settings.expert_span
               for settings in map(params.distill.settings, params.distill.cells))
    paths.experts.mkdir()
    paths.encoder_experts.mkdir()
    model = experts.HeadPair.of_widths(encoder.feature_dim, text_width, params.heads.width)
    snapshots = [model.initial(*[torch.Generator().manual_seed(seed)] * 2) for seed in range(last + 1)]
    write_trajectory(trajectory_path(paths.experts, 0), snapshots, {})
    start, text = encoder.parameters(), experts.HeadPair.of_widths(1, text_width, encoder.feature_dim)
    write_trajectory(trajectory_path(paths.encoder_experts, 0), [PerModality(
        start * (1 + 0.01 * step), text.initial(*[torch.Generator().manual_seed(step)] * 2).txt)
        for step in range(last + 1)], {})


def _text_width(params: Params) -> int:
    name = params.encode.text_encoder
    return costs.TEXT_ENCODERS[name][0] if name in costs.TEXT_ENCODERS else load_text_encoder(name).feature_dim


def _write_images(folder: Path, draws: np.random.Generator) -> list[Path]:
    """Write a few random photographs; all images of the annotations are names of these."""
    (folder / "files").mkdir(parents=True)
    paths = [folder / "files" / f"{number}.jpg" for number in range(NUM_FILES)]
    for path in paths:
        rough = Image.fromarray(draws.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize(PHOTOGRAPH)
        grain = draws.integers(-24, 24, (*PHOTOGRAPH[::-1], 3))
        Image.fromarray(np.clip(np.asarray(rough) + grain, 0, 255).astype(np.uint8)).save(path, quality=90)
    return paths


def _write_features(paths: Paths, image_width: int, text_width: int, num: int, held_out: tuple[int, int]) -> None:
    draws = torch.Generator().manual_seed(0)
    files = feature_files(paths.features)
    files[0].parent.mkdir()
    write_tensors(files[0], {"features": torch.randn(1, num, image_width, generator=draws)})
    owners = torch.arange(num).repeat_interleave(CAPTIONS_PER_IMAGE)
    write_tensors(files[1], {"features": torch.randn(len(owners), text_width, generator=draws), "image_index": owners})
    for path, images in zip(files[2:], held_out, strict=True):
        owners = torch.arange(images).repeat_interleave(CAPTIONS_PER_IMAGE)
        write_tensors(path, {"images": torch.randn(images, image_width, generator=draws),
                             "texts": torch.randn(len(owners), text_width, generator=draws), "text_to_image": owners})


# A process: one kind.


def rehearse(kind: str, params: Params, counts: Counts, clock: Clock, folder: Path) -> Step:
    """Take steps of a kind in this process, in an empty folder; return what they were."""
    paths = Paths(folder)
    furnish(paths, params, counts, pixels="encoder" in kind)
    return Rehearsing(kind, params, counts, paths, clock).run()


def main(request: str, take: Callable[[str, Any, Any, Clock, Path], Step] = rehearse,
         model: type[Section] = Params) -> int:
    """Rehearse what a JSON request asks for and write the result to its file; return the exit code.

    Args:
        take: takes the steps: given the kind, parameters, counts, a clock and an empty folder.
        model: of the parameters.
    """
    stop_with_the_runner()
    asked = json.loads(request)
    params: Any = model.model_validate(asked["params"])
    on_gpu, clock = params.compute.device == "cuda", Clock(asked["steps"], asked["seconds"], params.compute.device)
    Path("checkpoints").mkdir(exist_ok=True)  # on the workspace's disk, and out of git's and DVC's sight
    try:
        compute_deterministically(params.compute.threads)
        if on_gpu:
            prepare_gpu(params.compute.arithmetic)
        with (tempfile.TemporaryDirectory(prefix="rehearsal-", dir="checkpoints") as folder,
              random_where_absent() as drawn):
            counts = Counts(**asked["counts"]) if asked["counts"] else None
            step = take(asked["kind"], params, counts, clock, Path(folder).resolve())
    except (RuntimeError, MemoryError) as error:
        if not isinstance(error, MemoryError) and not any(refusal in str(error) for refusal in REFUSALS):
            raise
        print(str(error).splitlines()[0], file=sys.stderr)
        return OUT_OF_MEMORY
    Rehearsed(kind=asked["kind"], what=step.what, rows=step.rows, steps=len(clock.timed),
              seconds=statistics.median(clock.timed), bytes_written=step.bytes_written,
              memory_mib=peak_memory_mib(),
              gpu_memory_mib=torch.cuda.max_memory_allocated() / 2**20 if on_gpu else None,
              weights="random" if drawn else "real").write(Path(asked["result"]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
