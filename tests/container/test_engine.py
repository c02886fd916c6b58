"""Finding the engine, and the message where there is none."""

from pathlib import Path

import docker
import pytest

from repro.engines.client import NoEngine, connect


def test_the_engine_answers(engine: docker.DockerClient) -> None:
    assert connect().version()["ApiVersion"] == engine.version()["ApiVersion"]


def test_an_engine_that_is_absent_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    with pytest.raises(NoEngine, match=f"no Docker engine answers at unix://{tmp_path}/none.sock .*No such file.*"
                                       "--engine local"):
        connect()


def test_an_engine_of_another_machine_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://198.51.100.1:2375")
    with pytest.raises(NoEngine, match="expected unix://PATH"):
        connect()
