"""The engine against recordings of the official implementation (`tests/parity/recordings/README.md`)."""

from pathlib import Path

import numpy as np
import pytest

from repblend.parity.__main__ import compare_file, main
from repblend.parity.fixture import Fixture
from repblend.parity.recordings import RECORDINGS as KINDS
from repblend.parity.recordings import recognise

RECORDINGS = sorted((Path(__file__).parent / "recordings").glob("*.npz"))


def test_every_kind_of_recording_is_present() -> None:
    assert {recognise(Fixture(path)).name for path in RECORDINGS} == {kind.name for kind in KINDS}


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
def test_recording_is_reproduced_within_tolerance(path: Path) -> None:
    failed = [(result.name, result.value) for result in compare_file(path) if not result.passed]
    assert failed == []


def altered(source: Path, target: Path, **changes: np.ndarray) -> Path:
    """A copy of a recording in which some arrays are replaced."""
    with np.load(source) as archive:
        np.savez(target, **(dict(archive) | changes))
    return target


def recording(name: str) -> Path:
    return next(path for path in RECORDINGS if path.stem == name)


@pytest.mark.parametrize(("name", "change"), [
    ("repblend_lowrank_wbce_merged_f64", {"cfg_merge_loss_branches": np.array(False)}),
    ("repblend_lowrank_wbce_f64", {"it0_blend_lam": np.full(4, 0.5)}),
    ("repblend_lowrank_wbce_f64", {"cfg_temperature": np.array(0.0701)}),
    ("repblend_lowrank_wbce_f64", {"cfg_lora_alpha": np.array(3.001)}),
    ("repblend_lowrank_wbce_f64", {"cfg_momentum_lr": np.array(0.51)}),
    ("expert_training_f64", {"cfg_lr": np.array(0.1001)}),
    ("student_training_f64", {"cfg_weight_decay": np.array(5.01e-4)}),
    ("ufc_generation_cifar100_f64", {"cfg_script": np.array("other")}),
    ("ufc_generation_cifar100_f64", {"cfg_betas": np.array([0.5, 0.91])}),
    ("ufc_generation_cifar10_defaults_f32", {"cfg_first_bn_multiplier": np.array(9.9)}),
    ("ufc_generation_imagenet_f64", {"cfg_clip_mean": np.array([0.485, 0.456, 0.406])}),
    ("ufc_static_training_f64", {"e0_b0_mix_lam": np.array(0.5)}),
    ("ufc_dynamic_training_f64", {"cfg_temperature": np.array(29.9)}),
    ("ufc_budget_schedules_f64", {"generation0_base_lr": np.array(0.26)}),
    ("repblend_dropout_wbce_f64", {"cfg_dropout": np.array(0.11)}),
    ("mttvl_default_f64", {"cfg_logit_scale": np.array(14.28)}),
    ("mttvl_dropout_f64", {"cfg_momentum": np.array(0.51)}),
    ("mttvl_minibatch_f64", {"it1_start_epoch": np.array(2)}),
    ("mttvl_student_f64", {"cfg_weight_decay": np.array(5.01e-4)}),
    ("mttvl_student_dropout_f64", {"cfg_lr": np.array(0.0701)}),
    ("image_views_u8", {"view0_flip": np.array(True)}),
    ("image_views_u8", {"view0_argument": np.array([np.nan, 18.0])}),
    ("caption_cleaning_str", {"max_words": np.array([60, 31, 50, 3, 1])}),
])
def test_a_wrong_setting_is_noticed(name: str, change: dict, tmp_path: Path) -> None:
    assert any(not result.passed for result in compare_file(altered(recording(name), tmp_path / "a.npz", **change)))


def test_a_missing_word_is_a_difference(tmp_path: Path) -> None:
    source = recording("caption_cleaning_str")
    with np.load(source) as archive:
        captions = archive["captions"].copy()
    captions[0] = captions[0].replace("riding ", "")
    failed = [result for result in compare_file(altered(source, tmp_path / "a.npz", captions=captions))
              if not result.passed]
    assert failed and all(result.name.startswith("cleaned_") for result in failed)


def test_a_damaged_output_is_noticed_and_named(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    source = recording("losses_multilabel_f64")
    with np.load(source) as archive:
        wrong = archive["random0_WBCE_value"] * (1 + 1e-6)
    assert main([str(altered(source, tmp_path / "a.npz", random0_WBCE_value=wrong))]) == 1
    assert "random0_WBCE_value" in capsys.readouterr().out


def test_a_nan_in_the_recording_is_a_difference(tmp_path: Path) -> None:
    source = recording("similarity_lowrank_f64")
    with np.load(source) as archive:
        wrong = archive["c0_similarity"].copy()
    wrong[0, 0] = np.nan
    results = compare_file(altered(source, tmp_path / "a.npz", c0_similarity=wrong))
    assert [result.name for result in results if not result.passed] == ["c0_similarity"]


def test_files_that_are_no_recordings_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "text.npz").write_text("not an archive")
    np.savez(tmp_path / "other.npz", something=np.zeros(3))
    assert main([str(tmp_path / "text.npz")]) == 2
    assert main([str(tmp_path / "other.npz")]) == 2
    assert main([str(tmp_path / "absent.npz")]) == 2
    message = capsys.readouterr().err
    assert "text.npz" in message and "not a recording of a known kind" in message and "absent.npz" in message
