"""Every stage of both pipelines that computes on a device, on a tiny grid of random data: `python -m tests.gpu.work`.

On a GPU it needs torch, timm, transformers, numpy, safetensors and small packages of pure Python alone: weights, images
and captions are random, and encoders small ones of the paper's kinds (a network without BatchNorm, and DistilBERT).
"""

import contextlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import torch
from torch import nn

from repblend.costs import Counts
from repblend.encoders.depthwise import Depthwise
from repblend.encoders.hub import CHECKPOINTS, record_of
from repblend.encoders.libraries import random_where_absent
from repblend.grid import Cell
from repblend.methods import Method
from repblend.params import Params
from repblend.rehearsal import furnish
from repblend.runtime.context import Paths
from repblend.runtime.harness import compute_deterministically, prepare_gpu
from repblend.stages import bounds, distill, embed, encode, encoder_experts, evaluate, experts, select, transfer
from repblend.stages.pipeline import Context
from repblend.store import write_json
from repblend.tensors import write_tensors
from repblend.ufc.data import NORMALISATIONS, LabelledImages, Splits, write_image_files
from repblend.ufc.generation import generate
from repblend.ufc.params import UfcParams
from repblend.ufc.training import train_teacher, write_teacher
from repblend.ufc.validation import static_labels, train_student
from tests.pretend_gpu import pretend_gpu
from tests.tiny import tiny_content

IMAGE_ENCODER, TEXT_ENCODER = (("nf_regnet_b1", "distilbert-base-uncased") if torch.cuda.is_available() else
                               ("efficientnet_lite0", "all-MiniLM-L6-v2"))
"""Without a GPU those of the packages: autograd makes zeros for weights that are standardised, which nobody marks."""
CELLS = (Cell("repblend", 8), Cell("lors", 8), Cell("mtt-vl", 8))
"""Heads, a whole encoder step by step, and a whole encoder through all steps."""
DRAWS_ICONS = importlib.util.find_spec("resvg_py") is not None
STAGES = ((encode, None), (experts, None), (encoder_experts, None), (select, Cell("random", 8)),
          (select, Cell("herding", 8)),
          *((distill, cell) for cell in CELLS), *((evaluate, cell) for cell in CELLS), (evaluate, Cell("herding", 8)),
          (bounds, None), (embed, CELLS[0]), *([(transfer, CELLS[0])] if DRAWS_ICONS else []))
COUNTS = Counts(12, 60, 6, 30, 6, 30)
PAIRS = 6
TEACHERS = ("convnet128", "shufflenet_g2")
OUTPUTS = ("features", "experts", "encoder-experts", "sets", "records", "metrics", "ufc")


def context(module: object, cell: Cell | None, folder: Path, device: str) -> Context:
    """Dropout everywhere, views and text features drawn anew, two iterations."""
    content = tiny_content()
    content["compute"]["device"] = device
    content["encode"] |= {"image_encoder": IMAGE_ENCODER, "text_encoder": TEXT_ENCODER}
    content["heads"]["dropout"] = content["encoder_experts"]["head_dropout"] = 0.1
    content["grid"] |= {"budgets": [8], "coresets": ["random", "herding"], "compared_budgets": [8]}
    content["experts"] |= {"num": 1, "min_steps": 0,
                           "epochs": 1, "batch_size": 16, "snapshots_every": 1, "text_mode": "train",
                           "views": "fresh"}
    content["encoder_experts"] |= {"num": 2, "min_steps": 0,
                                   "epochs": 1, "batch_size": 16, "snapshots_every": 1, "views": "fresh"}
    content["select"]["warm_up"] |= {"epochs": 1}
    content["distill"]["common"] |= {
        "iterations": 3, "segments": 1, "inner_steps": 2, "batch_size": 4, "expert_span": 1, "max_start": 1,
        "validate_every": 2, "validation_seeds": 1, "checkpoint_every": 1, "choose": "last",
        "dropout_masks": "different"}
    content["distill"]["methods"] = {"repblend": {}, "lors": {"loss": "wbce"}, "mtt-vl": {"loss": "infonce"}}
    content["distill"]["cells"] = {str(each): {} for each in CELLS}
    content["evaluate"] |= {"num_seeds": 2, **{name: {"epochs": 1, "scored_intervals": 1} for name in (
        "full_data", "encoder_students", "distilled", "coresets")}}
    content["transfer"] |= {"architectures": [IMAGE_ENCODER], "num_icons": 4}
    stage = module.__name__.rpartition(".")[2].replace("_", "-")
    return Context(stage, cell, Params.model_validate(content), Paths(folder))


def prepare(folder: Path) -> None:
    """Write random data, and what a fetch would have recorded of the encoders."""
    params = context(encode, None, folder, "cpu").params
    for checkpoint in filter(None, map(CHECKPOINTS.get, (IMAGE_ENCODER, TEXT_ENCODER))):
        write_json(folder / record_of(checkpoint), {"revision": checkpoint.revision or "0" * 40, "files": {}})
    with random_where_absent():
        furnish(Paths(folder), params, COUNTS, pixels=True, num=COUNTS.train_images)
    write_json(folder / "data/prepared/manifest.json", {})


def run(folder: Path, device: str, first: int = 0, last: int | None = None) -> None:
    """Run stages `first` to `last` in a prepared folder, which has to be the working directory."""
    compute_deterministically(1)
    on_gpu = device == "cuda" and torch.cuda.is_available()
    if on_gpu:
        prepare_gpu("float32")
    elif device == "cuda":
        torch.cuda.get_device_name = lambda: "Pretended"
    # Whatever was on a pretended GPU stays in memory until its end, so every stage has one of its own. The processor
    # that it is compared with has one as well, and leaves it empty.
    pretended = contextlib.nullcontext if torch.cuda.is_available() else _pretended_gpu
    for module, cell in STAGES[first:last]:
        print(module.__name__, cell or "", flush=True)
        with random_where_absent(), pretended():
            module.run(context(module, cell, folder, device))
    for name in TEACHERS if last is None else ():
        with pretended():
            run_unimodal(name, folder / "ufc", device)


@contextlib.contextmanager
def _pretended_gpu() -> Iterator[None]:
    """Compute in the one order of operations in which a pretended GPU and a processor can agree exactly.

    While operations are watched, autograd writes some second derivatives out in another order; and a processor has a
    depthwise gradient of its own, so that here it takes PyTorch's, as a GPU does.
    """
    with pretend_gpu(), mock.patch.object(Depthwise, "forward", nn.Conv2d.forward):
        yield


def run_unimodal(name: str, folder: Path, device: str) -> None:
    """Train a teacher, make compensators, label with it, and train students on both kinds of labels."""
    draws, num, size, classes = torch.Generator().manual_seed(0), 20, 32, 10
    images = LabelledImages(torch.randint(256, (num, 3, size, size), generator=draws, dtype=torch.uint8),
                            torch.arange(num) % classes, classes)
    content = unimodal_content()
    params, normalisation, splits = UfcParams.model_validate(content), NORMALISATIONS["cifar10"], Splits(*[images] * 3)
    teacher, _ = train_teacher(name, splits, normalisation, params.teachers, 0,
                               folder / f"{name}-aside.safetensors", "", device)
    initial = write_image_files(folder / f"initial-{name}", [{"images": images.images[:classes]}] * 2)
    made = generate(teacher, name, initial, normalisation, params.generation, 0, folder / f"{name}-aside", "",
                    device)
    write_tensors(folder / f"{name}-compensators.safetensors", {"values": made.values})
    labels = static_labels([teacher], images, normalisation, len(images), device)
    write_tensors(folder / f"{name}-labels.safetensors", {"labels": labels})
    for kind, signal in (("static", labels), ("dynamic", [teacher])):
        _, student = train_student(name, images, signal, splits, normalisation, params.validation, 2, 0, 0,
                                   folder / f"{name}-{kind}-aside.safetensors", "", device)
        write_teacher(folder / f"{name}-{kind}-student.safetensors", name, student.cpu())
    write_teacher(folder / f"{name}.safetensors", name, teacher.cpu())


def unimodal_content() -> dict:
    augmentation = {"crop_padding": 4, "flip": 0.5}
    return {
        "seed": 0, "compute": {"threads": 1}, "budgets": [3],
        "data": {"name": "cifar10", "image_size": 32, "num_val": 10, "folder": "data"},
        "teachers": {"architectures": [*TEACHERS], "epochs": 2, "batch_size": 10, "lr": 0.05,
                     "momentum": 0.9, "weight_decay": 5e-4, "augmentation": augmentation, "checkpoint_every": 2},
        "generation": {"iterations": 3, "lr": 0.1, "lambda_bn": 1.0, "transform": "shift", "max_shift": 2,
                       "compensators_at_once": 2, "checkpoint_every": 3},
        "validation": {"labels": ["static", "dynamic"], "students": [*TEACHERS], "epochs": {"static": 2, "dynamic": 2},
                       "batch_size": 10, "lr": 1e-3, "weight_decay": 0.01, "temperature": 30.0, "mixup_alpha": 0.8,
                       "augmentation": augmentation, "score_every": 2, "num_seeds": 2}}


if __name__ == "__main__":
    Method.num_pairs = lambda method, budget: PAIRS  # type: ignore[method-assign]
    run(Path.cwd(), sys.argv[1], *map(int, sys.argv[2:]))
