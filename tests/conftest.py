"""Settings of all tests: one thread each, so that they stay quick beside other work, no model hub, and what runs where.

With pytest-xdist, a worker gets whole files, and whole folders where files share what takes minutes to make.
"""

import os
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["REPRO_ENGINE"] = "local"  # those of containers say so themselves

import pytest
import torch

torch.set_num_threads(1)
torch.use_deterministic_algorithms(True)

TESTS = Path(__file__).parent
TOGETHER = ("end_to_end", "container")
"""Folders whose tests share a workspace or an engine. They take longest, so they start first."""


@pytest.hookimpl(tryfirst=True)  # pytest-xdist reads the marks in a hook of the same name
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tell pytest-xdist, if it runs, which tests belong on one worker."""
    if not config.pluginmanager.hasplugin("xdist"):
        return
    for item in items:
        item.add_marker(pytest.mark.xdist_group(_group(item)))
    items.sort(key=lambda item: _group(item) not in TOGETHER)


def _group(item: pytest.Item) -> str:
    place = item.path.relative_to(TESTS)
    return place.parts[0] if place.parts[0] in TOGETHER else str(place)
