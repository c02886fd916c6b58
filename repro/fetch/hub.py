"""Fetch files from the Hugging Face hub: resumable, and no file gets its name before its bytes were found right.

The hub's own library says which files there are, where they lie and what their hashes are; `repro.fetch.download`
fetches them, since the library resumes nothing that another process began. `HF_ENDPOINT` names a mirror, of which
checkpoints ask no more than `/OWNER/NAME/resolve/REVISION/FILE`.
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from repblend.encoders.hub import (
    HUB,
    Checkpoint,
    FetchedCheckpoint,
    FetchedFile,
    File,
    fault,
    record_of,
    snapshot,
    with_record,
)
from repblend.runtime.processes import only_writer
from repblend.store import sha256
from repro.fetch.download import Digest, download, size_in_words

LOCK = Path("checkpoints/locks/hub.lock")
BRANCH = "main"
GIT_SHA1_LENGTH, SHA256_LENGTH = 40, 64
Say = Callable[[str], None]


@dataclass(frozen=True)
class HubFile:
    """A file as the hub describes it."""

    name: str
    """Its path in the repository."""
    url: str
    revision: str
    """The commit, or `main`."""
    num_bytes: int
    etag: str
    """Of small files git's hash of the blob, of large ones the SHA-256."""
    pinned: str | None = None
    """The SHA-256 that this project expects."""

    @property
    def sha256(self) -> str | None:
        """The pinned one, or else what the hub states."""
        return self.pinned or (self.etag if len(self.etag) == SHA256_LENGTH else None)

    def mismatch(self, path: Path) -> str | None:
        """Compare a file with its SHA-256, or else with its hash in git; return the difference, None if there is
        none. The tag of a mirror's own says nothing about the bytes.
        """
        if self.sha256:
            kind, found, expected = "SHA-256", sha256(path), self.sha256
        elif len(self.etag) == GIT_SHA1_LENGTH:
            kind, found, expected = "git hash", git_hash(path), self.etag
        else:
            return None
        return None if found == expected else f"{kind} is {found}, expected {expected}"


def git_hash(path: Path) -> str:
    """Return the SHA-1 by which git knows the bytes of a file."""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0%s" % (len(content), content), usedforsecurity=False).hexdigest()


# Checkpoints: known files of a repository, at a commit.


def fetch(checkpoints: Sequence[Checkpoint], root: Path, say: Say = print) -> None:
    """Fetch checkpoints into `data/hub` of a clone, as far as they are not there yet, and record what was not pinned.

    Args:
        root: the clone's folder.
        say: is given a line for each checkpoint: what is downloaded, and how large it is, before anything is.

    Raises:
        ValueError: the hub cannot be reached, has no such file, or has other bytes than expected; the disk is too
            small; another process fetches. What was fetched before stays, parts of files included.
    """
    with only_writer(root / LOCK, f"{root / HUB}"):
        todo = [(checkpoint, wanted) for checkpoint in dict.fromkeys(checkpoints)
                if (wanted := _wanted(checkpoint, root, say))]
        for checkpoint, wanted in todo:
            folder = snapshot(replace(checkpoint, revision=wanted[0].revision), root)
            for file in wanted:
                _bring(file, folder)
            if not with_record(checkpoint, root).is_pinned:
                _record(checkpoint, wanted, folder, root, say)


def _wanted(checkpoint: Checkpoint, root: Path, say: Say) -> list[HubFile]:
    """Return what has to be downloaded; damaged files are removed. The hub is asked only if something has to be."""
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
    wanted: list[HubFile] = []
    for file in known.files:  # the first answer decides the commit if none is pinned
        wanted.append(_ask(known.repository, file, known.revision or (wanted[0].revision if wanted else BRANCH)))
    say(f"{known.repository} at {wanted[0].revision[:7]}: {len(wanted)} file(s), "
        f"{size_in_words(sum(file.num_bytes for file in wanted))}, to {HUB}/")
    return wanted


def _ask(repository: str, file: File, revision: str) -> HubFile:
    """Ask the hub for the commit, size and hash of a file.

    Raises:
        ValueError: there is no such file, or what answers is no hub or no faithful mirror of it.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url  # slow to import, and seldom needed

    allow_network()
    url = hf_hub_url(repository, file.name, revision=revision, endpoint=endpoint())
    try:
        found = get_hf_file_metadata(url, endpoint=endpoint())
    except Exception as error:  # the library's kinds of errors, those of its HTTP client, and the system's
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(f"{url}: cannot be fetched ({lines[0]}). Check the name, the network and HF_ENDPOINT; what "
                         "was fetched is kept, so run the same command to go on") from error
    if not found.commit_hash or not found.etag or found.size is None:
        raise ValueError(f"{url}: the answer has no commit, ETag or size, so it does not come from a model hub. Check "
                         "HF_ENDPOINT, and any proxy on the way")
    if revision not in (BRANCH, found.commit_hash):
        raise ValueError(f"{url}: the hub answers with commit {found.commit_hash}, expected {revision}. It is no "
                         "faithful mirror: use another (HF_ENDPOINT)")
    if file.num_bytes not in (None, found.size):
        raise ValueError(f"{url}: {found.size} bytes there, expected {file.num_bytes}. It is another file: check "
                         "HF_ENDPOINT, and any proxy on the way")
    at_commit = hf_hub_url(repository, file.name, revision=found.commit_hash, endpoint=endpoint())
    return HubFile(file.name, at_commit, found.commit_hash, found.size, found.etag, file.sha256)


def _bring(file: HubFile, folder: Path) -> None:
    """Download one file unless it is there; keep it only if its bytes are right."""
    target = folder / file.name
    if target.is_file() and not file.mismatch(target):
        return
    download(file.url, target, Digest("sha256", file.sha256) if file.sha256 else None)
    if file.sha256 is None and (mismatch := file.mismatch(target)):
        target.unlink()
        raise ValueError(f"{file.url}: {mismatch}. It was not kept: run the same command again; if that changes "
                         "nothing, the hub or a proxy on the way has other bytes")


def _record(checkpoint: Checkpoint, fetched: Sequence[HubFile], folder: Path, root: Path, say: Say) -> None:
    """Write down the commit and hashes that the table leaves open; every later fetch has to find the same."""
    files = {file.name: FetchedFile(sha256=sha256(folder / file.name), num_bytes=file.num_bytes) for file in fetched}
    path = record_of(checkpoint)
    FetchedCheckpoint(revision=fetched[0].revision, files=files).write(root / path)
    say(f"{path} is new: commit it, so that everyone gets the same files.")


# Files of a data set: found by their names, whatever folder of the repository they lie in.


def find_hub_files(repository: str, names: Sequence[str]) -> dict[str, HubFile]:
    """Return where files lie in a repository.

    Args:
        repository: `models/OWNER/NAME` or `datasets/OWNER/NAME`.
        names: file names without folders.

    Raises:
        ValueError: the hub does not answer, or has none or several files of a name.
    """
    from huggingface_hub import HfApi, RepoFile, hf_hub_url

    allow_network()
    kinds, _, repo_id = repository.partition("/")
    kind, page = kinds.removesuffix("s"), f"{endpoint()}/{repository.removeprefix('models/')}"
    try:
        listed = [entry for entry in HfApi(endpoint()).list_repo_tree(repo_id, recursive=True, repo_type=kind)
                  if isinstance(entry, RepoFile)]
    except Exception as error:  # of many kinds, as above
        raise ValueError(f"{page}: the hub does not list the files ({error}). Try later") from error
    found = {}
    for name in names:
        entries = [entry for entry in listed if PurePosixPath(entry.path).name == name]
        if len(entries) != 1:
            raise ValueError(f"{page}: expected one file {name}, found {len(entries)}. Look there, fetch it by hand, "
                             "and put it into the dataset's folder")
        entry, = entries
        url = hf_hub_url(repo_id, entry.path, repo_type=kind, endpoint=endpoint())
        found[name] = HubFile(entry.path, url, BRANCH, entry.size, entry.lfs.sha256 if entry.lfs else entry.blob_id)
    return found


def endpoint() -> str:
    """Return the hub's address."""
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def allow_network() -> None:
    """Let the hub's library use the network, which `HF_HUB_OFFLINE` forbids everywhere else: a fetch was asked for."""
    from huggingface_hub import constants

    constants.HF_HUB_OFFLINE = False
