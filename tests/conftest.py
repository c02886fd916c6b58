"""Settings of all tests: one thread each, so that they stay quick beside other work, no model hub, what runs where, and
how much disk they need.

With pytest-xdist, a worker gets whole files, and whole folders where files share what takes minutes to make.
"""

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from repblend.runtime.harness import common_instructions

os.environ.update(common_instructions())  # before torch is there
import torch

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["DVC_NO_ANALYTICS"] = "1"  # repositories that tests make have no settings of ours
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["GOMP_SPINCOUNT"] = "0"  # stages may take two threads each, beside one another
os.environ["REPRO_ENGINE"] = "local"  # those of containers say so themselves


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in the background of a shell; children would inherit that
    signal.signal(signal.SIGINT, signal.default_int_handler)
torch.set_num_threads(1)
torch.set_deterministic_debug_mode("error")  # as `use_deterministic_algorithms`, without the compiler: two seconds

TOGETHER = ("end_to_end", "container", "report")
"""Folders whose tests share a workspace, an engine or a report. They take longest, so they start first."""


PARTS = ("runs", "image", "faults", "cluster", "gpu")
"""The markers of the tests that `make test` leaves to targets of their own."""

DISK_GB = {"": 3, "faults": 1, "gpu": 1, "image": 14}
"""What the tests with a marker, or those without one, write to the disk of temporary files at most, in 10^9 bytes. It
is a gigabyte less where /dev/shm takes the container engine."""


def disk_needed(marker: str, folder: Path) -> str:
    """Return one line about the disk that a whole run needs below a folder of temporary files, and has.

    Raises:
        pytest.UsageError: there is less.
    """
    needed = DISK_GB.get(marker, DISK_GB[""])
    there = next(each for each in (folder, *folder.parents) if each.is_dir())
    free = shutil.disk_usage(there).free
    line = f"these tests need {needed} GB of disk below {there}, which has {free / 1e9:.1f} GB"
    if free < needed * 1e9:
        raise pytest.UsageError(f"{line}. Free some, or choose another disk: --basetemp FOLDER, or the variable TMPDIR")
    return line


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Look at the disk before a run of whole folders: filled, it would stop at whichever test needs the last of it."""
    config = session.config
    if hasattr(config, "workerinput") or any(".py" in argument for argument in config.args):
        return
    folder = Path(config.getoption("basetemp") or os.environ.get("PYTEST_DEBUG_TEMPROOT") or tempfile.gettempdir())
    print(f"disk: {disk_needed(config.getoption('markexpr'), folder.absolute())}")


def group(nodeid: str) -> str:
    """Return what a test belongs to that has to stay on one worker: a folder of `TOGETHER`, or its file."""
    file = Path(nodeid.partition("::")[0])
    folder = next((part for part in file.parts if part in TOGETHER), None)
    return folder or str(file)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs a container engine, as whole runs are marked, and let the slow folders start first.

    Raises:
        pytest.UsageError: a test belongs to two parts, and would run twice.
    """
    for item in items:
        parts = [part for part in PARTS if item.get_closest_marker(part)]
        if len(parts) > 1:
            raise pytest.UsageError(f"{item.nodeid} is marked {' and '.join(parts)}: each test belongs to one part")
        if not parts and "engine" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.runs)
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
