"""Resumable downloads: `FILE.part` grows until it is whole and right, then takes the file's name.

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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repblend.progress import progress
from repblend.store import refuse_links, sha256

CHUNK_BYTES = 1 << 20
ATTEMPTS = 5
"""Breaks in a row, without a byte between them, after which one gives up."""
PAUSE_SECONDS = 2.0
TIMEOUT_SECONDS = 60.0
BUSY = {429, 500, 502, 503, 504}
"""Answers of a server that may do better in a moment."""
BROKEN = (OSError, http.client.HTTPException)
"""What a lost connection looks like."""


def size_in_words(num_bytes: float) -> str:
    """Return bytes in words, decimal: `0.4 MB`, `346 MB`, `15.6 GB`."""
    if num_bytes >= 1e9:
        return f"{num_bytes / 1e9:.1f} GB"
    return f"{num_bytes / 1e6:.{1 if num_bytes < 1e7 else 0}f} MB"


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


def download(url: str, target: Path, digest: Digest | None) -> None:
    """Fetch a file, all of it or a part that the next call goes on with.

    Args:
        digest: what the file must have; None takes what comes.

    Raises:
        ValueError: the server refuses, keeps breaking off, or sends something else than the digest says; or the disk
            is too small.
    """
    refuse_links(target).parent.mkdir(parents=True, exist_ok=True)
    part, idle = _Part(target.with_name(f"{target.name}.part"), url), 0
    while True:
        before = part.size
        try:
            _add_to(part, is_compared=digest is not None)
            break
        except urllib.error.HTTPError as error:
            if error.code in BUSY and idle < ATTEMPTS:
                idle += 1
                time.sleep(PAUSE_SECONDS * idle)
                continue
            raise ValueError(f"{url}: the server answers {error.code} {error.reason}. Try later, or fetch the file by "
                             f"other means and put it at {target}") from error
        except BROKEN as error:
            idle = 0 if part.size > before else idle + 1
            if idle >= ATTEMPTS:
                raise ValueError(f"{url}: the connection broke {idle} times ({error or type(error).__name__}); "
                                 f"{part.size:,} bytes are kept. Run the same command again to go on") from error
            time.sleep(PAUSE_SECONDS)
    if digest and (found := digest.of(part.path)) != digest:
        part.forget()
        raise ValueError(f"{url}: expected {digest}, found {found}. The file was changed or damaged; it was not kept. "
                         "Run the same command again; if it happens again, the publisher has another file now")
    part.path.replace(target)
    part.forget()


@dataclass(frozen=True)
class _Part:
    """What is there of a file so far; beside it lies what tells whether the server's file is still the same."""

    path: Path
    url: str

    @property
    def size(self) -> int:
        """In bytes."""
        return self.path.stat().st_size if self.path.is_file() else 0

    @property
    def _state(self) -> Path:
        return self.path.with_name(f"{self.path.name}.json")

    @property
    def validator(self) -> str | None:
        """The ETag or date of the server's file as it was, if the server stated one."""
        try:
            state = json.loads(self._state.read_text(encoding="utf-8"))
            return str(state["validator"]) if state["url"] == self.url and state["validator"] else None
        except (OSError, ValueError, TypeError, KeyError, RecursionError):  # none yet, or a damaged one
            return None

    def remember(self, headers: Any) -> None:
        """Keep the ETag or date; a weak ETag says nothing about the bytes."""
        tag = headers.get("ETag", "")
        validator = tag if tag.startswith('"') else headers.get("Last-Modified")
        self._state.write_text(json.dumps({"url": self.url, "validator": validator}), encoding="utf-8")

    def forget(self) -> None:
        self.path.unlink(missing_ok=True)
        self._state.unlink(missing_ok=True)


def _add_to(part: _Part, is_compared: bool) -> None:
    """Fetch what is missing of a file.

    Args:
        is_compared: whether the whole will be compared with a digest.

    Raises:
        OSError, HTTPException: the connection broke.
        ValueError: the disk is too small.
    """
    validator = part.validator
    start = part.size if validator or is_compared else 0
    headers = {"Range": f"bytes={start}-"} if start else {}
    if start and validator:
        headers["If-Range"] = validator
    try:
        response = urllib.request.urlopen(urllib.request.Request(part.url, headers=headers), timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or not start:
            raise
        if error.headers.get("Content-Range") != f"bytes */{start}":  # longer than the file is now
            part.forget()
            _add_to(part, is_compared)
        return
    with response:
        if response.status != http.HTTPStatus.PARTIAL_CONTENT:
            start = 0
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else None
        free = shutil.disk_usage(part.path.parent).free
        if total is not None and total - start > free:
            raise ValueError(f"{part.path.parent}: {total - start:,} bytes are to come, {free:,} are free. Free some "
                             "space and run the same command again")
        part.remember(response.headers)
        chunks = iter(lambda: response.read(CHUNK_BYTES), b"")
        with part.path.open("ab" if start else "wb") as file:
            for chunk in progress(chunks, f"fetch {part.path.stem}", "MiB", start >> 20, total and -(-total >> 20)):
                file.write(chunk)
    if total is not None and part.size < total:
        raise ConnectionError(f"{part.size:,} of {total:,} bytes came")
