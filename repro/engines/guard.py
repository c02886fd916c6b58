"""`python -m repro.engines.guard LOCK COMMAND...`: the first process in a container.

It runs the command, passes a stop on to all of it, and stops it when the `repro` outside that holds the lock is gone,
even by `kill -9`: no container computes on with nobody waiting for it. A lock is the sign, not the end of the standard
input: with a terminal, Engine 20.10 does not pass that end on, and a lock works when the engine itself is gone.
Only the standard library, so that it stands before anything slow.
"""

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

SECONDS_TO_END = 2.0
"""From SIGTERM to the end of everything once the client is gone. Stages lose nothing by it: outputs are renamed."""
CLIENT_GONE = 3


def main(arguments: Sequence[str]) -> int:
    """Run the command; return its exit code (128 + the signal if it was killed)."""
    lock, *command = arguments
    stops: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):  # before the command can ask for a stop, or be seen to run
        signal.signal(number, lambda number, frame: stops.append(number))
    process = subprocess.Popen(command, start_new_session=True)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: _signal_all(process, signal.SIGTERM))
    if stops:
        _signal_all(process, signal.SIGTERM)
    client_is_gone = threading.Event()
    threading.Thread(target=_stop_without_client, args=(Path(lock), process, client_is_gone), daemon=True).start()
    code = process.wait()
    if client_is_gone.is_set():
        return CLIENT_GONE
    return code if code >= 0 else 128 - code


def _stop_without_client(lock: Path, process: subprocess.Popen, client_is_gone: threading.Event) -> None:
    """Wait for the lock, and hold it until the last process has ended: a new run has to wait for that."""
    with lock.open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        client_is_gone.set()
        print("the `repro run` that started this container is gone: stopping", file=sys.stderr, flush=True)
        _signal_all(process, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(SECONDS_TO_END)
        os._exit(CLIENT_GONE)  # and with the first process all others


def _signal_all(process: subprocess.Popen, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
