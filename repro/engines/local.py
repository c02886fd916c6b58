"""Run on this machine, without a container: commands in a session of their own, which a stop reaches whole."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType

from repblend.store import repository_of
from repro.engines.records import ContainerRun
from repro.workspace import dvc, workspace_environment

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class LocalRunner:
    """Runs DVC with this Python."""

    def run(self, folder: Path, commands: Sequence[tuple[str, ...]], inputs: Mapping[Path, Path] = {}) -> int:
        """Run DVC commands in a workspace, one after the other until one fails; return its exit code, or 0. Inputs are
        read where they lie: a clean checkout gets links.
        """
        root = repository_of(folder)
        for place, source in inputs.items():
            if not (root / place).exists():
                (root / place).parent.mkdir(parents=True, exist_ok=True)
                (root / place).symlink_to(source)
        return next((code for command in commands if (code := run_stoppable(dvc(*command), folder))), 0)

    def record(self) -> ContainerRun | None:
        """Return None: nothing isolates the run."""


def run_stoppable(command: Sequence[str], root: Path) -> int:
    """Run a command in its own session; on Ctrl-C or SIGTERM stop all of it, then return 128 + the signal."""
    process: subprocess.Popen[bytes] | None = None

    def stop(number: int) -> None:
        if process:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)

    with stop_signals_go_to(stop) as received:
        process = subprocess.Popen(command, cwd=root, env=workspace_environment(root), start_new_session=True)
        if received:  # while it was being started
            stop(received[0])
        code = process.wait()
    return 128 + received[0] if received else code


@contextlib.contextmanager
def stop_signals_go_to(handler: Callable[[int], None]) -> Iterator[list[int]]:
    """Let Ctrl-C and SIGTERM call a handler while the body runs; yield the list of those that came.

    After one came, this process has only its last words to say: further ones are ignored, so as not to cut these short.
    """
    received: list[int] = []

    def receive(number: int, frame: FrameType | None) -> None:
        received.append(number)
        handler(number)

    before = {number: signal.signal(number, receive) for number in STOP_SIGNALS}
    try:
        yield received
    finally:
        for number, earlier in before.items():
            signal.signal(number, signal.SIG_IGN if received else earlier)
