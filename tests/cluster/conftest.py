"""One cluster for all tests that need a real one."""

from collections.abc import Iterator

import pytest

from tests.cluster.slurm import Cluster, slurm


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with slurm(tmp_path_factory.mktemp("slurm") / "one") as running:
        yield running
