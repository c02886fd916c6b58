"""Inputs that are nearly valid, and what every reader has to make of them: a result, or one error that names the file.

Examples are the same in every run. `FUZZ_EXAMPLES=5000` tries more of them than the few that a test run has time for.
"""

import contextlib
import copy
import os
import resource
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "150"))
MEMORY = 1 << 30
"""Bytes that a reader may take."""
SECONDS = 20
"""That one input may take."""
HOSTILE = [None, True, -1, 0, 10**30, 1e308, float("nan"), "", "\x00", "../outside", "/etc/passwd",
           "x;touch outside", "$(touch outside)", "<script>", "\ud83d", "a" * 5000, [], {}, [[]],
           {"a": {}}, [[[[[[[[]]]]]]]], "1e-3", "=1"]
"""Values that stand where others are expected."""

bounded = settings(max_examples=EXAMPLES, deadline=None, derandomize=True, database=None,
                   suppress_health_check=list(HealthCheck))


@st.composite
def damaged(draw: st.DrawFn, valid: list[bytes]) -> bytes:
    """Draw a valid file with up to four changes: a bit turned, a part cut, doubled or overwritten, bytes put in."""
    content = bytearray(draw(st.sampled_from(valid)))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(len(content) - 1, 0)))
        end = min(place + draw(st.integers(1, 64)), len(content))
        match draw(st.sampled_from(("flip", "cut", "end", "double", "insert", "overwrite"))):
            case "flip" if content:
                content[place] ^= 1 << draw(st.integers(0, 7))
            case "cut":
                del content[place:end]
            case "end":
                del content[place:]
            case "double":
                content[place:place] = content[place:end]
            case "insert":
                content[place:place] = draw(st.binary(min_size=1, max_size=16))
            case "overwrite":
                content[place:end] = draw(st.sampled_from((b"\x00", b"\xff"))) * (end - place)
    return bytes(content)


@st.composite
def distorted(draw: st.DrawFn, valid: list[Any]) -> Any:
    """Draw a document of dictionaries and lists with up to three parts taken out, replaced, doubled or added."""
    document = {"": copy.deepcopy(draw(st.sampled_from(valid)))}
    for _ in range(draw(st.integers(1, 3))):
        holder, key = draw(st.sampled_from(list(_places(document))))
        match draw(st.sampled_from(("replace", "remove", "add", "swap"))):
            case "remove" if holder is not document:
                del holder[key]
            case "add" if isinstance(holder, dict) and holder is not document:
                holder[draw(st.sampled_from(("extra", "", "../x", "x;y", 1, None)))] = draw(st.sampled_from(HOSTILE))
            case "swap":
                other, there = draw(st.sampled_from(list(_places(document))))
                holder[key] = copy.deepcopy(other[there])
            case _:
                holder[key] = copy.deepcopy(draw(st.sampled_from(HOSTILE)))
    return document[""]


def _places(document: Any) -> Iterator[tuple[Any, Any]]:
    for key in list(document if isinstance(document, dict) else range(len(document))):
        yield document, key
        if isinstance(document[key], dict | list):
            yield from _places(document[key])


def reads_or_refuses(read: Callable[[Path], object], path: Path) -> bool:
    """Read a file within limits of memory and time; return whether it was read.

    Raises:
        AssertionError: it was refused without a word about the file, or touched what lies around.
        Exception: any other than `ValueError` and `OSError`.
    """
    with limited():
        try:
            read(path)
        except (ValueError, OSError) as error:
            assert path.name in str(error), f"an error that names no file: {error!r}"
            assert len(str(error)) < 4000, f"an endless error: {str(error)[:200]}"
            return False
    return True


@contextlib.contextmanager
def limited() -> Iterator[None]:
    """Let the body take so much more memory and so much time, and no more."""
    def stop(*_: object) -> None:
        raise TimeoutError(f"took more than {SECONDS} s")  # names no file, so the test fails

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    before = signal.signal(signal.SIGALRM, stop)
    resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + MEMORY, hard))
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.signal(signal.SIGALRM, before)
