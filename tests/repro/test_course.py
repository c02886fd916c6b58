"""How far a run is: the stages that are still to run, what they are thought to take, and quiet libraries."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from repblend import progress
from repro import course
from repro.course import COURSE, Course, in_words, known_seconds, machine_seconds
from tests.repro.test_guarded_dvc import PIPELINE, ROOT

KNOWN = {"encode": 20.0, "experts": 10.0, "distill@repblend-50": 60.0, "distill@repblend-100": 100.0}
NEEDS = {"settings": [], "encode": ["settings"], "experts": ["settings", "encode"],
         "distill@repblend-50": ["experts"], "distill@repblend-100": ["experts"]}


class Graph:
    def __init__(self, stages: dict[str, Any]) -> None:
        self.stages = stages

    def successors(self, stage: Any) -> list[Any]:
        return [self.stages[name] for name in NEEDS[stage.addressing]]


def started(absent: set[str], known: dict[str, float] = KNOWN) -> tuple[Course, dict[str, Any]]:
    """A run of which these stages have no outputs yet."""
    stages = {name: SimpleNamespace(addressing=name, cmd=f"python -m repblend.stages {name.replace('@', ' ')}",
                                    outs=[SimpleNamespace(exists=name not in absent)]) for name in NEEDS}
    return Course(list(stages.values()), Graph(stages), known), stages


@pytest.fixture(autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(course.time, "monotonic", lambda: clock.now)
    monkeypatch.delenv(COURSE, raising=False)
    return clock


def test_the_first_stage_knows_what_all_others_take() -> None:
    run, stages = started(set(NEEDS))
    assert run.begin(stages["encode"]) == "stage 2 of 5, encode: about 3 min left in all"
    assert json.loads(os.environ[COURSE]) == {"head": "stage 2 of 5, encode", "own": 20, "rest": 170, "unknown": False}


def test_what_is_there_is_not_counted_until_what_it_needs_runs() -> None:
    run, stages = started({"encode"})
    run.begin(stages["settings"])  # each stage needs its own of the files, and waits for none but that
    assert json.loads(os.environ[COURSE])["rest"] == 190  # what encode makes is read by all others
    run, stages = started({"distill@repblend-100"})
    run.begin(stages["settings"])
    assert json.loads(os.environ[COURSE])["rest"] == 100


def test_a_slower_machine_is_noticed(_clock: SimpleNamespace) -> None:
    run, stages = started(set(NEEDS))
    run.begin(stages["encode"])
    _clock.now = 60.0
    run.end(stages["encode"])
    assert run.begin(stages["experts"]) == "stage 3 of 5, experts: about 8 min left in all"  # 3 times 170 s


def test_a_stage_that_never_ran_takes_what_its_kind_took() -> None:
    run, stages = started(set(NEEDS), {"distill@repblend-50": 60.0})
    run.begin(stages["distill@repblend-50"])
    assert json.loads(os.environ[COURSE])["rest"] == 60 and not json.loads(os.environ[COURSE])["unknown"]
    assert run.begin(stages["experts"]) == "stage 3 of 5, experts: at least 2 min left in all"
    run, stages = started(set(NEEDS), {})
    assert run.begin(stages["experts"]) == "stage 3 of 5, experts"


@pytest.mark.parametrize(("seconds", "words"), [(0.2, "1 s"), (89, "89 s"), (240, "4 min"), (7200, "2.0 h")])
def test_times_are_told_in_one_unit(seconds: float, words: str) -> None:
    assert in_words(seconds) == f": about {words} left in all"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"stage": "x"}', "[" * 100_000])
def test_runs_that_cannot_be_read_are_no_concern_of_this(text: str, tmp_path: Path) -> None:
    (tmp_path / "runs.jsonl").write_text(text)
    assert known_seconds(tmp_path / "runs.jsonl") == known_seconds(tmp_path / "absent") == {}


def test_the_seconds_of_a_part_are_not_those_of_a_stage(tmp_path: Path) -> None:
    (tmp_path / "runs.jsonl").write_text('{"stage": "a", "wall_seconds": 2}\n'
                                         '{"stage": "b", "wall_seconds": 2, "resumed": true}\n')
    assert known_seconds(tmp_path / "runs.jsonl") == {"a": 2.0}


def test_stages_side_by_side_share_the_seconds_of_their_machine() -> None:
    """`long` runs for 100 s, beside `early` for its first 40 s and `late` for its last 20 s and 10 s more."""
    runs = [("long", "2026-01-01T00:00:00+00:00", 100.0, 2), ("early", "2026-01-01T00:00:00+00:00", 40.0, 2),
            ("late", "2026-01-01T00:01:20+00:00", 30.0, 2), ("alone", "2026-01-01T00:00:10+00:00", 30.0, 1)]
    found = machine_seconds(runs)
    assert found == {"long": 20 + 40 + 10, "early": 20, "late": 10 + 10, "alone": 30}
    assert machine_seconds(reversed(runs)) == found and machine_seconds([]) == {}


def test_the_line_above_a_bar_says_how_far_stage_and_run_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress.time, "monotonic", lambda: progress.BEGAN + 10)
    known = {"head": "stage 7 of 24, distill repblend-100", "own": 90.0, "rest": 160.0, "unknown": False}
    assert progress.overall(known, 0.41, 30) == "stage 7 of 24, distill repblend-100: 41 %, about 4 min left in all"
    assert progress.overall(known, 0.41, 600).endswith(": 41 %, about 13 min left in all")  # slower than thought
    nothing = {"head": "stage 1 of 9, prepare", "own": None, "rest": 0.0, "unknown": True}
    assert progress.overall(nothing, 0.5, 3) == "stage 1 of 9, prepare: 50 %"


def test_a_terminal_gets_a_line_per_stage_and_no_word_of_dvc(tmp_path: Path) -> None:
    """In a terminal of its own, since DVC and tqdm draw bars nowhere else."""
    (tmp_path / "params.yaml").write_text("seed: 0\nnested: {yes: 'on', lr: 0.1, text: 'a: b', list: [1, null]}\n")
    (tmp_path / "other.yaml").write_text("x: 1\n")
    (tmp_path / "source.txt").write_text("a source")
    (tmp_path / "dvc.yaml").write_text(PIPELINE)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    subprocess.run([sys.executable, "-m", "dvc", "init", "--no-scm", "--quiet"], cwd=tmp_path, check=True)
    command = ["script", "-qec", f"{sys.executable} -m repro.guarded_dvc repro", "/dev/null"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    lines = [line for line in re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", done.stdout)) if line.strip()]
    assert lines[0] == "Stage 1 of 6, first" and lines[-1] == "Stage 6 of 6, last" and len(lines) == 6
    log = (tmp_path / "logs/dvc.log").read_text()
    assert "Running stage 'first'" in log and "Updating lock file" in log


def test_what_dvc_refuses_is_said_in_the_terminal(tmp_path: Path) -> None:
    (tmp_path / "dvc.yaml").write_text("stages: {a: {cmd: 'false'}}\n")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    subprocess.run([sys.executable, "-m", "dvc", "init", "--no-scm", "--quiet"], cwd=tmp_path, check=True)
    done = subprocess.run([sys.executable, "-m", "repro.guarded_dvc", "repro"], cwd=tmp_path, env=environment,
                          capture_output=True, text=True, check=False)
    assert done.returncode and "failed to run: false" in done.stderr and done.stdout == "Stage 1 of 1, a\n"
