"""What the released scripts do, with this package's parts; `repblend.ufc.__main__` says which options they take.

Beside the released options every command takes `--data-path`, `--teachers-path`, `--seed` and `--device`. What a script
does silently is said aloud: options that it ignores, and the split that its best epoch is chosen on.
"""

import argparse
import hashlib
import shutil
import sys
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from repblend.store import JSON, fingerprint, read_json, write_json
from repblend.ufc.archives import ARCHIVES, fetch
from repblend.ufc.budget import Budget
from repblend.ufc.data import NORMALISATIONS, Splits
from repblend.ufc.datasets import read_splits
from repblend.ufc.generation import generate
from repblend.ufc.initial import MANIFEST, InitialImages, write_initial_images
from repblend.ufc.integration import ImageSet, read_image_set, read_released_set, write_integrated
from repblend.ufc.official import CHECKPOINTS, import_class_folders, import_tensors, read_official_teacher
from repblend.ufc.params import Generation, Teachers, UfcData, Validation
from repblend.ufc.teachers import read_teacher, torchvision_teacher, train_teacher, write_teacher
from repblend.ufc.validation import StudentScores, static_labels, train_student

SMALL = ("convnet-small", "resnet-small", "mobilenet-small")
ARCHITECTURES = {
    "digits": SMALL, "cifar10": tuple(CHECKPOINTS), "cifar100": tuple(CHECKPOINTS),
    "tiny-imagenet": tuple(CHECKPOINTS),
    "imagenet": ("torchvision-resnet18", "torchvision-mobilenet_v2", "torchvision-efficientnet_b0")}
"""Dataset -> teachers, of which `--M` takes the first."""
SIZES = {"digits": (8, 10), "cifar10": (32, 10), "cifar100": (32, 100), "tiny-imagenet": (64, 200),
         "imagenet": (224, 1000)}
"""Dataset -> pixels of a side, and classes."""
HELD_OUT = {"digits": 200, "cifar10": 5000, "cifar100": 5000, "tiny-imagenet": 10_000, "imagenet": 10_000}
"""Dataset -> training images that the best epoch is chosen on."""
PADDING = {"digits": 1}
"""Pixels around an image before a crop, where they are not the released 4."""
STUDENTS = {"mobilenetV2": "mobilenet_v2", "efficientnet": "efficientnet_b0", "shufflenet": "shufflenet_g2"}
"""Released name of `--networks` -> name in `repblend.ufc.networks`, where they differ."""


def fetch_dataset(options: argparse.Namespace) -> None:
    """Download, check and unpack a dataset's archive."""
    print(f"Unpacked: {fetch(ARCHIVES[options.dataset], Path(data_folder(options)))}")


def data_folder(options: argparse.Namespace) -> str:
    """Return where a dataset lies; by default where its profile looks for it as well."""
    return options.data_path or f"data/{options.dataset}"


def teach(options: argparse.Namespace) -> None:
    """Train the teachers that are not there yet, and print their accuracy."""
    recipe = Teachers.model_validate({
        "architectures": _architectures(options), "epochs": options.epochs, "batch_size": options.batch_size,
        "lr": options.lr, "momentum": 0.9, "weight_decay": 5e-4, "augmentation": _augmentation(options),
        "checkpoint_every": 1})
    folder, splits = Path(options.teachers_path), _splits(options)
    work = fingerprint({"recipe": recipe.model_dump(), "seed": options.seed, "train": splits.train.sha256()})
    for name in recipe.architectures:
        path = folder / f"{name}.safetensors"
        if not path.is_file():
            checkpoint = folder / f"{name}.checkpoint"
            made = train_teacher(name, splits, NORMALISATIONS[options.dataset], recipe, options.seed, checkpoint, work,
                                 options.device)
            write_teacher(path, name, made.network.cpu())
            checkpoint.unlink()
            print(f"{name}: {made.measures['accuracy']['test']:.2f} % on test")
        else:
            print(f"{name}: {path} is there already; delete it to train it again")


def generate_set(options: argparse.Namespace) -> None:
    """Make the compensators of a budget and, with `--store-best-images`, the images they are added to."""
    budget, folder = _budget(options), _synthetic_folder(options)
    recipe = Generation.model_validate({
        "iterations": options.iteration, "lr": options.lr, "lambda_bn": options.r_bn, "max_shift": options.jitter,
        "first_layer_weight": options.first_bn_multiplier, "transform": options.transform,
        "skipped_layers": {"efficientnet_b0": [1]} if "efficientnet_b0" in _architectures(options) else {},
        "classes_per_compensator": options.batch_size if options.batch_size < budget.num_classes else None,
        "compensators_at_once": options.compensators_at_once, "images_at_once": options.images_at_once,
        "checkpoint_every": 100})
    teachers, normalisation, made = _teachers(options), NORMALISATIONS[options.dataset], {}
    initial = _initial(options, budget).first(budget.num_real)
    if initial.num_classes != budget.num_classes:
        raise ValueError(f"--init_path {options.init_path}: images of {initial.num_classes} classes, {options.dataset} "
                         f"has {budget.num_classes}")
    if initial.image_size != SIZES[options.dataset][0]:
        raise ValueError(f"--init_path {options.init_path}: images of {initial.image_size} pixels, those of "
                         f"{options.dataset} have {SIZES[options.dataset][0]}")
    for name, teacher in teachers.items():
        work = fingerprint({"recipe": recipe.model_dump(), "seed": options.seed, "initial": initial.digest(),
                            "teacher": _digest(teacher)})
        made[name] = generate(teacher, name, initial, normalisation, recipe, options.seed, folder / "checkpoints", work,
                              options.device)
        made[name].write(folder / "compensators" / f"{name}.safetensors")
    if options.store_best_images:
        write_integrated(folder / "images", initial, made, budget, normalisation, recipe)
    shutil.rmtree(folder / "checkpoints")
    print(f"Generated: {folder}")


def validate(options: argparse.Namespace) -> None:
    """Train one student on a set with the labels of the command, and write its accuracies."""
    if options.check_ckpt:
        print(_told(read_json(Path(options.check_ckpt))))
        return
    for name in ("lr", "weight_decay", "wandb_project", "wandb_api_key"):
        if getattr(options, name) is not None:
            print(f"warning: --{name.replace('_', '-')} is accepted and ignored", file=sys.stderr)
    scores = _student(options)
    result = Path(options.output_dir) / f"{options.labels}-{options.networks}.json"
    write_json(result, scores.to_json())
    print(_told(scores.to_json()), f"Written: {result}", sep="\n")


def _student(options: argparse.Namespace) -> StudentScores:
    recipe = Validation.model_validate({
        "labels": [options.labels], "students": [STUDENTS.get(options.networks, options.networks)],
        "epochs": {"static": options.epochs, "dynamic": options.epochs}, "batch_size": options.batch_size,
        "lr": 1e-3, "weight_decay": 0.01, "temperature": options.temperature, "mixup_alpha": 0.8,
        "augmentation": _augmentation(options), "score_every": 10, "num_seeds": 2, "checkpoint_every": 10})
    images, teachers = _image_set(options), list(_teachers(options).values())
    normalisation, checkpoint = NORMALISATIONS[options.dataset], Path(options.output_dir) / "student.checkpoint"
    if not options.resume:
        checkpoint.unlink(missing_ok=True)
    signal: Tensor | list[nn.Module] = teachers
    if options.labels == "static":
        signal = static_labels(teachers, images, normalisation, options.batch_size, options.device)
    work = fingerprint({"recipe": recipe.model_dump(), "seed": options.seed, "images": images.sha256(),
                        "teachers": [_digest(teacher) for teacher in teachers]})
    return train_student(recipe.students[0], images, signal, _splits(options), normalisation, recipe, options.epochs,
                         options.seed, 0, checkpoint, work, options.device)


def _told(scores: JSON) -> str:
    return (f"Test accuracy: last {scores['last']:.2f} %, best {scores['best']:.2f} % (epoch chosen on held-out "
            f"images), best on test {scores['best_on_test']:.2f} % (as the release reports it)")


def _image_set(options: argparse.Namespace) -> ImageSet:
    """Read the set, whether made here or by the release, and check that it is of this budget."""
    folder, budget = Path(options.syn_data_path), _budget(options)
    folder = folder / "images" if (folder / "images" / MANIFEST).is_file() else folder
    if not (folder / MANIFEST).is_file():
        return read_released_set(folder, budget.num_classes, budget.num_slots)
    images = read_image_set(folder)
    if len(images) != budget.num_slots * budget.num_classes:
        raise ValueError(f"{folder}: expected {budget.num_slots} images of {budget.num_classes} classes (--ipc "
                         f"{options.ipc}), found {len(images)} images; give the --ipc that it was made with")
    return images


def _initial(options: argparse.Namespace, budget: Budget) -> InitialImages:
    """Take the images of `--init_path`: this package's, the release's, or, if it is not there, a draw."""
    path, imported = Path(options.init_path), _synthetic_folder(options) / "initial"
    size, num_classes = SIZES[options.dataset]
    if (path / MANIFEST).is_file():
        return InitialImages(path)
    if (path / "tensor_0.pt").is_file():
        return import_tensors(path, imported, budget.num_real, num_classes, NORMALISATIONS[options.dataset])
    if path.is_dir():
        return import_class_folders(path, imported, budget.num_real, num_classes, size)
    return write_initial_images(path, _splits(options).train, budget.num_real, options.seed)


def _teachers(options: argparse.Namespace) -> dict[str, nn.Module]:
    """Load teachers: torchvision's, this package's, or the release's."""
    size, num_classes = SIZES[options.dataset]
    folder = Path(options.teachers_path)

    def load(name: str) -> nn.Module:
        if name.startswith("torchvision-"):
            return torchvision_teacher(name, folder, options.device)
        if (path := folder / f"{name}.safetensors").is_file() or name not in CHECKPOINTS:
            return read_teacher(path, name, num_classes, size, options.device)
        return read_official_teacher(folder, name, num_classes, size, options.device)

    return {name: load(name) for name in _architectures(options)}


def _digest(network: nn.Module) -> str:
    """Return the SHA-256 of a network's weights and statistics."""
    digest = hashlib.sha256()
    for tensor in network.state_dict().values():
        digest.update(tensor.cpu().numpy().tobytes())
    return digest.hexdigest()


def _architectures(options: argparse.Namespace) -> list[str]:
    known = ARCHITECTURES[options.dataset]
    if not 1 <= options.M <= len(known):
        raise ValueError(f"--M {options.M}: expected 1 to {len(known)} for {options.dataset} ({', '.join(known)})")
    return list(known[:options.M])


def _budget(options: argparse.Namespace) -> Budget:
    return Budget(options.ipc, SIZES[options.dataset][1], options.M)


def _splits(options: argparse.Namespace) -> Splits:
    own: dict[str, Any] = {"num_test": 400} if options.dataset == "digits" else {"folder": data_folder(options)}
    data = UfcData.model_validate({"name": options.dataset, "image_size": SIZES[options.dataset][0],
                                   "num_val": HELD_OUT[options.dataset]} | own)
    return read_splits(data, Path.cwd(), options.seed)


def _augmentation(options: argparse.Namespace) -> JSON:
    return {"crop_padding": PADDING.get(options.dataset, 4), "flip": 0.0 if options.dataset == "digits" else 0.5}


def _synthetic_folder(options: argparse.Namespace) -> Path:
    return Path(options.syn_data_path) / options.wandb_name / options.exp_name
