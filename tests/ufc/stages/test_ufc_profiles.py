"""The unimodal profiles: what the paper and the release say stands in them, and the workspaces are whole pipelines."""

import re
from pathlib import Path
from typing import Any

import pytest
from dvc.repo import Repo
from ruamel.yaml import YAML

from repblend.params.reading import read_yaml
from repblend.ufc.__main__ import parameters as parameters_of
from repblend.ufc.__main__ import parser
from repblend.ufc.integration import Budget
from repblend.ufc.params import UfcParams
from repblend.ufc.readers import read_splits
from repro.pipeline import KINDS, yaml_text
from repro.profiles import compose, profile_of
from tests.stages.imports import ROOT

PROFILES = ("ufc-digits", "ufc-glyphs", "ufc-cifar10", "ufc-cifar100", "ufc-tiny-imagenet", "ufc-imagenet")
CIFAR_TEACHERS = ["resnet18", "mobilenet_v2", "efficientnet_b0", "shufflenet_g2"]
PUBLISHED: dict[str, dict[str, Any]] = {
    "ufc-cifar100": {
        "teachers.architectures": CIFAR_TEACHERS, "teachers.epochs": 200, "teachers.lr": 0.1, "teachers.momentum": 0.9,
        "teachers.weight_decay": 5e-4, "teachers.batch_size": 128, "teachers.augmentation.crop_padding": 4,
        "teachers.augmentation.flip": 0.5, "budgets": [10, 50, 100],
        "generation.iterations": 1000, "generation.lr": 0.25, "generation.lambda_bn": 1.0, "generation.max_shift": 4,
        "generation.betas": [0.5, 0.9], "generation.first_layer_weight": 10.0, "generation.transform": "shift",
        "generation.skipped_layers": {"efficientnet_b0": [1]}, "generation.iterate": "last-evaluated",
        "generation.quantisation": "jpeg", "generation.rounding": "released", "data.training_images": "all",
        "validation.last_image": "train", "validation.augmentation.crop": "padded",
        "validation.epochs.static": 400, "validation.epochs.dynamic": 400 // 5,
        "validation.batch_size": 64, "validation.lr": 1e-3, "validation.weight_decay": 0.01,
        "validation.temperature": 30.0, "validation.mixup_alpha": 0.8, "validation.score_every": 10,
        "validation.augmentation.crop_padding": 4, "validation.augmentation.flip": 0.5,
        "validation.students": ["resnet18", "convnet128"], "data.image_size": 32,
        "compute.arithmetic": "tf32-convolutions", "teachers.std": None},
    "ufc-cifar10": {"teachers.architectures": CIFAR_TEACHERS, "budgets": [10, 50], "generation.iterations": 1000,
                    "generation.lr": 0.25, "generation.lambda_bn": 1.0, "data.image_size": 32,
                    "teachers.std": [0.2470, 0.2435, 0.2616]},
    "ufc-tiny-imagenet": {"budgets": [10, 50], "generation.iterations": 2000, "generation.lr": 0.1,
                          "generation.lambda_bn": 0.01, "generation.transform": "crop-flip-shift",
                          "generation.max_shift": 4, "teachers.epochs": 100, "data.image_size": 64},
    "ufc-imagenet": {"budgets": [10, 50], "generation.iterations": 2000, "generation.lr": 0.25,
                     "generation.lambda_bn": 0.01, "generation.max_shift": 32, "teachers.weights": "torchvision",
                     "teachers.architectures": ["torchvision-efficientnet_b0", "torchvision-resnet18",
                                                "torchvision-mobilenet_v2"],
                     "generation.transform": "crop-flip-shift", "validation.augmentation.crop": "resized",
                     "generation.skipped_layers": {}, "data.image_size": 224},
}
REAL_IMAGES = {("ufc-cifar10", 10): 7, ("ufc-cifar10", 50): 35, ("ufc-cifar100", 10): 9, ("ufc-cifar100", 50): 48,
               ("ufc-cifar100", 100): 96, ("ufc-tiny-imagenet", 10): 9, ("ufc-tiny-imagenet", 50): 49,
               ("ufc-imagenet", 10): 9, ("ufc-imagenet", 50): 49}
"""Profile and images per class -> stored real images per class, as released."""
CLASSES = {"ufc-cifar10": 10, "ufc-cifar100": 100, "ufc-tiny-imagenet": 200, "ufc-imagenet": 1000}


def parameters(name: str) -> UfcParams:
    return UfcParams.model_validate(compose(ROOT, name)[1])


@pytest.mark.parametrize(("name", "key"), [(name, key) for name, keys in PUBLISHED.items() for key in keys])
def test_a_profile_has_the_published_value(name: str, key: str) -> None:
    value: Any = parameters(name)
    for part in key.split("."):
        value = getattr(value, part)
    assert value == PUBLISHED[name][key]


@pytest.mark.parametrize(("name", "ipc"), REAL_IMAGES)
def test_a_profile_stores_as_many_real_images_as_the_release(name: str, ipc: int) -> None:
    found = parameters(name)
    assert ipc in found.budgets
    assert Budget(ipc, CLASSES[name], len(found.teachers.architectures)).num_real == REAL_IMAGES[name, ipc]


@pytest.mark.parametrize("name", PROFILES)
def test_a_workspace_of_every_profile_is_a_pipeline_whose_sources_exist(name: str, tmp_path: Path) -> None:
    (tmp_path / ".dvc").mkdir()
    for folder in ("conf", "src", "docker", "requirements", "paper"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    profile = profile_of(tmp_path, name)
    workspace, params = profile.workspace, profile.params()
    stages = read_yaml(workspace / "dvc.yaml")["stages"]
    brought = [dep for stage in stages.values() for dep in stage["deps"]
               if dep.startswith("../../") and "/data/" not in dep]
    assert len(brought) >= 5 and all((workspace / dep).exists() for dep in brought)
    data = [dep for dep in stages["prepare"]["deps"] if "/data/" in dep]
    assert data == ([] if params.data.folder is None else [f"../../{params.data.folder}"])
    with Repo(str(tmp_path), uninitialized=True) as repo:
        found = {stage.addressing.rpartition(":")[2] for stage in repo.index.stages}
    cells = {f"validate@{part}-{labels}-{student}-{budget}" for part in ("ufc", "random")
             for labels in ("static", "dynamic") for student in params.validation.students for budget in params.budgets}
    cells |= {f"validate-{kind}@{student}-{budget}" for kind in ("real", "hard")
              for student in params.validation.students for budget in params.budgets}
    assert cells <= found and "report" in found
    assert {f"generate@{teacher}" for teacher in params.teachers.architectures} <= found


@pytest.mark.parametrize(("name", "unpacked"), [("cifar10", "cifar-10-batches-bin"), ("cifar100", "cifar-100-binary"),
                                                ("tiny-imagenet", "tiny-imagenet-200")])
def test_a_profile_and_the_released_commands_look_where_an_archive_is_unpacked(name: str, unpacked: str,
                                                                               tmp_path: Path) -> None:
    data = parameters(f"ufc-{name}").data
    assert data.folder == f"data/{name}"
    assert released(f"teach --dataset {name}").data.folder == str(Path(f"data/{name}").resolve())
    looked_for = re.escape(str(tmp_path / data.folder / unpacked))
    with pytest.raises(ValueError, match=f"{looked_for}/.*`repro data fetch {name}` unpacks it to {data.folder}"):
        read_splits(data, tmp_path, 0)


@pytest.mark.parametrize(("command", "section", "expected"), [
    ("cifar", "generation", {"transform": "shift", "max_shift": 4, "lambda_bn": 0.05, "lr": 0.1, "iterations": 1000,
                             "skipped_layers": {"efficientnet_b0": [1]}, "rounding": "released"}),
    ("cifar --M 1", "generation", {"skipped_layers": {}}),
    ("imgnet --batch-size 1000", "generation", {"transform": "crop-flip-shift", "max_shift": 32}),
    ("imgnet --batch-size 1000", "teachers", {"weights": "torchvision"}),
    ("val-dyn --epochs 80", "validation", {"lr": 1e-3, "weight_decay": 0.01, "temperature": 30.0, "batch_size": 128}),
    ("val-static --dataset digits --M 3", "validation", {
        "augmentation": {"crop": "padded", "crop_padding": 1, "flip": 0.0}}),
    ("teach --epochs 3 --lr 0.2", "teachers", {
        "epochs": 3, "lr": 0.2, "momentum": 0.9, "weight_decay": 5e-4,
        "augmentation": {"crop": "padded", "crop_padding": 4, "flip": 0.5}})])
def test_options_of_the_released_commands_become_parameters(command: str, section: str, expected: dict) -> None:
    found = getattr(released(command), section).model_dump()
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize("dataset", ["cifar10", "cifar100", "tiny-imagenet"])
def test_the_command_line_trains_the_teachers_of_the_profile(dataset: str) -> None:
    found, profile = released(f"teach --dataset {dataset}"), parameters(f"ufc-{dataset}")
    often = {"checkpoint_every": 1}
    assert found.teachers.model_copy(update=often) == profile.teachers.model_copy(update=often)
    assert found.compute.arithmetic == profile.compute.arithmetic


def released(command: str) -> UfcParams:
    return UfcParams.model_validate(parameters_of(parser().parse_args(command.split())))


def test_the_committed_workspace_is_what_the_default_profile_composes() -> None:
    workspace = ROOT / "profiles" / "ufc-glyphs"
    assert read_yaml(workspace / "params.yaml") == compose(ROOT, "ufc-glyphs")[1]


def test_composed_parameters_survive_being_written() -> None:
    for name in PROFILES:
        composed = compose(ROOT, name)[1]
        assert YAML(typ="safe", pure=True).load(yaml_text(composed)) == composed


def test_stages_that_import_files_of_the_release_depend_on_them() -> None:
    source, composed = {"sha256": "0" * 64}, compose(ROOT, "ufc-cifar10")[1]
    composed["data"]["initial_from"] = source | {"path": "downloads/init"}
    composed["teachers"]["import_from"] = source | {"path": "downloads/pretrained"}
    brought = KINDS["ufc"].brought(UfcParams.model_validate(composed))
    assert brought.files == {"prepare": [Path("data/cifar10")], "initial": [Path("downloads/init")],
                             "teacher": [Path("downloads/pretrained")]}
    assert set(brought.folders) == {Path("data/cifar10"), Path("downloads/init"), Path("downloads/pretrained")}
