"""`repro push`: publish the cached artifacts that dvc.lock names, and write the manifest that `repro pull` checks.

Every file is read and checked before anything is sent. On the remote a folder's list comes after its files, so a
folder that is listed there is whole.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from repro.artifacts import Artifacts, Output, Problem, explain, outputs
from repro.manifest import MANIFEST, Entry, content_of, read_manifest, write_manifest
from repro.objects import Object, files_of, list_of
from repro.profiles import profile_of
from repro.remote import Cache, Remote, dvc_repository
from repro.transfer import each, log, progress, transferring
from repro.workspace import find_root

MEND = "compute it here (repro run {stage}), or pull it first, and push again"


def main(remote: str | None, name: str) -> int:
    """Push every output that is here; return 0 if then all are published."""
    try:
        root = profile_of(find_root(), name).workspace
        with transferring(root, "push"), dvc_repository(root) as repo:
            problems = push(root, Cache(repo), Remote(repo, remote))
    except (ValueError, OSError) as error:
        print(f"repro push: {error}", file=sys.stderr)
        return 1
    if problems:
        print(explain(problems, MEND), file=sys.stderr)
        print(f"repro push: not complete, see above. {MANIFEST} speaks of what was pushed", file=sys.stderr)
        return 1
    print(f"repro push: everything is published. Commit {MANIFEST}")
    return 0


def push(root: Path, cache: Cache, remote: Remote) -> list[Problem]:
    """Push the outputs that are in the cache and write the manifest; return what is wrong with the others.

    An output that is not here, but whose version was pushed before, is none of them: its entry stays.

    Raises:
        ValueError: the remote failed. The manifest is as it was.
    """
    before, after, problems = read_manifest(root), {}, []
    for output in outputs(root, Artifacts.ALL):
        if output.in_git:
            continue
        objects, wrong = read_objects(cache, output)
        entry = before.get(output.path)
        if not wrong:
            send(objects, cache, remote)
            after[output.path] = Entry(output.md5, {item.name: item.content for item in objects if item.content})
        elif entry and entry.md5 == output.md5:
            after[output.path] = entry
            log.info("%s: not here as a whole, but pushed before", output.path)
        else:
            problems += wrong
    write_manifest(root, after)
    return problems


def read_objects(cache: Cache, output: Output) -> tuple[list[Object], list[Problem]]:
    """Return the objects of an output in the order in which they are to be sent, and what is wrong with them."""
    lists = [list_of(output)] if output.is_folder else []
    if problems := _problems(cache, lists):
        return [], problems
    files = [Object(output, name, oid, None) for name, oid in files_of(output, cache.path(output.md5))]
    if problems := _problems(cache, files):
        return [], problems
    return [*(replace(file, content=content_of(cache.path(file.oid))) for file in files), *lists], []


def _problems(cache: Cache, objects: Sequence[Object]) -> list[Problem]:
    """Return which objects the cache does not have as their MD5 says."""
    return [Problem(item.output, wrong) for item in objects if (wrong := _wrong(cache, item))]


def _wrong(cache: Cache, item: Object) -> str | None:
    path = cache.path(item.oid)
    return item.mismatch(path) if path.exists() else f"{item.name}: not in DVC's cache (object {item.oid})"


def send(objects: Sequence[Object], cache: Cache, remote: Remote) -> None:
    """Store on the remote what it does not have in full size: the files first, then the list."""
    files = {item.oid: item for item in objects if item.content}  # files with the same bytes are one object
    with progress(objects[0].output.path, sum(item.content.size for item in files.values() if item.content)) as bar:
        def send_one(item: Object) -> str:
            path = cache.path(item.oid)
            if remote.size(item.oid) != path.stat().st_size:
                remote.upload(item.oid, path, bar.update)
            return item.name

        for part in (files.values(), [item for item in objects if not item.content]):
            for name in each(send_one, part, remote.jobs):
                log.info("on %s: %s", remote, name)
