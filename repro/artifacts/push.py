"""`repro push`: publish the artifacts that dvc.lock names, and write the manifest that `repro pull` checks.

Every file is read and checked before anything is sent. On the remote a folder's list comes after its files, so a
folder that is listed there is whole.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from repblend.store import write_json
from repro.artifacts.manifest import (
    MANIFEST,
    Artifacts,
    Failure,
    Object,
    explain_failures,
    files_of,
    is_in_git,
    list_of,
    outputs,
    pushed_sha256,
    read_manifest,
    version,
)
from repro.artifacts.remote import SHIPPED, Cache, Remote, dvc_repository, each, log, progress, transferring
from repro.profiles import workspace_of
from repro.workspace import find_root

MEND = "compute it here (repro run {stage}), or pull it first, and push again"


def main(what: Artifacts, remote: str | None, name: str) -> int:
    """Push the outputs of a group that are here; return 0 if then all of them are published."""
    try:
        root = workspace_of(find_root(), name)
        with transferring(root, "push"), dvc_repository(root) as repo:
            target = Remote(repo, remote)
            if target.name == SHIPPED and remote is None:
                raise ValueError(f"{target} is the folder of the clone that git holds, for what everybody gets. Name "
                                 f"another (repro push --remote NAME), or say --remote {SHIPPED}")
            failures = push(root, what, Cache(repo), target)
    except (ValueError, OSError) as error:
        print(f"repro push: {error}", file=sys.stderr)
        return 1
    if failures:
        print(explain_failures(failures, MEND), file=sys.stderr)
        print(f"repro push: not complete, see above. {MANIFEST} names what was pushed", file=sys.stderr)
        return 1
    print(f"repro push {what}: everything is published. Commit {MANIFEST}")
    return 0


def push(root: Path, what: Artifacts, cache: Cache, remote: Remote) -> list[Failure]:
    """Push the outputs of a group that are in the cache and write the manifest; return what is wrong with the others.

    An output that is not here, but whose version was pushed before, is none of them: its version stays, as do
    those of the other groups.

    Raises:
        ValueError: the remote failed. The manifest is as it was.
    """
    before, wanted = read_manifest(root), [output for output in outputs(root, what) if not is_in_git(output)]
    versions = {output.path: before[output.path] for output in outputs(root, Artifacts.ALL)
                if pushed_sha256(before, output)}
    failures = []
    for output in wanted:
        lists = [list_of(output)] if output.is_folder else []
        absent, wrong = _sorted_out(cache, lists)
        files = [] if absent or wrong else list(files_of(output, cache.path(output.md5)))
        if files:
            absent, wrong = _sorted_out(cache, files)
        if absent and not wrong and output.path in versions:
            log.info("%s: not here as a whole, but pushed before", output.path)
            continue
        if absent or wrong:
            failures += [*absent, *wrong]
            continue
        send(files, lists, cache, remote)
        versions[output.path] = version(output, {item.name: cache.path(item.oid) for item in files})
    write_json(root / MANIFEST, versions)
    return failures


def _sorted_out(cache: Cache, objects: Sequence[Object]) -> tuple[list[Failure], list[Failure]]:
    """Return which objects the cache does not have, and which it has otherwise than their MD5 says."""
    absent: list[Failure] = []
    wrong: list[Failure] = []
    for item in objects:
        if not os.path.lexists(path := cache.path(item.oid)):
            absent.append(Failure(item.output, f"{item.name}: not in DVC's cache (object {item.oid})"))
        elif text := item.mismatch(path):
            wrong.append(Failure(item.output, f"{text}, in DVC's cache"))
    return absent, wrong


def send(files: Sequence[Object], lists: Sequence[Object], cache: Cache, remote: Remote) -> None:
    """Store on the remote what it does not have in full size: the files first, then the list."""
    by_oid = {item.oid: item for item in files}  # files with the same bytes are one object
    with progress("push", sum(cache.path(oid).stat().st_size for oid in by_oid)) as bar:
        def send_one(item: Object) -> str:
            path = cache.path(item.oid)
            if remote.size(item.oid) != path.stat().st_size:
                remote.upload(item.oid, path, bar.update)
            return item.name

        for part in (by_oid.values(), lists):
            for name in each(send_one, part, remote.jobs):
                log.info("on %s: %s", remote, name)
