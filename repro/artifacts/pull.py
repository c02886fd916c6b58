"""`repro pull`: bring artifacts that were computed elsewhere, and check every byte of them.

An object enters DVC's cache only with the MD5 that its list says, an output stays there only with the SHA-256 that the
manifest says, and enters the workspace only as a whole; there its files are checked again. Killed at any moment, a pull
goes on from there.
"""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from repblend.runtime.locked import Output
from repblend.store import atomic_path
from repro.artifacts import manifest
from repro.artifacts.manifest import (
    MANIFEST,
    Artifacts,
    Failure,
    Object,
    content_sha256,
    explain_failures,
    files_of,
    is_in_git,
    list_of,
    outputs,
    pushed_sha256,
    read_manifest,
)
from repro.artifacts.remote import Cache, Missing, Remote, checkout, dvc_repository, each, log, progress, transferring
from repro.profiles import workspace_of
from repro.workspace import find_root

MEND = "try another remote (repro pull WHAT --remote NAME), or compute it here: repro run {stage}"


def main(what: Artifacts, remote: str | None, name: str) -> int:
    """Pull a group of artifacts; return 0 if all of it is here and right."""
    try:
        root = workspace_of(find_root(), name)
        with transferring(root, "pull"):
            wanted = outputs(root, what)
            lost = manifest.restore(root, [output for output in wanted if is_in_git(output)])
            failed = pull(root, [output for output in wanted if not is_in_git(output)], remote)
    except (ValueError, OSError) as error:
        print(f"repro pull: {error}", file=sys.stderr)
        return 1
    for failures, mend in ((lost, manifest.MEND), (failed, MEND)):
        if failures:
            print(explain_failures(failures, mend), file=sys.stderr)
    if lost or failed:
        print(f"repro pull {what}: not complete, see above. What is right was kept", file=sys.stderr)
        return 1
    print(f"repro pull {what}: {len(wanted)} outputs are here, every file checked")
    return 0


def pull(root: Path, wanted: Sequence[Output], remote: str | None) -> list[Failure]:
    """Bring outputs to the cache and the workspace; return what is wrong with some of them.

    Args:
        remote: None for DVC's default remote.

    Raises:
        ValueError: the remote failed. What was fetched until then is in the cache.
        OSError: the disk is full.
    """
    versions = read_manifest(root)
    pushed = {output: sha256 for output in wanted if (sha256 := pushed_sha256(versions, output))}
    failures = [Failure(output, f"{MANIFEST} does not know version {output.md5}, which dvc.lock names: nobody has "
                                "pushed it") for output in wanted if output not in pushed]
    absent = {output: expected for output, expected in pushed.items() if not _is_here(root, output, expected)}
    if not absent:
        return failures
    with dvc_repository(root) as repo:
        fetcher = Fetcher(Cache(repo), lambda: Remote(repo, remote))
        failures += fetcher.fetch([list_of(output) for output in absent if output.is_folder])
        files = {output: list(files_of(output, fetcher.cache.path(output.md5))) for output in _right(absent, failures)}
        failures += fetcher.fetch([item for items in files.values() for item in items],
                                  sum(output.num_bytes for output in files))
        for output in _right(files, failures):
            failures += _quarantine(fetcher.cache, output, files[output], absent[output])
        complete = _right(files, failures)
        checkout(repo, [root / output.path for output in complete])
    for output in complete:
        failures += _remove_differing(root, output, files[output], absent[output])
    return failures


@dataclass
class Fetcher:
    """Fetches into the cache what it does not have."""

    cache: Cache
    connect: Callable[[], Remote]
    """Connects to the remote: called once something is missing, so that a full cache needs no remote."""
    remote: Remote | None = None

    def fetch(self, objects: Sequence[Object], num_bytes: int = 0) -> list[Failure]:
        """Fetch the objects that the cache does not have as they must be; return what is wrong with some.

        Args:
            num_bytes: the size of all of them, for the bar.
        """
        by_oid = {item.oid: item for item in objects}  # files with the same bytes are one object
        absent = [item for item in by_oid.values() if not self._have(item)]
        if not absent:
            return []
        self.remote = self.remote or self.connect()
        log.info("%d objects to fetch from %s", len(absent), self.remote)
        with progress("pull", num_bytes) as bar:
            bar.update(sum(self.cache.path(oid).stat().st_size for oid in by_oid.keys() - {i.oid for i in absent}))
            wrong = dict(each(lambda item: (item.oid, self._fetch(item, bar.update)), absent, self.remote.jobs))
        found = {Failure(item.output, text): None for item in objects if (text := wrong.get(item.oid))}
        return list(found)

    def _have(self, item: Object) -> bool:
        path = self.cache.path(item.oid)
        if not os.path.lexists(path):
            return False
        if wrong := item.mismatch(path):
            log.info("damaged in DVC's cache, removed from it: %s", wrong)
            path.unlink()
        return not wrong

    def _fetch(self, item: Object, count: Callable[[int], None]) -> str | None:
        """Fetch an object; return what is wrong if that does not work."""
        assert self.remote is not None
        try:
            with atomic_path(self.cache.path(item.oid)) as aside:
                self.remote.download(item.oid, aside, count)
                if wrong := item.mismatch(aside):  # raised, so that the file does not get its name
                    raise Damaged(f"{self.remote} sent other bytes. {wrong}")
        except Missing:
            wrong = f"{self.remote} does not have {item.name} (object {item.oid})"
        except Damaged as error:
            wrong = str(error)
        else:
            self.cache.protect(item.oid)
        log.info("%s", wrong or f"fetched {item.name} (object {item.oid})")
        return wrong


class Damaged(Exception):
    """The remote sent bytes that are not the object's."""


def _right(candidates: Mapping[Output, object], failures: Sequence[Failure]) -> list[Output]:
    """Return the outputs that nothing is wrong with."""
    wrong = {failure.output for failure in failures}
    return [output for output in candidates if output not in wrong]


def _quarantine(cache: Cache, output: Output, files: Sequence[Object], expected: str) -> list[Failure]:
    """Compare a whole output in the cache with the manifest; if its MD5 deceive, nothing of it stays there."""
    found = content_sha256(output, {item.name: cache.path(item.oid) for item in files})
    if found == expected:
        return []
    for oid in (output.md5, *(item.oid for item in files)):
        cache.path(oid).unlink(missing_ok=True)
    text = (f"{output.path}: expected SHA-256 {expected} of all of it ({MANIFEST}), found {found}, though every MD5 is "
            "right: it was made to deceive. Nothing of it was kept")
    log.info("%s", text)
    return [Failure(output, text)]


def _is_here(root: Path, output: Output, expected: str) -> bool:
    """Whether an output is in the workspace as it must be, with nothing beside."""
    here = output.files(root)
    return (output.is_folder or bool(here)) and content_sha256(output, here) == expected


def _remove_differing(root: Path, output: Output, files: Sequence[Object], expected: str) -> list[Failure]:
    """Check the files that were just placed. DVC may have believed in one that it placed before and that rotted."""
    if _is_here(root, output, expected):
        log.info("%s: %d files placed and checked", output.path, len(files))
        return []
    failures = []
    for item in files:
        path = root / item.name
        if wrong := item.mismatch(path) if path.is_file() else f"{item.name}: no such file":
            path.unlink(missing_ok=True)
            failures.append(Failure(output, f"{wrong}, in the workspace. It was removed: run this again to restore it"))
    return failures
