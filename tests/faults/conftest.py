"""One server for all faults of a test process."""

from collections.abc import Iterator

import pytest

from tests.faults.campaign import Campaign
from tests.faults.server import Server, started
from tests.faults.workspaces import make


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with started(tmp_path_factory.mktemp("server") / "notes") as found:
        yield found


@pytest.fixture(scope="module")
def campaign(request: pytest.FixtureRequest, server: Server, tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    """A campaign in the workspace of the pipeline that a module names."""
    folder = tmp_path_factory.mktemp("faults") / "a workspace"
    make(request.module.PIPELINE, folder)
    return Campaign(server, folder, budget_seconds=2)


def pytest_terminal_summary(terminalreporter: "pytest.TerminalReporter") -> None:
    """Print how many faults happened, in whichever process."""
    found = [(dict(report.user_properties), report.nodeid) for report in terminalreporter.getreports("passed")]
    numbers = [properties["faults"] for properties, _ in found if "faults" in properties]
    if numbers:
        terminalreporter.write_line(f"{sum(numbers)} kills and faults in {len(numbers)} commands: the same bytes after "
                                    "each")
