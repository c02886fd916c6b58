"""Fetching checkpoints from the model hub: resumable, and no file gets its name before its bytes were found right.

Files are asked for one by one, over plain HTTP, from `HF_ENDPOINT` (https://huggingface.co by default): a mirror has
little to answer. The hub's own library only says what they are, for it resumes nothing that another process began.

This lies beside the science, not in it: how files are fetched changes no byte of what is computed from them.
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

from repblend.download import Digest, download
from repblend.encoders.hub import HUB, fault, record_of, snapshot, with_record
from repblend.encoders.pins import Checkpoint, File
from repblend.stages.lock import only_writer
from repblend.store import sha256, write_json

LOCK = Path("checkpoints/locks/hub.lock")
BRANCH = "main"
MEGABYTE = 1e6
GIT_SHA1_LENGTH, SHA256_LENGTH = 40, 64
Say = Callable[[str], None]


@dataclass(frozen=True)
class Remote:
    """A file as the hub describes it."""

    file: File
    url: str
    revision: str
    num_bytes: int
    etag: str
    """Of small files git's hash of the blob, of large ones the SHA-256."""

    @property
    def sha256(self) -> str | None:
        """The pinned one, or else what the hub states."""
        return self.file.sha256 or (self.etag if len(self.etag) == SHA256_LENGTH else None)


def fetch(checkpoints: Sequence[Checkpoint], root: Path, say: Say = print) -> None:
    """Bring checkpoints under a repository's root, as far as they are not there yet, and record what was open.

    Args:
        root: the repository's folder.
        say: gets a line for each: what is downloaded, and how large it is, before anything is.

    Raises:
        ValueError: the hub cannot be reached, has no such file, or has other bytes than expected; the disk is too
            small; another process fetches. What was fetched before stays, also parts of files.
    """
    with only_writer(root / LOCK, f"{root / HUB}"):
        todo = [(checkpoint, wanted) for checkpoint in dict.fromkeys(checkpoints)
                if (wanted := _wanted(checkpoint, root, say))]
        for checkpoint, wanted in todo:
            folder = snapshot(replace(checkpoint, revision=wanted[0].revision), root)
            for remote in wanted:
                _bring(remote, folder)
            _record(checkpoint, wanted, folder, root, say)


def _wanted(checkpoint: Checkpoint, root: Path, say: Say) -> list[Remote]:
    """What has to be downloaded of a checkpoint; damaged files are removed. Asks the hub only if something has."""
    known = with_record(checkpoint, root)
    if known.is_pinned:
        folder = snapshot(known, root)
        wrong = [file for file in known.files if fault(file, folder)]
        for file in wrong:
            (folder / file.name).unlink(missing_ok=True)
        if not wrong:
            say(f"{known.repository} at {known.revision[:7]}: complete, every SHA-256 is right")
            return []
        known = replace(known, files=tuple(wrong))
    wanted = _describe(known)
    say(f"{known.repository} at {wanted[0].revision[:7]}: {len(wanted)} file(s), "
        f"{sum(remote.num_bytes for remote in wanted) / MEGABYTE:,.1f} MB, to {HUB}/")
    return wanted


def _describe(checkpoint: Checkpoint) -> list[Remote]:
    """Ask the hub for every file; the first answer decides the commit if none is pinned."""
    remotes: list[Remote] = []
    for file in checkpoint.files:
        revision = checkpoint.revision or (remotes[0].revision if remotes else BRANCH)
        remote = _ask(checkpoint.repository, file, revision)
        if revision not in (BRANCH, remote.revision):
            raise ValueError(f"{remote.url}: the hub answers with commit {remote.revision}, expected {revision}. It is "
                             "no faithful mirror: use another (HF_ENDPOINT)")
        remotes.append(remote)
    return remotes


def _ask(repository: str, file: File, revision: str) -> Remote:
    library = _hub_library()
    url = library.hf_hub_url(repository, file.name, revision=revision)
    try:
        found = library.get_hf_file_metadata(url)
    except Exception as error:  # the library's kinds of errors, those of its HTTP client, and the system's
        raise _cannot_fetch(url, error) from error
    if not found.commit_hash or not found.etag or found.size is None:
        raise ValueError(f"{url}: the answer has no commit, ETag or size, so it does not come from a model hub. Check "
                         "HF_ENDPOINT, and any proxy on the way")
    if file.num_bytes not in (None, found.size):
        raise ValueError(f"{url}: {found.size} bytes there, expected {file.num_bytes}. It is another file: check "
                         "HF_ENDPOINT, and any proxy on the way")
    at_commit = library.hf_hub_url(repository, file.name, revision=found.commit_hash)
    return Remote(file, at_commit, found.commit_hash, found.size, found.etag)


def _cannot_fetch(url: str, error: Exception) -> ValueError:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return ValueError(f"{url}: cannot be fetched ({lines[0]}). Check the name, the network and HF_ENDPOINT; what was "
                      "fetched is kept, so run the same command to go on")


def _bring(remote: Remote, folder: Path) -> None:
    """Download one file unless it is there; keep it only if its bytes are right."""
    target = folder / remote.file.name
    if target.is_file() and not _mismatch(target, remote):
        return
    download(remote.url, target, Digest("sha256", remote.sha256) if remote.sha256 else None)
    if remote.sha256 is None and (mismatch := _mismatch(target, remote)):
        target.unlink()
        raise ValueError(f"{remote.url}: {mismatch}. It was not kept: run the same command again; if that changes "
                         "nothing, the hub or a proxy on the way has other bytes")


def _mismatch(path: Path, remote: Remote) -> str | None:
    """Compare a file with its SHA-256, pinned or stated by the hub, or else with its hash in git."""
    if remote.sha256:
        kind, found, expected = "SHA-256", sha256(path), remote.sha256
    elif len(remote.etag) == GIT_SHA1_LENGTH:
        kind, found, expected = "git hash", git_hash(path), remote.etag
    else:
        return None  # a mirror's own tag says nothing about the bytes
    return None if found == expected else f"{kind} is {found}, expected {expected}"


def git_hash(path: Path) -> str:
    """Return the SHA-1 by which git knows the bytes of a file."""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0%s" % (len(content), content), usedforsecurity=False).hexdigest()


def _record(checkpoint: Checkpoint, fetched: Sequence[Remote], folder: Path, root: Path, say: Say) -> None:
    """Write down the commit and hashes that the table leaves open; every later fetch has to find the same."""
    if with_record(checkpoint, root).is_pinned:
        return
    files = {remote.file.name: {"sha256": sha256(folder / remote.file.name), "num_bytes": remote.num_bytes}
             for remote in fetched}
    path = record_of(checkpoint)
    write_json(root / path, {"revision": fetched[0].revision, "files": files})
    say(f"{path} is new: commit it, so that everyone gets the same files.")


def _hub_library() -> ModuleType:
    """Import the hub's library with the network allowed, which its environment variable forbids everywhere else."""
    before = os.environ.get("HF_HUB_OFFLINE")
    os.environ["HF_HUB_OFFLINE"] = "0"
    try:
        from huggingface_hub import file_download
    finally:
        if before is None:
            del os.environ["HF_HUB_OFFLINE"]
        else:
            os.environ["HF_HUB_OFFLINE"] = before
    return file_download
