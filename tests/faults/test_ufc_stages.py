"""Every stage of the unimodal pipeline, as in `test_stages.py`: a file of its own runs beside it."""

from collections.abc import Callable

import pytest

from tests.faults.campaign import Campaign
from tests.faults.workspaces import COMMANDS

pytestmark = pytest.mark.faults
PIPELINE = "ufc"


@pytest.mark.parametrize("command", COMMANDS[PIPELINE], ids=" ".join)
def test_the_same_bytes_after_every_fault(campaign: Campaign, command: tuple[str, ...],
                                          record_property: Callable[[str, object], None]) -> None:
    campaign.catch_up(COMMANDS[PIPELINE][:COMMANDS[PIPELINE].index(command)])
    record_property("faults", campaign.of(command, seed=0))
