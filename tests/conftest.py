"""Settings of all tests: one thread each, so that they stay quick beside other work, no model hub, and what runs where.

With pytest-xdist, a worker gets whole files, and whole folders where files share what takes minutes to make.
"""

import os
from collections.abc import Iterator
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["DVC_NO_ANALYTICS"] = "1"  # repositories that tests make have no settings of ours
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["REPRO_ENGINE"] = "local"  # those of containers say so themselves

import pytest
import torch

torch.set_num_threads(1)
torch.use_deterministic_algorithms(True)

TOGETHER = ("end_to_end", "container")
"""Folders whose tests share a workspace or an engine. They take longest, so they start first."""


def group(nodeid: str) -> str:
    """Return what a test belongs to that has to stay on one worker: a folder of `TOGETHER`, or its file."""
    file = Path(nodeid.partition("::")[0])
    folder = next((part for part in file.parts if part in TOGETHER), None)
    return folder or str(file)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the slow folders start first."""
    items.sort(key=lambda item: group(item.nodeid) not in TOGETHER)


@pytest.fixture(autouse=True)
def _working_directory() -> Iterator[None]:
    """Fail the test that leaves the working directory changed, not the ones that come after it on the same worker."""
    before = Path.cwd()
    yield
    after = Path.cwd()
    os.chdir(before)
    assert after == before, "this test changed the working directory and left it so; use monkeypatch.chdir"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """Give pytest-xdist's workers whole groups."""
    from xdist.scheduler import LoadScopeScheduling

    class WholeGroups(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group(nodeid)

    return WholeGroups(config, log)
