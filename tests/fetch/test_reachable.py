"""An offline machine is told so within seconds, before anything is fetched."""

import socket
import time

import pytest

from repro.fetch.checkpoints import check_reachable


def test_a_server_that_listens_is_reachable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("urllib.request.getproxies", dict)
    with socket.create_server(("127.0.0.1", 0)) as server:
        check_reachable(f"http://127.0.0.1:{server.getsockname()[1]}")


@pytest.mark.parametrize("address", ["http://127.0.0.1:1", "https://no-such-host.invalid"])
def test_none_is_said_at_once_with_what_to_do(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("urllib.request.getproxies", dict)
    began = time.monotonic()
    with pytest.raises(ValueError, match=rf"{address}: cannot be reached .* copy data/hub"):
        check_reachable(address)
    assert time.monotonic() - began < 5


def test_behind_a_proxy_the_fetch_finds_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("urllib.request.getproxies", lambda: {"http": "http://proxy:3128"})
    check_reachable("http://127.0.0.1:1")
