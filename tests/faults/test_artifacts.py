"""Publishing, bringing and computing through DVC, with full disks, kills and signals: whole after running again."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.campaign import Campaign
from tests.faults.server import Server
from tests.remotes import toy
from tests.tiny import ROOT

pytestmark = pytest.mark.faults


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose stages have run, and whose remote is a folder of it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{ROOT / 'src'}:{ROOT}")
        project = toy.make(tmp_path_factory.mktemp("artifacts") / "project")
        toy.add_remote(project, str(project / "store"))
        return project


@pytest.mark.parametrize("command", ["repro push all", "repro pull all", "dvc"])
def test_whole_after_every_fault(server: Server, project: Path, command: str,
                                 record_property: Callable[[str, object], None]) -> None:
    if command == "repro pull all":  # of everything, into a clone that has nothing
        for name in ("features", "sets", "records", ".dvc/cache"):
            shutil.rmtree(project / name, ignore_errors=True)
    if command == "dvc":
        for name in ("features", "sets", "records", "metrics", ".dvc/cache"):
            shutil.rmtree(project / name, ignore_errors=True)
        (project / "dvc.lock").unlink()
    campaign = Campaign(server, project, budget_seconds=6, at_most=12, others=True)
    record_property("faults", campaign.of(command.split(), seed=0))
