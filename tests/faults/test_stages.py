"""Every stage of both pipelines, killed and disturbed at every kind of place: the same bytes after running again."""

from collections.abc import Callable

import pytest

from tests.faults.campaign import Campaign
from tests.faults.server import Server
from tests.faults.workspaces import COMMANDS, make

pytestmark = pytest.mark.faults


@pytest.fixture(scope="module")
def campaign_in(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Campaign]:
    """A campaign in the workspace of a pipeline."""
    found: dict[str, Campaign] = {}

    def of(pipeline: str) -> Campaign:
        if pipeline not in found:
            folder = tmp_path_factory.mktemp("faults") / "a workspace"
            make(pipeline, folder)
            found[pipeline] = Campaign(server, folder, budget_seconds=2)
        return found[pipeline]
    return of


@pytest.mark.parametrize(("pipeline", "command"), [
    pytest.param(pipeline, command, id=" ".join(command)) for pipeline, commands in COMMANDS.items()
    for command in commands])
def test_the_same_bytes_after_every_fault(campaign_in: Callable[[str], Campaign], pipeline: str,
                                          command: tuple[str, ...],
                                          record_property: Callable[[str, object], None]) -> None:
    campaign, commands = campaign_in(pipeline), COMMANDS[pipeline]
    campaign.catch_up(commands[:commands.index(command)])
    record_property("faults", campaign.of(command, seed=0))
