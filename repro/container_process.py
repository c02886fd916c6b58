"""One container from its creation to its removal: output as it comes, Ctrl-C and SIGTERM passed on, how it ended."""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import docker
import requests
from docker.errors import APIError, DockerException
from docker.models.containers import Container

from repblend.store import JSON
from repro.local import STOP_SIGNALS

SECONDS_TO_STOP = 10
"""From SIGTERM to SIGKILL after Ctrl-C."""
LOST = (DockerException, requests.RequestException)
"""What docker-py raises if the engine does not know the container any more, or does not answer."""


@dataclass(frozen=True)
class Ended:
    """How a container ended."""

    code: int
    """Of its command; 128 + the signal if Ctrl-C or SIGTERM stopped it."""
    out_of_memory: bool
    """Whether a process in it was killed because the memory limit was reached."""
    seconds: float
    inspected: JSON
    """What the engine says of it (`docker inspect`), once it had ended."""


def run_container(client: docker.DockerClient, arguments: dict[str, Any]) -> Ended:
    """Create a container, run it with its output on ours, and remove it.

    Args:
        arguments: of `containers.create`.

    Raises:
        ValueError: the engine refuses to create or start it, or stops answering.
    """
    began = time.monotonic()
    with _stop_signals() as stop, _created(client, arguments) as container:
        inspected = _attend(container, stop)
    state = inspected["State"]
    return Ended(128 + stop.received[0] if stop.received else state["ExitCode"], state["OOMKilled"],
                 round(time.monotonic() - began, 2), inspected)


@dataclass
class _Stop:
    """Stops a container when a signal arrives."""

    container: Container | None = None
    """None until it is about to start."""
    received: list[int] = field(default_factory=list)

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal. The first one starts to stop the container, in a thread because that takes seconds and may
        have interrupted a request to the engine; more of them change nothing.
        """
        self.received.append(number)
        if len(self.received) == 1:
            words = f"\nStopping the container ({signal.Signals(number).name}), {SECONDS_TO_STOP} s at most ...\n"
            os.write(sys.stderr.fileno(), words.encode())  # a `print` may have been interrupted, and lets none in
            threading.Thread(target=self.stop, daemon=True).start()

    def stop(self) -> None:
        if self.container is not None:
            with contextlib.suppress(*LOST):  # it has ended, or `_attend` says more
                self.container.stop(timeout=SECONDS_TO_STOP)


def _attend(container: Container, stop: _Stop) -> JSON:
    """Start a container and copy its output until it ends; return what the engine says of it then."""
    stop.container = container
    try:
        # Attached before it starts, so that no line is missed. Not `logs`: these keep a progress bar back until its
        # line ends, and a limit on their size would lose lines.
        output = container.attach(stream=True, demux=True)
        container.start()
        if stop.received:  # before there was anything that ran
            stop.stop()
        _fit_to_terminal(container)
        _copy(output)
        container.wait()
        return container.client.api.inspect_container(container.id)
    except BrokenPipeError:  # of our own output: nobody reads it any more
        raise
    except APIError as error:
        raise ValueError(f"the Docker engine refused to run the container: {error.explanation}") from error
    except (requests.RequestException, OSError) as error:
        raise _no_answer(error) from error


def _copy(output: Iterator[tuple[bytes | None, bytes | None]]) -> None:
    for out, err in output:
        for content, stream in ((out, sys.stdout), (err, sys.stderr)):
            if content:
                stream.buffer.write(content)
                stream.flush()


def _fit_to_terminal(container: Container) -> None:
    """Give the container's terminal, if it has one, the size of ours."""
    if sys.stdout.isatty():
        size = os.get_terminal_size(sys.stdout.fileno())  # not `shutil`'s, which believes COLUMNS first
        with contextlib.suppress(APIError):  # it has ended already
            container.resize(size.lines, size.columns)


@contextlib.contextmanager
def _created(client: docker.DockerClient, arguments: dict[str, Any]) -> Iterator[Container]:
    """Create a container and remove it afterwards, running or not. If the engine is gone, the next run removes it."""
    try:
        container = client.containers.create(**arguments)
    except APIError as error:
        raise ValueError(f"the Docker engine refused to create the container: {error.explanation}") from error
    except requests.RequestException as error:
        raise _no_answer(error) from error
    try:
        yield container
    finally:
        with contextlib.suppress(*LOST):
            container.remove(force=True, v=True)


@contextlib.contextmanager
def _stop_signals() -> Iterator[_Stop]:
    """Let Ctrl-C and SIGTERM stop the container while the body runs."""
    stop = _Stop()
    before: dict[signal.Signals, Callable | int | None] = {number: signal.signal(number, stop)
                                                           for number in STOP_SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            # Once stopped, this process has only its last words to say: a second Ctrl-C must not cut them short.
            signal.signal(number, signal.SIG_IGN if stop.received else handler)


def _no_answer(error: Exception) -> ValueError:
    return ValueError(f"the Docker engine stopped answering ({' '.join(str(error).split())}). Start it again, then run "
                      "the same command to go on: what was finished is kept")
