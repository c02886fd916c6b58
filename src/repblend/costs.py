"""What stages do, counted in rows that can be timed alone, and what a row takes where nobody timed it here.

A row is what work grows with: an image that is encoded, a pair of an expert's step, a pair of an inner step. Each kind
of row is timed at the profile's own sizes by `repblend.rehearsal`, and `repro plan` multiplies. Needs no torch.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from repblend.data.karpathy import SPLITS
from repblend.data.source import recorded_counts
from repblend.grid import Cell, schedule_of
from repblend.methods import find_method
from repblend.params import Params
from repblend.params.experts import Experts
from repblend.records.base import Machine, Record
from repblend.records.outputs import Prepared
from repblend.runtime.context import PAIRED
from repblend.schedules import scored_epochs
from repblend.sections import Positive
from repblend.store import JSON, repository_of
from repblend.ufc.params import UfcParams

REHEARSAL = Path("rehearsal.json")
"""In a workspace: what `repro rehearse` found."""

Work = Mapping[str, float]
"""Kind of row -> how many."""


OUT_OF_MEMORY = 77
"""Exit code of a rehearsing process that was refused memory."""

# What a rehearsal writes.


class Rehearsed(Record):
    """What a kind of row takes."""

    kind: str
    what: str
    """What was run: a stage, a cell, sizes."""
    rows: Positive
    """Rows of a step."""
    steps: int
    """Steps that were timed; 0 where none came to its end."""
    seconds: float | None
    """Per step, median."""
    memory_mib: float
    """Peak of the process that ran them."""
    gpu_memory_mib: float | None = None
    bytes_written: float = 0.0
    """Per step, on average over a whole stage: checkpoints, snapshots, features."""
    weights: Literal["real", "random"] = "random"
    """Random where no checkpoint is here: they cost the same."""
    finding: str | None = None
    """What did not fit, and what cured it."""
    cure: dict[str, Any] = Field(default_factory=dict)
    """Parameter -> value that the times and memory are of, where the profile's own did not fit."""


class Rehearsal(Record):
    """`rehearsal.json`: what kinds of rows take on one machine with the parameters of one workspace."""

    setting: dict[str, Any]
    """What the times are of: encoders, image size, widths, device."""
    device: str
    """Of the steps, by name."""
    machine: Machine
    torch: str
    found: list[Rehearsed]


def setting_of(params: Params | UfcParams) -> JSON:
    """Return what a time per row depends on: the times of workspaces that agree in it serve one another."""
    if isinstance(params, UfcParams):
        return {"image_size": params.data.image_size, "data": params.data.name, "compute": params.compute.model_dump()}
    return {"encoders": [params.encode.image_encoder, params.encode.text_encoder], "width": params.heads.width,
            "image_size": params.data.image_size, "compute": params.compute.model_dump(),
            "experts": [params.experts.views, params.experts.text_mode]}


# How large data sets are.


@dataclass(frozen=True)
class Counts:
    """Images and captions of the splits."""

    train_images: int
    train_captions: int
    val_images: int
    val_captions: int
    test_images: int
    test_captions: int


SIZES = {"cc3m": Counts(575_000, 575_000, 10_000, 10_000, 10_000, 10_000),
         "openmoji": Counts(1_152, 1_695, 200, 291, 300, 448)}
"""Data sets whose profiles expect no counts: LLaVA's 595,000 pairs without both held-out splits. How many of them the
authors trained on is not published."""
LABELLED = {"digits": (1_797, 0, 10), "glyphs": (11_160, 0, 62), "cifar10": (50_000, 10_000, 10),
            "cifar100": (50_000, 10_000, 100), "tiny-imagenet": (100_000, 10_000, 200),
            "imagenet": (1_281_167, 50_000, 1_000)}
"""Images for training and for test, and classes."""


def counts_of(workspace: Path, params: Params | UfcParams) -> Counts | None:
    """Return the size of a workspace's data set as it was counted, else as it has to be, else as `repro data check`
    counted it; None if nothing is known.
    """
    if isinstance(params, UfcParams):
        return None
    prepared = workspace / "records" / "prepare.json"
    folder, expected = getattr(params.data, "folder", None), getattr(params.data, "expected", {})
    counts: Mapping[Any, Any] = (
        Prepared.read(prepared).counts if prepared.is_file() else
        expected or (recorded_counts(repository_of(workspace) / folder) if folder else {}))
    found = [counts[split] for split in SPLITS if split in counts]
    return (Counts(*(number for split in found for number in (split.images, split.captions)))
            if len(found) == len(SPLITS) else SIZES.get(params.data.name))


# Rows of a stage.

IMAGE, CAPTION = "image encoded", "caption encoded"
EXPERT, ENCODER_EXPERT = "pair of an expert's step", "pair of an encoder expert's step"
STUDENT, ENCODER_STUDENT = "pair of a student's step", "pair of an encoder student's step"
SCORED, ENCODER_SCORED = "student scored", "image scored by an encoder student"
DISTILL = {"heads": "pair of an inner step, heads", "constant-memory": "pair of an inner step, encoder",
           "unrolled": "pair of an inner step, encoder, unrolled"}
"""By how a method differentiates its steps."""


def work_of(stage: str, params: Params | UfcParams, counts: Counts | None) -> Work | None:
    """Return the rows of a stage, named as in `runs.jsonl`: `encode`, or `distill@lors-100`; an empty mapping where it
    is a matter of minutes at any scale, None where the data set's size is not known.
    """
    module, _, cell = stage.partition("@")
    if isinstance(params, UfcParams):
        return _unimodal(module, cell, params)
    parsed = Cell.parse(cell) if cell and module not in PAIRED else None
    return _multimodal(module, parsed, params, counts) if counts else None


def with_encoders_of(stage: str, params: Params | UfcParams) -> Params | UfcParams:
    """Return the parameters with the pair of encoders that a stage uses, named as for `work_of`."""
    module, _, cell = stage.partition("@")
    if isinstance(params, UfcParams) or not cell:
        return params
    pair = cell if module in PAIRED else Cell.parse(cell).variant
    return params.with_pair(pair) if pair in params.grid.pairs else params


def kinds_of(stages: Iterable[str], params: Params | UfcParams, counts: Counts | None) -> list[str]:
    """Return all kinds of rows of the stages, in the order in which a run comes to them."""
    return list(dict.fromkeys(kind for stage in stages for kind, rows in (work_of(stage, params, counts) or {}).items()
                              if rows))


def _multimodal(module: str, cell: Cell | None, params: Params, counts: Counts) -> Work:
    evaluate, captions, held_out = params.evaluate, counts.train_captions, counts.val_images + counts.test_images
    match module, cell:
        case "encode", _:
            return {IMAGE: counts.train_images * params.encode.views.num + held_out,
                    CAPTION: captions + counts.val_captions + counts.test_captions}
        case "experts", _:
            return {EXPERT: _trained(params.experts, captions), SCORED: 2 * params.experts.num}
        case "encoder-experts", _:
            experts = params.encoder_experts
            return {ENCODER_EXPERT: _trained(experts, captions),
                    ENCODER_SCORED: experts.num * (experts.num_snapshots(captions) + 1) * held_out}
        case "bounds", _:
            full = evaluate.full_data
            return {STUDENT: evaluate.num_seeds * (full.epochs + 1) * captions,
                    SCORED: 2 * evaluate.num_seeds * len(scored_epochs(full.epochs, full.scored_intervals))}
        case "select", Cell(method=method) if method != "random":
            epochs = params.select.forgetting_epochs if method == "forgetting" else params.select.warm_up.epochs
            return {STUDENT: epochs * captions}
        case "distill", Cell():
            settings = params.distill.settings(str(cell))
            if settings.import_from:
                return {}
            times = settings.iterations // settings.validate_every + 1
            validations = _students(cell, params, settings.validation_seeds * times, [counts.val_images])
            inner = settings.iterations * settings.segments * settings.inner_steps * settings.batch_size
            return {DISTILL[find_method(cell.base_method).gradient]: inner, **validations}
        case ("evaluate" | "transfer"), Cell():
            encoders = 1 + len(params.transfer.architectures) * (module == "transfer")
            rows = _students(cell, params, evaluate.num_seeds * encoders, [counts.val_images, counts.test_images])
            return {**rows, IMAGE: 0 if cell.trains_encoder else (encoders - 1) * held_out}
    return {}


def _trained(experts: Experts, captions: int) -> int:
    """Pairs of all experts' steps; a last partial batch is dropped."""
    size = min(experts.batch_size, captions)
    return 0 if experts.import_from else experts.num * experts.num_steps(captions) * size


def _students(cell: Cell, params: Params, num: int, splits: list[int]) -> Work:
    """Rows of that many students, trained on the set of a cell and scored on splits of so many images."""
    schedule = schedule_of(cell, params.evaluate)
    size = min(schedule.batch_size, cell.budget)
    trained = num * (schedule.epochs + 1) * -(-cell.budget // size) * size
    scored = num * len(scored_epochs(schedule.epochs, schedule.scored_intervals))
    if cell.trains_encoder:
        return {ENCODER_STUDENT: trained, ENCODER_SCORED: scored * sum(splits)}
    return {STUDENT: trained, SCORED: scored * len(splits)}


def _unimodal(module: str, cell: str, params: UfcParams) -> Work:
    data, recipe, names = params.data, params.validation, params.teachers.architectures
    train, test, classes = LABELLED[data.name]
    held_out = data.num_val if data.training_images == "without-val" else 0
    train, test = train - held_out - (data.num_test or 0), test or data.num_test or 0

    def stored(budget: int) -> int:
        return _stored(budget, classes, len(names))

    match module:
        case "teacher":
            ready_made = params.teachers.weights == "torchvision" or params.teachers.import_from
            epochs = 0 if ready_made else params.teachers.epochs
            return {f"image of a teacher's step, {cell}": epochs * train}
        case "generate":
            return {f"image of a compensator's step, {cell}":
                    params.generation.iterations * params.num_draws * stored(max(params.budgets)) * classes}
        case "label":
            return {"image labelled": stored(int(cell.rpartition("-")[2])) * (len(names) + 1) * classes}
        case "validate":
            (_, labels, student), budget = cell.rpartition("-")[0].rsplit("+", 2), int(cell.rpartition("-")[2])
            epochs = recipe.epochs.dynamic if labels == "dynamic" else recipe.epochs.static
            images = recipe.num_seeds * epochs * stored(budget) * (len(names) + 1) * classes
            scored = recipe.num_seeds * (epochs // recipe.score_every + 2) * (test + data.num_val)
            return {f"image of a student's step, {student}": images, f"image scored, {student}": scored,
                    **({"image labelled": images} if labels == "dynamic" else {})}
    return {}


def _stored(budget: int, classes: int, num_teachers: int) -> int:
    """Stored images per class, as `repblend.ufc.integration.Budget` counts them."""
    return int(budget / (num_teachers / classes + 1))


def unimodal_bytes(stage: str, params: UfcParams) -> float | None:
    """Return the bytes of a stage's large outputs, images counted as if they were not compressed."""
    module, _, cell = stage.partition("@")
    (_, _, classes), pixels = LABELLED[params.data.name], 3 * params.data.image_size ** 2
    num_teachers = len(params.teachers.architectures)
    if module == "generate":
        return 4.0 * pixels * params.num_draws * _stored(max(params.budgets), classes, num_teachers)
    if module in ("integrate", "select", "label"):
        images = _stored(int(cell.rpartition("-")[2]), classes, num_teachers) * (num_teachers + 1) * classes
        return float(images * (4 * classes if module == "label" else pixels))
    return None


# What a row takes where nobody timed it here: published, or by its multiply-adds.

IMAGE_ENCODERS = {
    "efficientnet_lite0": (1280, 3_371_008, 0.384), "efficientnet_lite1": (1280, 4_135_680, 0.501),
    "efficientnet_lite2": (1280, 4_811_072, 0.575), "nfnet_l0": (2304, 32_769_488, 4.253),
    "nf_resnet50": (2048, 23_508_032, 4.087), "nf_regnet_b1": (960, 9_262_984, 0.606),
    "vit_tiny_patch16_224": (1000, 5_717_416, 1.253), "vit_tiny_patch16_224_pooled": (192, 5_524_416, 1.253),
    "dino_vit_b16": (768, 85_798_656, 17.563), "dinov2_vit_b14": (768, 85_724_928, 23.161)}
"""Name -> width of its features, its parameters, and thousand million multiply-adds of an image of 224 pixels: known
here so that a plan needs neither torch nor weights."""
TEXT_ENCODERS = {"all-MiniLM-L6-v2": (384, 0.1), "all-MiniLM-L6-v2_first-token": (384, 0.1),
                 "bert-base-uncased": (768, 1.9), "distilbert-base-uncased": (768, 0.9),
                 "bge-base-en-v1.5": (768, 1.9), "bge-base-en-v1.5_first-token": (768, 1.9)}
"""Name -> width of its features, and thousand million multiply-adds of a caption of usual length."""
NETWORKS = {
    "resnet18": 0.556, "resnet34": 1.159, "resnet50": 1.298, "resnet101": 2.510, "mobilenet_v2": 0.091,
    "efficientnet_b0": 0.030, "shufflenet_g2": 0.040, "convnet128": 0.051, "torchvision-resnet18": 1.814,
    "torchvision-resnet50": 4.087, "torchvision-resnet101": 7.799, "torchvision-mobilenet_v2": 0.300,
    "torchvision-efficientnet_b0": 0.385}
"""Network of the unimodal pipeline -> thousand million multiply-adds of an image: 32 pixels, torchvision's 224."""
PAPERS_STEPS = 10 * (145_000 // 128)
"""Of an expert, on Flickr30K."""
PUBLISHED = {
    EXPERT: 40 * 60 / (PAPERS_STEPS * 128), ENCODER_EXPERT: 70 * 60 / (PAPERS_STEPS * 128),
    DISTILL["heads"]: 1.71 / (8 * 20), DISTILL["constant-memory"]: 11.5 / (8 * 20),
    DISTILL["unrolled"]: 11.5 / (8 * 20)}
"""Seconds per row with NFNet-L0 and BERT-base on the authors' GPUs (RTX 3090, H100): minutes per trajectory and seconds
per iteration (Sections 5.4 and 8), over their counts of pairs. MTT-VL's is LoRS's."""
PAPERS_ENCODERS = ("nfnet_l0", "bert-base-uncased")
_FORWARD, _CAPTION = IMAGE_ENCODERS[PAPERS_ENCODERS[0]][2], TEXT_ENCODERS[PAPERS_ENCODERS[1]][1]
PUBLISHED |= {IMAGE: PUBLISHED[EXPERT] * _FORWARD / (_FORWARD + _CAPTION),
              CAPTION: PUBLISHED[EXPERT] * _CAPTION / (_FORWARD + _CAPTION),
              ENCODER_STUDENT: PUBLISHED[ENCODER_EXPERT] * 3 * _FORWARD / (3 * _FORWARD + _CAPTION),
              ENCODER_SCORED: PUBLISHED[ENCODER_EXPERT] * _FORWARD / (3 * _FORWARD + _CAPTION)}
"""Derived, by shares of multiply-adds: an expert's step encodes its image and its caption; an encoder expert's step
encodes the caption and passes the image forward and, for twice that, backward."""
PUBLISHED_BATCH = 20
PUBLISHED_GIB = {DISTILL["heads"]: 10.17, DISTILL["constant-memory"]: 21.78, DISTILL["unrolled"]: 21.78}
"""Peak GPU memory with batches of `PUBLISHED_BATCH`; MTT-VL's is LoRS's."""
MULTIPLY_ADDS_PER_SECOND = {"cuda": 5e12, "cpu": 3e10}
"""What the published encoder experts come to on a GPU, and about a thread of a processor."""


def papers_params(params: Params) -> Params:
    """Return the parameters with the encoders, and heads as wide as their features, that published times are of."""
    image, text = PAPERS_ENCODERS
    encode = params.encode.model_copy(update={"image_encoder": image, "text_encoder": text})
    return params.model_copy(update={"encode": encode, "heads": params.heads.model_copy(
        update={"width": IMAGE_ENCODERS[image][0]})})


def estimated_seconds(kind: str, params: Params | UfcParams, counts: Counts | None) -> float:
    """Return seconds per row by its multiply-adds alone: to a factor of several, for what nobody timed."""
    threads = 1 if params.compute.device == "cuda" else params.compute.threads
    speed = threads * MULTIPLY_ADDS_PER_SECOND[params.compute.device]
    return (_unimodal_operations(kind, params) if isinstance(params, UfcParams) else
            _operations(kind, params, counts)) / speed


def _operations(kind: str, params: Params, counts: Counts | None) -> float:
    image_width, _, encoder = IMAGE_ENCODERS.get(params.encode.image_encoder, IMAGE_ENCODERS["nfnet_l0"])
    text_width, texts = TEXT_ENCODERS.get(params.encode.text_encoder, TEXT_ENCODERS["bert-base-uncased"])
    image, caption, width = 1e9 * encoder * (params.data.image_size / 224) ** 2, 1e9 * texts, params.heads.width
    heads = (image_width + text_width + 2 * width) * width
    images, captions = (counts.test_images, counts.test_captions) if counts else (1_000, 5_000)
    fresh, training = params.experts.views == "fresh", params.experts.text_mode == "train"
    return {IMAGE: image, CAPTION: caption, EXPERT: image * fresh + caption * training + 3 * heads,
            ENCODER_EXPERT: 3 * image + caption * training, STUDENT: 3 * heads, ENCODER_STUDENT: 3 * image,
            SCORED: (images + captions) * heads / 2 + images * captions * width, ENCODER_SCORED: image,
            DISTILL["heads"]: 2 * image + 10 * heads}.get(kind, 9 * image)


def _unimodal_operations(kind: str, params: UfcParams) -> float:
    def of(name: str) -> float:
        size = 224 if name.startswith("torchvision") else 32
        return 1e9 * NETWORKS.get(name, 0.02) * (params.data.image_size / size) ** 2

    if kind == "image labelled":
        return sum(map(of, params.teachers.architectures))
    return of(kind.rpartition(", ")[2]) * (1 if kind.startswith("image scored") else 3)
