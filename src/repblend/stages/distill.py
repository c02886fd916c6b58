"""Stage `distill`: learn a synthetic set by trajectory matching (`paper/METHOD.md`, sections 2 to 7).

Starts from random real pairs, validates the set every few iterations by training students on it, and keeps the one
with the best mean recall on the validation split, or as `choose` says; only `best-test` reads the test split. A killed
run resumes from its last checkpoint and gives the same bytes. With `import_from`, the cell takes a set of the official
release as it is.
"""

import io
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from repblend.analysis import collapse
from repblend.analysis.collapse import collapse_measures, embedded
from repblend.coresets import INITIAL_CANDIDATES, random_pairs
from repblend.data.features import Features, feature_files, read_features
from repblend.data.images import normalise, png_bytes
from repblend.data.views import UNLIMITED, ViewSource
from repblend.encoders.image import ImageEncoder, encode_in_chunks
from repblend.evaluation.protocol import Evaluator
from repblend.evaluation.towers import HeadPair
from repblend.experts.trajectories import TrajectoryStore, trajectory_files
from repblend.files import confirmed
from repblend.grid import Cell, schedule_of
from repblend.matching.blending import DrawPerturbation, draw_blend, draw_noise
from repblend.matching.distillation import (
    CRITERIA,
    ENCODER_GRAPHS,
    Distillation,
    Draws,
    EncodeOnce,
    History,
    Matcher,
    Pixels,
    Recomputed,
)
from repblend.matching.gradient import GRADIENTS, NORMALISERS, MatchSegments, one_by_one, with_fastest_second_order
from repblend.matching.heads import heads_gradient
from repblend.matching.losses import LOGIT_TEMPERATURES, LOSSES
from repblend.matching.optimiser import RATE_SPACES, Learned, Momenta, OuterRates, adam, sgd
from repblend.matching.similarity import FullSimilarity, IdentitySimilarity, LowRankSimilarity, Similarity
from repblend.matching.student import PerModality, StudentLoss, SyntheticData, TwoTower, on
from repblend.matching.synthetic_set import SyntheticSet
from repblend.methods import Method, find_method
from repblend.params import Params
from repblend.params.distill import DistillSettings
from repblend.progress import progress
from repblend.records.base import Imported
from repblend.records.outputs import Course, Distilled, NearestCaption, Specimen
from repblend.released_files import read_distilled
from repblend.runtime.context import Paths, csv_of, write_cell
from repblend.runtime.provenance import provenance, work_fingerprint
from repblend.schedules import SCHEDULES, warmed_up
from repblend.stages.pipeline import Context
from repblend.stages.setup import annotations_of, captions_in, identify, image_encoder_of, located, view_source
from repblend.stages.students import StudentModel, make_evaluator, recipe_of, student_model
from repblend.store import JSON
from repblend.streams import seed_of_set, stream
from repblend.tensors import read_tensors, write_tensors


def run(context: Context) -> None:
    """Distil or import one cell; write its set and `records/distill/<cell>/`."""
    params, cell = context.params, context.cell
    settings = params.distill.settings(str(cell))
    if settings.import_from:
        import_set(context, settings)
        return
    problem = pose(cell, settings, params, context.paths)
    work = context.paths.checkpoint("distill", work_fingerprint(context, problem.inputs)) / "latest.safetensors"
    history, best = distil(problem, work, f"distill {cell}")
    course = Course(iterations=settings.iterations, chosen_iteration=history.chosen_iteration, **history.to_json())
    result = problem.synthetic_set(best, {"cell": cell.to_json(), "loss": settings.loss,
                                          "chosen_iteration": course.chosen_iteration,
                                          "initial_pairs": problem.initial_pairs})
    result.write(context.paths.set(cell))
    initial = problem.initial_images, [problem.captions[pair] for pair in problem.initial_pairs]
    specimens, pictures = look_at(result, problem.encoder, problem.features.train_texts, problem.captions, initial)
    record = Distilled(cell=cell.record, num_pairs=result.num_pairs, course=course, specimens=specimens,
                       definitions=DEFINITIONS, provenance=provenance(context, problem.inputs))
    curves = course.curves.to_json()
    _write(context, record, result.similarity, pictures | {
        "loss.csv": csv_of(list(curves), zip(*curves.values(), strict=True))})
    shutil.rmtree(work.parent, ignore_errors=True)


def distil(problem: "Problem", work: Path, label: str) -> tuple[History, dict[str, Tensor]]:
    """Run the outer loop from the start or from `work`; return its history and the best learned tensors."""
    distillation, settings = problem.distillation(), problem.settings
    first, history, best = 0, History(criterion=CRITERIA[settings.choose]), dict[str, Tensor]()
    if work.is_file():
        tensors, metadata = read_tensors(work)
        distillation.restore(tensors)
        best = {name.removeprefix("best/"): value for name, value in tensors.items() if name.startswith("best/")}
        first, history = metadata["iteration"], History(**metadata["history"], criterion=history.criterion)
    last, learned = settings.iterations, distillation.learned
    for iteration in progress(range(first, last + 1), label, start=first):
        due = iteration % settings.validate_every == 0 or iteration == last
        observed = iteration in history.checkpoints.get("iteration", [])
        if due and not observed and history.observe(iteration, problem.measure(learned)):
            best = {name: value.clone() for name, value in learned.tensors.items()}
        if iteration % settings.checkpoint_every == 0 and iteration > first:
            tensors = distillation.tensors() | {f"best/{name}": value for name, value in best.items()}
            write_tensors(work, tensors, {"iteration": iteration, "history": history.to_json()})
        if iteration < last:
            history.record(iteration, distillation.iterate(iteration))
    return history, best


# What stays fixed while a cell is distilled: the problem that its parameters and input files pose.

TRIAL_PAIRS = 2
"""Initial pairs that show how the student's loss is best differentiated twice."""


@dataclass(frozen=True)
class Problem:
    """A distillation's fixed parts, and how to start, measure and describe it."""

    cell: Cell
    settings: DistillSettings
    params: Params
    encoder: ImageEncoder
    features: Features
    model: StudentModel
    """What is matched: heads, or the image encoder and a text head."""
    trajectories: TrajectoryStore
    """Of experts of that kind."""
    heads: HeadPair
    reference: PerModality
    """An expert's heads, (P,) each: collapse is measured in their space, whatever is matched."""
    evaluator: Evaluator
    """Looks at the validation split only, unless the test split is to choose the iteration."""
    initial_pairs: list[int]
    """Rows of the training captions that the set starts from."""
    initial_images: Tensor
    """(N, 3, H, W), normalised."""
    captions: list[str]
    """All captions of the training set, in the order of their features."""
    inputs: list[Path]
    """Files that all of this was read from."""

    @property
    def method(self) -> Method:
        return find_method(self.cell.base_method)

    @property
    def seed(self) -> int:
        """Of all draws that make the set."""
        return seed_of_set(self.params.seed, self.cell.seed)

    @property
    def num_pairs(self) -> int:
        return len(self.initial_pairs)

    def distillation(self) -> Distillation:
        """Return the distillation at its start."""
        settings, optimiser, device = self.settings, self.settings.optimiser, self.params.compute.device
        rates = PerModality(torch.tensor(settings.initial_lr_img), torch.tensor(settings.initial_lr_txt))
        learned = Learned(self.initial_images.to(device), self.features.texts_of(self.initial_pairs).to(device),
                          self._similarity().to(device), on(device, rates), RATE_SPACES[settings.rate_space],
                          settings.learned)
        draws = Draws(self.seed, settings.segments, settings.inner_steps, settings.batch_size, self._perturb(),
                      settings.expert_span, settings.max_start, self.model.towers.draw_masks, settings.dropout_masks,
                      settings.expert_sides)
        objective = StudentLoss(LOSSES[settings.loss], LOGIT_TEMPERATURES[settings.logit_scale](settings.temperature))
        outer_rates = OuterRates(**optimiser.lr.model_dump())
        update = (sgd(learned, outer_rates, Momenta(**optimiser.momentum.model_dump())) if optimiser.momentum
                  else adam(learned, outer_rates))

        def schedule(iteration: int) -> float:
            factor = SCHEDULES[optimiser.schedule](iteration, settings.iterations)
            return warmed_up(factor, iteration, optimiser.warm_up)

        return Distillation(learned, update, schedule, settings.min_rate,
                            Matcher(self._represent(), self._match(objective)), draws, self.trajectories)

    def _perturb(self) -> DrawPerturbation | None:
        match self.method.perturbation:
            case "blending":
                return partial(draw_blend, alpha=self.settings.blend_alpha)
            case "noise":
                image_width, text_width = self.features.widths
                return partial(draw_noise, level=self.settings.noise_level, image_width=image_width,
                               text_width=text_width)
            case "none":
                return None

    def _represent(self) -> Callable[[Tensor, Tensor], EncodeOnce]:
        if self.method.matched == "image-encoder":
            return Pixels
        graph, encode, chunk = (ENCODER_GRAPHS[self.settings.encoder_graph], self.encoder.encode,
                                self.params.compute.encoder_chunk)
        if "images" not in self.settings.learned:
            images = self.initial_images.to(self.params.compute.device)
            features = Recomputed(images, torch.arange(len(images), device=images.device), encode, chunk).features()
            return lambda images, drawn: Pixels(features, drawn)
        return lambda images, drawn: graph(images, drawn, encode, chunk)

    def _match(self, objective: StudentLoss) -> MatchSegments:
        normaliser = NORMALISERS[self.settings.normaliser]
        if self.method.gradient == "heads":
            return partial(heads_gradient, heads=(self.heads.img, self.heads.txt), objective=objective,
                           normaliser=normaliser)
        return one_by_one(GRADIENTS[self.method.gradient], self._student(objective), objective, normaliser)

    def _student(self, objective: StudentLoss) -> TwoTower:
        """The encoder and head that are matched; a few initial pairs show how they are differentiated best."""
        few, device = self.initial_pairs[:TRIAL_PAIRS], self.params.compute.device
        images, texts = self.model.inputs(self.initial_images[:TRIAL_PAIRS]), self.features.texts_of(few)
        data = SyntheticData(images.to(device), texts.to(device), IdentitySimilarity(len(few), device))
        theta = on(device, self.trajectories.snapshot(0, 0))
        return with_fastest_second_order(self.model.towers.student, data, theta, objective)

    def _similarity(self) -> Similarity:
        match self.method.similarity:
            case "low-rank":
                return LowRankSimilarity.identity(self.num_pairs, self.settings.similarity_rank,
                                                  self.settings.similarity_alpha,
                                                  stream(self.seed, "distill", "similarity", self.num_pairs))
            case "full":
                return FullSimilarity.identity(self.num_pairs)
            case "identity":
                return IdentitySimilarity(self.num_pairs)

    def synthetic_set(self, tensors: dict[str, Tensor], metadata: JSON) -> SyntheticSet:
        """Return the set that learned tensors (as in `Learned.tensors`) stand for, on the CPU."""
        tensors = {name: value.cpu() for name, value in tensors.items()}
        lr_img, lr_txt = (RATE_SPACES[self.settings.rate_space].to_rate(tensors[name]).item()
                          for name in ("lr_img", "lr_txt"))
        return SyntheticSet(tensors["images"], tensors["texts"], self._similarity().with_tensors(tensors), lr_img,
                            lr_txt, metadata)

    def measure(self, learned: Learned) -> dict[str, float]:
        """Return the set's mean recall on validation and its collapse measures in the reference embedding."""
        recipe = recipe_of(self.cell, learned.rates.img.item(), learned.rates.txt.item(), self.settings.loss,
                           self.params)
        seen = self.model.inputs(learned.images)
        scores = self.evaluator.evaluate_set(seen, learned.texts, learned.similarity.matrix(), recipe)
        found = {f"{split}_mean_recall": scores.mean_of_best(split) for split in self.evaluator.splits}
        features = seen if self.method.matched == "image-head" else self._encoded(learned.images)
        return found | collapse_measures(self._embedded(features, learned.texts), self._initial_embedded)

    @cached_property
    def _initial_embedded(self) -> PerModality:
        return self._embedded(self._encoded(self.initial_images), self.features.texts_of(self.initial_pairs))

    def _encoded(self, images: Tensor) -> Tensor:
        return encode_in_chunks(self.encoder, images.cpu(), self.params.compute.encoder_chunk)

    def _embedded(self, features: Tensor, texts: Tensor) -> PerModality:
        """Embeddings (N, D) under the reference model, in float64."""
        return embedded(PerModality(features.cpu(), texts.cpu()), self.reference, self.heads.student)


def pose(cell: Cell, settings: DistillSettings, params: Params, paths: Paths) -> Problem:
    """Read everything that the distillation of a cell needs.

    Raises:
        ValueError: a file is missing or damaged, or nothing would be learned.
    """
    method = find_method(cell.base_method)
    if method.similarity == "identity" and settings.learned == ["similarity"]:
        raise ValueError(f"distill.cells.{cell}: learned: the similarity alone, but {method.title} has the identity, "
                         "which has no parameters; name another part as well")
    features, encoder = read_features(paths.features), image_encoder_of(params)
    train = annotations_of(params, paths).train
    seed = seed_of_set(params.seed, cell.seed)
    candidates = INITIAL_CANDIDATES[settings.initial_pairs](features.train_image_index, seed)
    initial = random_pairs(candidates, method.num_pairs(cell.budget), seed)
    images = initial_images(view_source(params, paths, train), features.train_image_index[initial].tolist(),
                            settings.initial_images == "augmented", seed)
    experts = paths.encoder_experts if method.matched == "image-encoder" else paths.experts
    model = student_model(cell, encoder, params, paths, features)
    splits = model.splits if settings.choose == "best-test" else {"val": model.val}
    return Problem(
        cell=cell, settings=settings, params=params, encoder=encoder, features=features, model=model,
        trajectories=TrajectoryStore(experts),
        heads=HeadPair.of_widths(*features.widths, params.heads.width, params.heads.dropout),
        reference=TrajectoryStore(paths.experts).last(0),
        evaluator=make_evaluator(schedule_of(cell, params.evaluate), params, splits, model.towers,
                                 settings.validation_seeds, cell.seed),
        initial_pairs=initial, initial_images=normalise(images, encoder.mean, encoder.std),
        captions=captions_in(train),
        inputs=[*feature_files(paths.features), *trajectory_files(paths.experts),
                *(trajectory_files(experts) if experts != paths.experts else []), paths.data / "manifest.json"])


def initial_images(source: ViewSource, rows: Sequence[int], augmented: bool, seed: int) -> Tensor:
    """Return training images (N, 3, H, H) in [0, 1] by their positions: as they are, or a view of each.

    The views are the same for all methods; those of a larger budget begin with those of a smaller one.
    """
    views = [0] * len(rows)
    if augmented:
        views = torch.randint(1, UNLIMITED, (len(rows),), generator=stream(seed, "distill", "initial views")).tolist()
    return torch.stack([source.view(row, view) for row, view in zip(rows, views, strict=True)])


# What the report shows of single pairs of a distilled set, and of its whole similarity.

NUM_SPECIMENS = 8
DEFINITIONS = collapse.SPECIMEN_DEFINITIONS | collapse.DEFINITIONS


def look_at(result: SyntheticSet, encoder: ImageEncoder, caption_features: Tensor, captions: Sequence[str],
            initial: tuple[Tensor, Sequence[str]] | None) -> tuple[list[Specimen], dict[str, bytes]]:
    """Return some pairs of a set, evenly spaced, with the real captions nearest to their texts, and their pictures.

    Args:
        encoder: whose mean and standard deviation the images are normalised with.
        caption_features: (M, D_txt) embeddings of the real captions.
        captions: these M captions.
        initial: the real pairs that the set started from, as (N, 3, H, W) and N captions; None where nobody knows.

    Returns:
        The specimens, and PNG files by the names that the specimens have for them.
    """
    chosen = collapse.evenly_spaced(result.num_pairs, NUM_SPECIMENS)
    nearest = collapse.nearest_captions(result.texts[chosen], caption_features, captions)
    specimens, pictures = [], {}
    for index, found in zip(chosen, nearest, strict=True):
        specimen = Specimen(index=index, initial_caption=initial[1][index] if initial else None,
                            nearest_captions=[NearestCaption(**caption) for caption in found])
        specimens.append(specimen)
        pictures[specimen.distilled_png] = png_bytes(result.images[index], encoder.mean, encoder.std)
        if initial and specimen.initial_png:
            pictures[specimen.initial_png] = png_bytes(initial[0][index], encoder.mean, encoder.std)
    return specimens, pictures


def _write(context: Context, record: Distilled, similarity: Similarity, files: dict[str, bytes]) -> None:
    """Write the cell's record, and beside it `similarity.npy` (N, N) and other files."""
    matrix = io.BytesIO()
    np.save(matrix, similarity.matrix().numpy())
    write_cell(context.paths.record("distill", context.cell), record, files | {"similarity.npy": matrix.getvalue()})


def import_set(context: Context, settings: DistillSettings) -> None:
    """Take a distilled set of the official release as it is; write the cell's set and `records/distill/<cell>/`.

    Nothing is distilled, so the record has no course; later stages evaluate it as any other set.

    Raises:
        ValueError: the file is missing, damaged, no distilled set, not what `sha256` says, or does not fit the cell.
    """
    params, paths, cell = context.params, context.paths, context.cell
    source, imported = settings.import_from, list[Imported]()
    assert source is not None
    path = located(source, paths)

    def check() -> None:
        imported.append(identify(f"distill.cells.{cell}.import_from", source, [path]))

    result = confirmed(source.sha256, check, lambda: _read_fitting(path, context, settings))
    specimens, pictures = look_at(result, image_encoder_of(params), read_features(paths.features).train_texts,
                                  captions_in(annotations_of(params, paths).train), initial=None)
    result.write(paths.set(cell))
    inputs = [*feature_files(paths.features), paths.data / "manifest.json"]
    _write(context, Distilled(cell=cell.record, num_pairs=result.num_pairs, imported=imported[0], specimens=specimens,
                              definitions=DEFINITIONS, provenance=provenance(context, inputs)),
           result.similarity, pictures)


def _read_fitting(path: Path, context: Context, settings: DistillSettings) -> SyntheticSet:
    """Read a set of the official release that fits the cell; raises as `import_set`."""
    params, cell, source = context.params, context.cell, settings.import_from
    assert source is not None
    result = read_distilled(path, {"cell": cell.to_json(), "loss": source.loss, "temperature": source.temperature,
                                   "imported": path.name})
    size, text_width = params.data.image_size, read_features(context.paths.features).widths[1]
    for what, found, expected, by in (
            ("pairs", result.num_pairs, find_method(cell.base_method).num_pairs(cell.budget), f"the budget of {cell}"),
            ("image sides", tuple(result.images.shape[2:]), (size, size), "data.image_size"),
            ("text width", result.texts.shape[1], text_width, "encode.text_encoder")):
        if found != expected:
            raise ValueError(f"{path}: {what} {found}, expected {expected} by {by}. Import a set that fits, or "
                             "change the parameter")
    return result
