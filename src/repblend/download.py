"""Downloads that go on where they stopped: `FILE.part` grows until it is whole and right, then takes the file's name.

A part is only added to if the server says that its file is still the same (If-Range with its ETag or date), or if the
whole is compared with a known digest in the end; otherwise it is fetched anew.
"""

import hashlib
import http.client
import json
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repblend.progress import progress
from repblend.store import sha256

CHUNK_BYTES = 1 << 20
ATTEMPTS = 5
"""Breaks in a row, without a byte between them, after which one gives up."""
PAUSE_SECONDS = 2.0
TIMEOUT_SECONDS = 60.0
BUSY = {429, 500, 502, 503, 504}
"""Answers of a server that may do better in a moment."""
BROKEN = (OSError, http.client.HTTPException)
"""What a lost connection looks like."""


@dataclass(frozen=True)
class Digest:
    """What is known of a file's content."""

    algorithm: str
    """`sha256`, or `md5` where nothing better was published."""
    value: str

    def __str__(self) -> str:
        return f"{self.algorithm} {self.value}"

    def of(self, path: Path) -> "Digest":
        """Return the digest of a file by the same algorithm."""
        if self.algorithm == "sha256":
            return Digest("sha256", sha256(path))
        with path.open("rb") as file:
            found = hashlib.file_digest(file, lambda: hashlib.new(self.algorithm, usedforsecurity=False))
        return Digest(self.algorithm, found.hexdigest())


def download(url: str, target: Path, digest: Digest | None, headers: dict[str, str] | None = None) -> None:
    """Fetch a file, all of it or a part that the next call goes on with.

    Args:
        digest: what the file must have; None takes what comes.
        headers: sent along, for example an authorisation.

    Raises:
        ValueError: the server refuses, keeps breaking off, or sends something else than the digest says; or the disk
            is too small.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part, idle = target.with_name(f"{target.name}.part"), 0
    while True:
        before = _size(part)
        try:
            _fetch(url, part, digest is not None, headers or {})
            break
        except urllib.error.HTTPError as error:
            if error.code in BUSY and idle < ATTEMPTS:
                idle += 1
                time.sleep(PAUSE_SECONDS * idle)
                continue
            raise ValueError(f"{url}: the server answers {error.code} {error.reason}. Try later, or fetch the file by "
                             f"other means and put it at {target}") from error
        except BROKEN as error:
            idle = 0 if _size(part) > before else idle + 1
            if idle >= ATTEMPTS:
                raise ValueError(f"{url}: the connection broke {idle} times ({error or type(error).__name__}); "
                                 f"{_size(part):,} bytes are kept. Run the same command again to go on") from error
            time.sleep(PAUSE_SECONDS)
    _check(url, part, digest)
    part.replace(target)
    _state_file(part).unlink(missing_ok=True)


def _check(url: str, part: Path, digest: Digest | None) -> None:
    if digest and (found := digest.of(part)) != digest:
        _forget(part)
        raise ValueError(f"{url}: expected {digest}, found {found}. The file was changed or damaged; it was not kept. "
                         "Run the same command again; if it happens again, the publisher has another file now")


def _fetch(url: str, part: Path, compared: bool, headers: dict[str, str]) -> None:
    """Add what is missing to a part, of which the whole is compared or not; raises what a broken connection raises."""
    validator = _validator_of(part, url)
    start = _size(part) if validator or compared else 0
    asked = {"Range": f"bytes={start}-"} if start else {}
    if start and validator:
        asked["If-Range"] = validator
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers | asked),
                                          timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or not start:
            raise
        if error.headers.get("Content-Range") == f"bytes */{start}":  # it was whole already
            return
        _forget(part)  # longer than the file is now
        _fetch(url, part, compared, headers)
        return
    with response:
        if response.status != http.HTTPStatus.PARTIAL_CONTENT:
            start = 0
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else None
        _check_disk(part, total, start)
        _remember(part, url, response.headers)
        with part.open("ab" if start else "wb") as file:
            for chunk in progress(_chunks(response), f"fetch {part.stem}", "MiB", start >> 20,
                                  total and -(-total >> 20)):
                file.write(chunk)
    if total is not None and _size(part) < total:
        raise ConnectionError(f"{_size(part):,} of {total:,} bytes came")


def _chunks(response: Any) -> Iterator[bytes]:
    while chunk := response.read(CHUNK_BYTES):
        yield chunk


def _check_disk(part: Path, total: int | None, start: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if total is not None and total - start > free:
        raise ValueError(f"{part.parent}: {total - start:,} bytes are to come, {free:,} are free. Free some space and "
                         "run the same command again")


def _size(part: Path) -> int:
    return part.stat().st_size if part.is_file() else 0


def _state_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _remember(part: Path, url: str, headers: Any) -> None:
    """Keep what tells whether the server's file is still the same; a weak ETag does not."""
    tag = headers.get("ETag", "")
    validator = tag if tag.startswith('"') else headers.get("Last-Modified")
    _state_file(part).write_text(json.dumps({"url": url, "validator": validator}), encoding="utf-8")


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _state_file(part).unlink(missing_ok=True)


def _validator_of(part: Path, url: str) -> str | None:
    try:
        state = json.loads(_state_file(part).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return state.get("validator") if state.get("url") == url else None
