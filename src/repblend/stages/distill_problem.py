"""What stays fixed while a cell is distilled: the problem that its parameters and input files pose."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from repblend.analysis.reference import collapse_measures, embedded
from repblend.coresets.candidates import INITIAL_CANDIDATES
from repblend.coresets.random import random_pairs
from repblend.data.features import Features, feature_files, read_features
from repblend.data.karpathy import read_annotations
from repblend.encoders.image import ImageEncoder, encode_in_chunks
from repblend.encoders.registry import load_image_encoder
from repblend.evaluation.evaluate import Evaluator
from repblend.evaluation.protocol import HeadPair, Split
from repblend.evaluation.student import Recipe, published_decay_start
from repblend.experts.trajectories import TrajectoryStore, trajectory_files
from repblend.matching.distillation import Distillation, Draws, Matcher
from repblend.matching.dropout import DROPOUT_MASKS
from repblend.matching.encode_once import ENCODER_GRAPHS, EncodeOnce, Pixels
from repblend.matching.gradient import GRADIENTS, NORMALISERS
from repblend.matching.losses import LOGIT_TEMPERATURES, LOSSES
from repblend.matching.outer import RATE_SPACES, Learned, Momenta, OuterRates, adam, sgd, warmed_up
from repblend.matching.perturbation import Draw, draw_blend, draw_noise
from repblend.matching.second_order import with_fastest_second_order
from repblend.matching.similarity import FullSimilarity, IdentitySimilarity, LowRankSimilarity, Similarity
from repblend.matching.step import Device, Objective, PerModality, Student, SyntheticData, on
from repblend.matching.synthetic_set import SyntheticSet
from repblend.methods import find_method
from repblend.methods.declaration import Method
from repblend.params import DistillSettings, Params
from repblend.schedules import SCHEDULES
from repblend.stages.cell_rules import schedule_of
from repblend.stages.cells import student_model
from repblend.stages.context import StageContext
from repblend.stages.initial_images import initial_images
from repblend.stages.specimens import InitialPairs, look_at
from repblend.stages.students import StudentModel, make_evaluator
from repblend.store import JSON
from repblend.streams import stream

TRIAL_PAIRS = 2


@dataclass(frozen=True)
class ReferenceModel:
    """Frozen encoders and the heads of an expert."""

    encoder: ImageEncoder
    encoder_chunk: int
    heads: HeadPair
    theta: PerModality
    """(P,) each."""

    def __call__(self, images: Tensor, texts: Tensor) -> PerModality:
        """Return embeddings (N, D) of normalised images (N, 3, H, W) and text embeddings (N, D_txt), in float64."""
        encoded = encode_in_chunks(self.encoder, images.cpu(), self.encoder_chunk)
        return embedded(PerModality(encoded, texts.cpu()), self.theta, self.heads.student)


@dataclass(frozen=True)
class Problem:
    """A distillation's fixed parts, and how to start, measure and describe it."""

    method: Method
    settings: DistillSettings
    seed: int
    device: Device
    """Where the student is trained and the set is learned."""
    encoder: ImageEncoder
    encoder_chunk: int
    features: Features
    model: StudentModel
    """What is matched: heads, or the image encoder and a text head."""
    trajectories: TrajectoryStore
    """Of experts of that kind."""
    reference: ReferenceModel
    """Collapse is measured in its space, whatever is matched."""
    evaluator: Evaluator
    """Looks at the validation split only, unless the test split is to choose the iteration."""
    recipe: Recipe
    """How students are trained that validate a set; their learning rates are the set's."""
    initial_pairs: list[int]
    """Rows of the training captions that the set starts from."""
    initial_images: Tensor
    """(N, 3, H, W), normalised."""
    initial_embedded: PerModality
    """The initial pairs in the reference embedding, (N, D) each, in float64."""
    captions: list[str]
    """All captions of the training set, in the order of their features."""
    inputs: list[Path]
    """Files that all of this was read from."""

    @property
    def num_pairs(self) -> int:
        return len(self.initial_pairs)

    def distillation(self) -> Distillation:
        """Return the distillation at its start."""
        learned = self._initial()
        settings = self.settings
        draws = Draws(self.seed, settings.segments, settings.inner_steps, settings.batch_size, self._perturb(),
                      settings.expert_span, settings.max_start,
                      DROPOUT_MASKS[settings.dropout_masks](self.model.towers.draw_masks))
        temperature = LOGIT_TEMPERATURES[settings.logit_scale](settings.temperature)
        objective = Objective(LOSSES[settings.loss], temperature)
        matcher = Matcher(self._represent(), self._student(objective), objective, NORMALISERS[settings.normaliser],
                          GRADIENTS[self._gradient()])
        return Distillation(learned, self._optimiser(learned), self._schedule, settings.min_rate, matcher, draws,
                            self.trajectories)

    def _gradient(self) -> str:
        """The method's, unless that has one pass over the steps where two are asked for."""
        one_pass_will_do = self.settings.dropout_masks == "same" or self.method.gradient != "kept-graphs"
        return self.method.gradient if one_pass_will_do else "constant-memory"

    def _perturb(self) -> Draw | None:
        match self.method.perturbation:
            case "blending":
                return partial(draw_blend, alpha=self.settings.blend_alpha)
            case "noise":
                return partial(draw_noise, level=self.settings.noise_level, image_width=self.encoder.feature_dim,
                               text_width=self.features.train_texts.shape[-1])
            case "none":
                return None

    def _represent(self) -> Callable[[Tensor, Tensor], EncodeOnce]:
        if self.method.matched == "image-encoder":
            return Pixels
        return partial(ENCODER_GRAPHS[self.settings.encoder_graph], encode=self.encoder.encode,
                       chunk=self.encoder_chunk)

    def _student(self, objective: Objective) -> Student:
        """What is matched; a few initial pairs show how its loss is best differentiated twice."""
        few = self.initial_pairs[:TRIAL_PAIRS]
        images, texts = self.model.inputs(self.initial_images[:TRIAL_PAIRS]), self.features.texts_of(few)
        data = SyntheticData(images.to(self.device), texts.to(self.device), IdentitySimilarity(len(few), self.device))
        theta = on(self.device, self.trajectories.snapshot(0, 0))
        return with_fastest_second_order(self.model.towers.student, data, theta, objective)

    def _schedule(self, iteration: int) -> float:
        optimiser = self.settings.optimiser
        factor = SCHEDULES[optimiser.schedule](iteration, self.settings.iterations)
        return warmed_up(factor, iteration, optimiser.warm_up)

    def _initial(self) -> Learned:
        rates = PerModality(torch.tensor(self.settings.initial_lr_img), torch.tensor(self.settings.initial_lr_txt))
        images, texts = (value.to(self.device)
                         for value in (self.initial_images, self.features.texts_of(self.initial_pairs)))
        return Learned(images, texts, self._similarity().to(self.device), on(self.device, rates),
                       RATE_SPACES[self.settings.rate_space])

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

    def _optimiser(self, learned: Learned) -> torch.optim.Optimizer:
        settings = self.settings.optimiser
        rates = OuterRates(**settings.lr.model_dump())
        return sgd(learned, rates, Momenta(**settings.momentum.model_dump())) if settings.momentum else adam(
            learned, rates)

    def synthetic_set(self, tensors: dict[str, Tensor], metadata: JSON) -> SyntheticSet:
        """Return the set that learned tensors (as in `Learned.tensors`) stand for, on the CPU."""
        tensors = {name: value.cpu() for name, value in tensors.items()}
        space = RATE_SPACES[self.settings.rate_space]
        rates = [space.to_rate(tensors[name]).item() for name in ("lr_img", "lr_txt")]
        return SyntheticSet(tensors["images"], tensors["texts"], self._similarity().with_tensors(tensors), *rates,
                            metadata)

    def measure(self, learned: Learned) -> dict[str, float]:
        """Return the set's mean recall on validation and its collapse measures in the reference embedding."""
        recipe = replace(self.recipe, lr_img=learned.rates.img.item(), lr_txt=learned.rates.txt.item())
        scores = self.evaluator.evaluate_set(self.model.inputs(learned.images), learned.texts,
                                             learned.similarity.matrix(), recipe)
        found = {f"{split}_mean_recall": scores.mean_of_best(split) for split in self.evaluator.splits}
        return found | collapse_measures(
            self.reference(learned.images, learned.texts), self.initial_embedded)

    def specimens(self, result: SyntheticSet) -> JSON:
        """Return what the report shows of single pairs beside those that they started from, and the similarity."""
        initial = InitialPairs(self.initial_images, [self.captions[pair] for pair in self.initial_pairs])
        return look_at(result, self.encoder, self.features.train_texts, self.captions, initial)


def pose(context: StageContext) -> Problem:
    """Read everything that the distillation of the context's cell needs.

    Raises:
        ValueError: the method is unknown, the cell has no settings, or a file is missing or damaged.
    """
    params, paths, cell = context.params, context.paths, context.cell
    method, settings = find_method(cell.base_method), params.distill.settings(str(cell))
    features = read_features(paths.features)
    encoder = load_image_encoder(params.encode.image_encoder, params.data.image_size).to(params.compute.device)
    train = read_annotations(paths.data, params.data.name, params.data.max_caption_words).train
    candidates = INITIAL_CANDIDATES[settings.initial_pairs](features.train_image_index, params.seed)
    initial = random_pairs(candidates, method.num_pairs(cell.budget), params.seed)
    images = initial_images(paths, params, settings, train, features.train_image_index[initial].tolist(), encoder)
    heads = HeadPair.of_widths(*features.widths, params.heads.width, params.heads.dropout)
    reference = ReferenceModel(encoder, params.compute.encoder_chunk, heads, TrajectoryStore(paths.experts).last(0))
    matches_encoder = method.matched == "image-encoder"
    experts = paths.encoder_experts if matches_encoder else paths.experts
    model, schedule = student_model(cell, encoder, params, paths, features), schedule_of(cell, params)
    return Problem(
        method=method, settings=settings, seed=params.seed, device=params.compute.device, encoder=encoder,
        encoder_chunk=params.compute.encoder_chunk, features=features, model=model,
        trajectories=TrajectoryStore(experts),
        reference=reference,
        evaluator=make_evaluator(params, schedule, _splits(settings, model), model.towers, settings.validation_seeds),
        recipe=_recipe(params, settings, schedule.epochs),
        initial_pairs=initial,
        initial_images=images,
        initial_embedded=reference(images, features.texts_of(initial)),
        captions=[caption for image in train for caption in image.captions],
        inputs=[*feature_files(paths.features), *trajectory_files(paths.experts),
                *(trajectory_files(experts) if matches_encoder else []), paths.data / "manifest.json"],
    )


def _splits(settings: DistillSettings, model: StudentModel) -> dict[str, Split]:
    return {"val": model.val} | ({"test": model.test} if settings.choose == "best-test" else {})


def _recipe(params: Params, settings: DistillSettings, epochs: int) -> Recipe:
    """How students train on this set; their learning rates are filled in from the set."""
    evaluate = params.evaluate
    return Recipe(settings.initial_lr_img, settings.initial_lr_txt, evaluate.momentum, evaluate.weight_decay,
                  settings.loss, evaluate.temperature, published_decay_start(epochs))
