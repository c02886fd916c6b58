"""`repro compare`: what was computed here against what is recorded, in one verdict, and never a result of elsewhere."""

import datetime
import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from scipy.stats import ttest_ind_from_stats

from repro import compare
from repro.compare import NOTHING, Comparison, Difference, Results, Status
from repro.pipeline import KINDS, yaml_text
from repro.profiles import Profile

ROOT = Path(__file__).parents[2]
CELLS = {"random-50": (9.3, 0.3), "herding-50": (8.4, 0.8), "repblend-50": (22.6, 1.0)}
MODULES = {"random-50": "select", "herding-50": "select", "repblend-50": "distill"}
XEON, EPYC = "Intel Xeon", "AMD EPYC"


def write(folder: Path, cells: Mapping[str, tuple[float, float | None]] = CELLS, processor: str = XEON,
          hour: int = 9, bytes_of: Mapping[str, str] | None = None, ran: tuple[str, ...] = tuple(CELLS)) -> Path:
    """A workspace of `select` or `distill`, and `evaluate`, of each cell, as a run leaves it.

    Args:
        bytes_of: cell -> a word that its set is made of.
        ran: cells whose stages leave a log.
    """
    stages, runs = {}, []
    for cell, (mean, std) in cells.items():
        metric, pairs = folder / f"metrics/held-out/{cell}.json", folder / f"records/select/{cell}/record.json"
        for path in (metric, pairs):
            path.parent.mkdir(parents=True, exist_ok=True)
        metric.write_text(json.dumps({"mean": mean} | ({} if std is None else {"mean_std": std})))
        word = (bytes_of or {}).get(cell, cell)
        pairs.write_text(json.dumps({"pairs": word}))
        made, scored = f"{MODULES[cell]}@{cell}", f"evaluate@{cell}"
        hashes = {path: f"{abs(hash((path, word, mean))):032x}"[:32] for path in (
            f"sets/{cell}.safetensors", f"metrics/held-out/{cell}.json")}
        hashes |= {f"records/select/{cell}": f"{abs(hash(word)):032x}"[:32] + ".dir"}
        own = [{"path": path, "md5": hashes[path], "hash": "md5"} for path in sorted(hashes) if "metrics" not in path]
        stages |= {made: {"cmd": f"python -m repblend.stages {MODULES[cell]} {cell}", "outs": own},
                   scored: {"cmd": f"python -m repblend.stages evaluate {cell}", "deps": own[1:],
                            "outs": [{"path": f"metrics/held-out/{cell}.json", "hash": "md5",
                                      "md5": hashes[f"metrics/held-out/{cell}.json"]}]}}
        for stage in (made, scored):
            runs.append({"stage": stage, "commit": None, "dirty": None, "image_digest": None, "wall_seconds": 1.0,
                         "started": f"2026-01-01T{hour:02}:00:00+00:00", "peak_memory_mib": 1.0, "python": "3.11.7",
                         "parameters_sha256": "1" * 64,
                         "machine": {"processor": processor, "cores": 2, "system": "Linux"}})
            if cell in ran:
                log = folder / f"logs/{stage}.log"
                log.parent.mkdir(exist_ok=True)
                log.touch()
                began = datetime.datetime.fromisoformat(runs[-1]["started"]).timestamp()
                os.utime(log, (began, began))
    (folder / "dvc.lock").write_text(yaml_text({"schema": "2.0", "stages": stages}))
    (folder / "runs.jsonl").write_text("".join(json.dumps(run) + "\n" for run in runs))
    (folder / "params.yaml").write_text("seed: 0\n")
    return folder


def compared(recorded: Path, here: Path) -> Comparison:
    return Comparison(Results.in_folder(recorded, "HEAD"), Results.in_folder(here), 5, {}, here)


def statuses(found: Comparison) -> dict[str, Status]:
    return {result.cell: result.status for result in found.results}


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    return write(tmp_path / "recorded")


def test_the_same_run_again_has_the_same_bytes(recorded: Path, tmp_path: Path) -> None:
    found = compared(recorded, write(tmp_path / "here", hour=10))
    assert found.verdict() == "The same bytes: 9 of 9 outputs" and found.exit_code == 0
    assert set(statuses(found).values()) == {Status.SAME}


def test_another_processor_agrees_and_both_are_named(recorded: Path, tmp_path: Path) -> None:
    cells = {"random-50": (9.3, 0.3), "herding-50": (8.9, 0.9), "repblend-50": (23.2, 1.1)}
    found = compared(recorded, write(tmp_path / "here", cells, EPYC, 10, {"herding-50": "others"}))
    assert found.verdict() == ("Another processor (AMD EPYC, recorded on Intel Xeon): 3 of 3 results agree within two "
                               "standard errors; herding-50 chose other pairs")
    assert found.exit_code == 0


def test_a_coreset_of_other_pairs_is_no_disagreement(recorded: Path, tmp_path: Path) -> None:
    cells = CELLS | {"herding-50": (15.0, 0.5)}
    same_pairs = compared(recorded, write(tmp_path / "same", cells, EPYC, 10))
    others = compared(recorded, write(tmp_path / "others", cells, EPYC, 10, {"herding-50": "others"}))
    assert statuses(same_pairs)["herding-50"] is Status.DISAGREES and same_pairs.exit_code == 1
    assert statuses(others)["herding-50"] is Status.OTHER_PAIRS and others.exit_code == 0


def test_what_disagrees_is_named_first_and_ends_with_one(recorded: Path, tmp_path: Path) -> None:
    found = compared(recorded, write(tmp_path / "here", CELLS | {"repblend-50": (14.0, 1.0)}, EPYC, 10))
    assert found.verdict().startswith("Disagree: repblend-50 (-8.6 ± 1.3); another processor")
    assert found.text().splitlines()[3].split()[0] == "repblend-50" and found.exit_code == 1


def test_a_result_that_came_with_the_clone_is_not_shown_as_computed_here(recorded: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "here", CELLS | {"random-50": (9.4, 0.3)}, EPYC, 10, ran=("random-50",))
    found = compared(recorded, other)
    assert {result.cell: result.here for result in found.results} == {
        "random-50": (9.4, 0.3), "herding-50": None, "repblend-50": None}
    assert "not computed here: herding-50, repblend-50" in found.verdict() and found.exit_code == 0
    fresh = compared(recorded, write(tmp_path / "fresh", ran=()))
    assert fresh.verdict() == "Nothing was computed here: all 3 results are the recorded ones (HEAD, recorded on " \
        "Intel Xeon)"
    assert fresh.exit_code == NOTHING and {result.here for result in fresh.results} == {None}


def test_a_run_that_has_no_result_yet_says_so(recorded: Path, tmp_path: Path) -> None:
    here = write(tmp_path / "here", hour=10)
    for log in (here / "logs").glob("evaluate@*.log"):
        log.unlink()
    found = compared(recorded, here)
    assert found.verdict().startswith("No result was computed here yet; of what was, 6 of 6 outputs have the recorded")
    assert found.exit_code == NOTHING


def test_recorded_results_that_were_brought_back_are_not_those_of_the_run_before(recorded: Path,
                                                                                tmp_path: Path) -> None:
    here = write(tmp_path / "here", processor=EPYC, hour=10)  # leaves logs
    for name in ("runs.jsonl", "dvc.lock"):
        (here / name).write_bytes((recorded / name).read_bytes())  # git checkout
    assert compared(recorded, here).exit_code == NOTHING


def test_own_results_that_were_committed_are_told_as_such(recorded: Path) -> None:
    found = compared(recorded, recorded)
    assert found.verdict() == ("The recorded results (HEAD) are those that were computed here, on Intel Xeon")
    assert found.exit_code == 0 and set(statuses(found).values()) == {Status.SAME}


def test_students_trained_here_on_a_recorded_set_are_told_apart(recorded: Path, tmp_path: Path) -> None:
    here = write(tmp_path / "here", hour=10)
    (here / "logs/distill@repblend-50.log").unlink()
    result = next(each for each in compared(recorded, here).results if each.cell == "repblend-50")
    assert result.on_recorded_set and "students alone" in result.row()[-1]


def test_results_of_other_parameters_are_not_compared(recorded: Path, tmp_path: Path) -> None:
    here = write(tmp_path / "here", CELLS | {"repblend-50": (1.0, 0.1)}, hour=10)
    runs = here / "runs.jsonl"
    lines = runs.read_text().splitlines()
    runs.write_text("\n".join([*lines[:4], lines[4].replace("1" * 64, "2" * 64), lines[5]]))
    assert statuses(compared(recorded, here))["repblend-50"] is not Status.OTHER_PARAMETERS  # a default that is named
    (here / "params.yaml").write_text("seed: 1\n")
    assert statuses(compared(recorded, here))["repblend-50"] is Status.OTHER_PARAMETERS
    unfit = replace(compared(recorded, here), unfit={"metrics/held-out/random-50.json": "another seed"})
    assert statuses(unfit)["random-50"] is Status.OTHER_PARAMETERS


@pytest.mark.parametrize("apart", [0.5, 1.0, 1.4, 1.8, 2.2, 2.6, 3.0])
@pytest.mark.parametrize("num", [1, 12])
def test_a_result_disagrees_as_welchs_test_says(apart: float, num: int) -> None:
    """Against SciPy's own test, at 5 % for all comparisons together."""
    result = Difference("x", Status.SAME, (20.0, 0.7), (20.0 + apart, 1.3), 5)
    p_value = ttest_ind_from_stats(20.0, 0.7, 5, 20.0 + apart, 1.3, 5, equal_var=False).pvalue
    assert (apart > result.limit(num) * result.error) == (p_value * num < 0.05)
    assert result.error == pytest.approx(((0.7**2 + 1.3**2) / 5)**0.5)


def test_what_has_no_deviation_has_to_be_equal(tmp_path: Path) -> None:
    before = write(tmp_path / "before", {"random-50": (1.7727, None)})
    for value, status in ((1.7727, Status.SAME), (1.77275, Status.AGREES), (1.78, Status.DISAGREES)):
        here = write(tmp_path / str(value), {"random-50": (value, None)}, EPYC, 10)
        assert statuses(compared(before, here)) == {"random-50": status}


def test_a_commit_and_a_folder_are_read_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                              capsys: pytest.CaptureFixture[str]) -> None:
    clone = write(tmp_path / "clone", ran=())
    (clone / "src/repblend").mkdir(parents=True)
    (clone / "src/repblend/__init__.py").touch()
    for arguments in (["init", "-q"], ["add", "-A"],
                      ["-c", "user.name=x", "-c", "user.email=x@x", "commit", "-qm", "x"]):
        subprocess.run(["git", *arguments], cwd=clone, check=True)
    kept = write(tmp_path / "kept")
    write(clone, CELLS | {"random-50": (19.3, 0.3)}, EPYC, 10)
    kind = replace(KINDS["multimodal"], num_students=lambda params: 5)
    monkeypatch.setattr(Profile, "params", lambda self: None)
    monkeypatch.setattr(compare, "outdated", lambda *_: {})
    profile = Profile("quickstart", kind, clone)
    by_commit, by_folder = compare.comparison(profile), compare.comparison(profile, str(kept))
    assert by_commit and by_folder and by_commit.results == by_folder.results
    assert statuses(by_commit)["random-50"] is Status.DISAGREES
    with pytest.raises(ValueError, match="git rev-parse"):
        compare.comparison(profile, "no-such-commit")
    monkeypatch.setattr(compare, "find_root", lambda: clone)
    monkeypatch.setattr(compare, "profiles_of", lambda root, name: [profile])
    monkeypatch.setattr(compare, "check_outputs", lambda *_: None)
    assert compare.main(None, "quickstart") == 1
    assert capsys.readouterr().out.startswith("Disagree: random-50 (+10.0 ± 0.4)")
    (clone / "dvc.lock").write_text("stages: 3")
    assert compare.main(None, "quickstart") == 1 and "expected DVC's lock file" in capsys.readouterr().err
