"""docs/CLUSTER.md: what it tells users to type, typed on a real SLURM; the settings that it shows; and its numbers."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from repblend.params.reading import validated
from repro.cluster.check import FOLDER, FOUND, LOCK
from repro.cluster.settings import EXAMPLE, FILE, Cluster, On, read_cluster
from repro.profiles import SUITES, compose
from tests.cluster import slurm
from tests.cluster.toy import Toy
from tests.docs.documents import ROOT, commands

PAGE = ROOT / "docs/CLUSTER.md"
TEXT = PAGE.read_text("utf-8")
PRINTED = {
    "repro cluster check": "Ready: `repro run --profile quickstart --on slurm`",
    "repro run --on slurm": "quickstart: experts: done in ",
    "repro jobs": "5 done.",
    "repro jobs --cancel experts": "Nothing to cancel: no job waits or runs.",
    "repro run --on gpus": "This run took ",
}
"""Command, in the order of the page -> a part of what it prints."""
ELSEWHERE = {"repro profile": "tests/docs/test_runs.py", "repro plan": "tests/repro/test_schedule.py",
             "repro image": "tests/container/image/test_image_cli.py"}
"""What the page names of other documents' commands -> where it is run."""


@pytest.fixture(scope="module")
def toy(cluster: slurm.Cluster, tmp_path_factory: pytest.TempPathFactory) -> Toy:
    toy = Toy(tmp_path_factory.mktemp("document") / "toy", cluster.environment)
    (toy.folder / "requirements").mkdir()
    (toy.folder / "requirements/lock.txt").write_text("\n")
    toy.define(a=("mkdir -p records; cp input.txt records/a.txt", []), experts=("python experts.py", ["a"]))
    return toy


def typed(toy: Toy, command: str) -> str:
    """Return what a command prints; it has to succeed."""
    own = {"PYTHONPATH": f"{toy.folder / 'src'}:{toy.folder}", **toy.variables}
    done = subprocess.run([sys.executable, "-m", *command.split()], cwd=toy.folder, env=os.environ | own, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}"
    return done.stdout


def test_what_the_page_says_can_be_typed_in_its_order(toy: Toy) -> None:
    printed = {command: typed(toy, command) for command in PRINTED}
    assert {command: text for command, text in printed.items() if PRINTED[command] not in text} == {}

    found = {line[6:].partition(":")[0]: line for line in printed["repro cluster check"].splitlines()}
    assert "CUDA_VISIBLE_DEVICES 0" in found["node"] and found["cache"].endswith("hard links")
    assert found["locks"].startswith("ok") and found["clocks"].startswith("ok")
    assert sorted(path.name for path in (toy.folder / FOLDER).iterdir()) == [LOCK, FOUND]
    assert "job " not in printed["repro run --on gpus"]  # all was done on the cluster


def test_every_command_of_the_page_is_typed_here_or_elsewhere() -> None:
    named = {" ".join(re.sub(r" --profile \w+", "", " ".join(command.words)).split())
             for command in commands(PAGE) if command.words[0] == "repro"}
    assert named >= PRINTED.keys()
    assert {command for command in named - PRINTED.keys()
            if " ".join(command.split()[:2]) not in ELSEWHERE and not any(
                typed.startswith(command) for typed in PRINTED)} == set()


def test_the_settings_of_page_and_example_are_settings(tmp_path: Path) -> None:
    shown = re.search(r"^```yaml\n(.*?)^```", TEXT, re.M | re.S)[1]
    assert len(shown.splitlines()) == 5  # all that a user has to edit
    for text in (shown, (ROOT / EXAMPLE).read_text()):
        (tmp_path / FILE).write_text(text)
        assert read_cluster(tmp_path, On.SLURM).partition == "gpu"
    named = set(re.findall(r"^(\w+):", (ROOT / EXAMPLE).read_text(), re.M))
    assert named == Cluster.model_fields.keys()


def test_defaults_that_the_page_names_are_those_of_the_settings() -> None:
    defaults = Cluster()
    assert f"every `poll_seconds` ({defaults.poll_seconds:g} by default)" in TEXT
    assert f"At most `max_jobs` ({defaults.max_jobs})" in TEXT


def test_there_are_as_many_jobs_as_the_page_says() -> None:
    count = 0
    for name in SUITES["paper"]:
        kind, content = compose(ROOT, name)
        params = validated(kind.params, content, name)
        count += 1 + len([*kind.pipeline.cells(params)])  # and the stage that writes settings
        count += sum(stage.parts(params) for stage in kind.pipeline.stages.values())
    assert f": {count} for `--profile paper`" in TEXT
