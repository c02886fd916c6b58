"""The engine against recordings of the official implementation (`tests/parity/recordings/README.md`)."""

from pathlib import Path

import numpy as np
import pytest

from repblend.parity.__main__ import compare_file, main

RECORDINGS = sorted((Path(__file__).parent / "recordings").glob("*.npz"))


def test_every_kind_of_recording_is_present() -> None:
    assert len(RECORDINGS) == 28


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
])
def test_a_wrong_setting_is_noticed(name: str, change: dict, tmp_path: Path) -> None:
    assert any(not result.passed for result in compare_file(altered(recording(name), tmp_path / "a.npz", **change)))


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
