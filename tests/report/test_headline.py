"""The first numbers of the report are those of the protocol that the parameters name."""

from pathlib import Path

import pytest

from repblend.report.headline import METHOD, statements
from repblend.report.metrics import Metrics
from repblend.store import read_json, write_json


@pytest.mark.parametrize("protocol", ["held-out", "faithful"])
def test_the_first_number_is_by_the_protocol_that_counts(workspace: Path, protocol: str) -> None:
    for path in (workspace / "metrics/evaluate").glob("*.json"):
        content = read_json(path)
        if "protocols" in content and protocol != "held-out":
            write_json(path, content | {"protocol": protocol})
    metrics = Metrics.of(workspace)
    budget = max(metrics.grid.budgets)
    stored = metrics.evaluation(f"{METHOD}-{budget}")["protocols"]
    assert stored["held-out"]["mean"] != stored["faithful"]["mean"]
    first = statements(metrics)[0]
    assert first.value == f"{stored[protocol]['mean']['mean_recall']:.1f} %" and protocol in first.meaning
