"""One server for all faults of a test process."""

from collections.abc import Iterator

import pytest

from tests.faults.server import Server, started


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with started(tmp_path_factory.mktemp("server") / "notes") as found:
        yield found


def pytest_terminal_summary(terminalreporter: "pytest.TerminalReporter") -> None:
    """Print how many faults happened, in whichever process."""
    found = [(dict(report.user_properties), report.nodeid) for report in terminalreporter.getreports("passed")]
    numbers = [properties["faults"] for properties, _ in found if "faults" in properties]
    if numbers:
        terminalreporter.write_line(f"{sum(numbers)} kills and faults in {len(numbers)} commands: the same bytes after "
                                    "each")
