"""Running on this machine, without a container: commands in a session of their own, which a stop reaches whole."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType

from repblend.store import JSON
from repro.workspace import dvc, workspace_environment

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class LocalRunner:
    """Runs DVC with this Python."""

    def run(self, folder: Path, commands: Sequence[tuple[str, ...]], inputs: Sequence[Path] = ()) -> int:
        """Run DVC commands in a workspace, one after the other until one fails; return its exit code, or 0. Whatever
        they read is where it is.
        """
        return next((code for command in commands if (code := run_stoppable(dvc(*command), folder))), 0)

    def record(self) -> JSON | None:
        """Return None: there is no isolation to tell of."""


def run_stoppable(command: list[str], root: Path) -> int:
    """Run a command in its own session; on Ctrl-C or SIGTERM stop all of it, then return 128 + the signal."""
    process = subprocess.Popen(command, cwd=root, env=workspace_environment(root), start_new_session=True)
    received: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        received.append(number)
        signal_session(process, signal.SIGTERM)

    with stop_signals_go_to(stop):
        code = process.wait()
    return 128 + received[0] if received else code


@contextlib.contextmanager
def stop_signals_go_to(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM call a handler while the body runs."""
    before = {number: signal.signal(number, handler) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def signal_session(process: subprocess.Popen, number: signal.Signals) -> None:
    """Signal every process of a session that `run_stoppable` started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)
