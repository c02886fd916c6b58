"""Parameters of the unimodal pipeline: released quirks are defaults, and what does not fit together is told."""

from pathlib import Path

import pytest

from repblend.runtime.settings import write_settings
from repblend.ufc.params import UfcParams, read_ufc_params
from repblend.ufc.stages.pipeline import UfcContext, UfcPaths

PARAMS = """
seed: 1
compute: {threads: 1}
data: {name: digits, image_size: 8, num_val: 200, num_test: 300}
teachers:
  architectures: [convnet-small, resnet-small]
  epochs: 30
  batch_size: 64
  lr: 1e-1
  momentum: 0.9
  weight_decay: 5e-4
  augmentation: {crop_padding: 1, flip: 0.0}
  checkpoint_every: 5
budgets: [3, 7]
seeds: []
generation:
  iterations: 100
  lr: 0.1
  lambda_bn: 0.1
  transform: shift
  max_shift: 1
  compensators_at_once: 4
  checkpoint_every: 50
validation:
  labels: [static, dynamic]
  students: [convnet-small]
  epochs: {static: 60, dynamic: 15}
  batch_size: 32
  lr: 1e-3
  weight_decay: 0.01
  temperature: 30.0
  mixup_alpha: 0.8
  augmentation: {crop_padding: 1, flip: 0.0}
  score_every: 10
  num_seeds: 5
"""


def read(folder: Path, text: str) -> UfcParams:
    path = folder / "params.yaml"
    path.write_text(text)
    return read_ufc_params(path)


def test_what_is_left_out_is_as_released(tmp_path: Path) -> None:
    generation = read(tmp_path, PARAMS).generation
    assert (generation.iterate, generation.quantisation, generation.rounding) == ("last-evaluated", "jpeg", "down")
    assert (generation.first_layer_weight, generation.betas) == (10.0, [0.5, 0.9])
    assert generation.skipped_layers == {} and generation.import_from is None


def test_dumps_write_defaults_out_and_are_read_back(tmp_path: Path) -> None:
    params = read(tmp_path, PARAMS)
    dumped = params.model_dump()
    assert dumped["generation"]["iterate"] == "last-evaluated" and dumped["compute"]["device"] == "cpu"
    assert UfcParams.model_validate(dumped) == params


@pytest.mark.parametrize(("old", "new", "message"), [
    ("iterations: 100", "iteration: 100", "generation.iteration: Extra inputs"),
    ("lambda_bn: 0.1", 'lambda_bn: "0.1"', "generation.lambda_bn: .*valid number"),
    ("transform: shift", "transform: rotate", "generation.transform: .*'shift' or 'crop-flip-shift'"),
    (", num_test: 300", "", "give num_test with digits and glyphs"),
    ("name: digits, image_size: 8, num_val: 200, num_test: 300", "name: cifar10, image_size: 32, num_val: 5000",
     "give folder with every set but digits and glyphs"),
    ("name: digits, image_size: 8, num_val: 200, num_test: 300",
     "name: imagenet, image_size: 224, num_val: 10000, folder: data", "set it to 'torchvision'"),
    ("max_shift: 1", "max_shift: 1\n  skipped_layers: {resnet18: [1]}", r"\['resnet18'\] are not in teachers"),
    ("budgets: [3, 7]", "budgets: []", "budgets: .*at least 1 item"),
    ("seeds: []", "seeds: [1, 1]", r"seeds: \[1, 1\] has one twice"),
    ("num_seeds: 5", "num_seeds: 0", "validation.num_seeds")])
def test_what_does_not_fit_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in PARAMS
    with pytest.raises(ValueError, match=message):
        read(tmp_path, PARAMS.replace(old, new))


def test_released_images_are_one_draw(tmp_path: Path) -> None:
    text = PARAMS.replace("num_test: 300", "num_test: 300, initial_from: {path: files}")
    read(tmp_path, text)
    with pytest.raises(ValueError, match=r"seeds: released images are one draw, found \[1\]"):
        read(tmp_path, text.replace("seeds: []", "seeds: [1]"))


@pytest.mark.parametrize(("budgets", "message"), [
    ("[3, 130]", "budgets: 130 images of every class, but digits leaves 129 of a class"),
    ("[1, 3]", "budgets: 1 leaves no real image beside the compensators of 2 teachers")])
def test_budgets_that_the_data_set_cannot_give_are_refused_by_the_first_stage(budgets: str, message: str,
                                                                              tmp_path: Path) -> None:
    UfcContext.pipeline.check(read(tmp_path, PARAMS), UfcPaths(tmp_path))
    with pytest.raises(ValueError, match=message):
        write_settings(UfcContext.pipeline, read(tmp_path, PARAMS.replace("[3, 7]", budgets)) and tmp_path)


def test_draws_that_the_data_set_cannot_give_are_refused_by_the_first_stage(tmp_path: Path) -> None:
    UfcContext.pipeline.check(read(tmp_path, PARAMS.replace("seeds: []", "seeds: [17]")), UfcPaths(tmp_path))
    with pytest.raises(ValueError, match="seeds: 19 draws of 7 images of every class, but digits leaves 129"):
        UfcContext.pipeline.check(read(tmp_path, PARAMS.replace("seeds: []", "seeds: [18]")), UfcPaths(tmp_path))
