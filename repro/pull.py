"""`repro pull`: bring artifacts that were computed elsewhere, and check every byte of them.

An object enters DVC's cache only after it was checked against the manifest, an output enters the workspace only when
all its objects are in the cache, and then its files are checked again. Killed at any moment, it goes on from there.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from repblend.store import atomic_path
from repro import git_metrics
from repro.artifacts import Artifacts, Output, Problem, explain, outputs
from repro.local import run_stoppable
from repro.manifest import MANIFEST, Content, Entry, content_of, read_manifest
from repro.objects import Object, files_of, list_of
from repro.profiles import profile_of
from repro.remote import Cache, Missing, Remote, dvc_repository
from repro.transfer import each, log, progress, transferring
from repro.workspace import dvc, find_root

MEND = "try another remote (repro pull WHAT --remote NAME), or compute it here: repro run {stage}"


def main(what: Artifacts, remote: str | None, name: str) -> int:
    """Pull a group of artifacts; return 0 if all of it is here and right."""
    try:
        root = profile_of(find_root(), name).workspace
        with transferring(root, "pull"):
            wanted = outputs(root, what)
            problems = git_metrics.restore(root, [output for output in wanted if output.in_git])
            told = [explain(problems, git_metrics.MEND)] if problems else []
            cached = [output for output in wanted if not output.in_git]
            if cached and (found := pull(root, cached, remote)):
                told.append(explain(found, MEND))
    except (ValueError, OSError) as error:
        print(f"repro pull: {error}", file=sys.stderr)
        return 1
    if told:
        print("\n".join(told), file=sys.stderr)
        print(f"repro pull {what}: not complete, see above. What is right was kept", file=sys.stderr)
        return 1
    print(f"repro pull {what}: {len(wanted)} outputs are here, every file checked")
    return 0


def pull(root: Path, wanted: Sequence[Output], remote: str | None) -> list[Problem]:
    """Bring outputs to the cache and the workspace; return what is wrong with some of them.

    Args:
        remote: None for DVC's default remote.

    Raises:
        ValueError: the remote failed. What was fetched until then is in the cache.
        OSError: the disk is full.
    """
    manifest = read_manifest(root)
    entries = {output: entry for output in wanted
               if (entry := manifest.get(output.path)) and entry.md5 == output.md5}
    problems = [Problem(output, f"{MANIFEST} does not know version {output.md5}, which dvc.lock names: nobody has "
                                "pushed it") for output in wanted if output not in entries]
    with dvc_repository(root) as repo:
        fetcher = Fetcher(Cache(repo), lambda: Remote(repo, remote))
        problems += fetcher.fetch([list_of(output) for output in entries if output.is_folder])
        for output, entry in _without(entries, problems).items():
            problems += fetcher.fetch_files(output, entry)
    absent = {output: entry for output, entry in _without(entries, problems).items() if _differing(root, entry)}
    _check_out(root, list(absent))
    for output, entry in absent.items():
        problems += _remove_differing(root, output, entry)
    return problems


@dataclass
class Fetcher:
    """Fetches into the cache what it does not have."""

    cache: Cache
    connect: Callable[[], Remote]
    """Connects to the remote: called once something is missing, so that a full cache needs no remote."""
    remote: Remote | None = None

    def fetch_files(self, output: Output, entry: Entry) -> list[Problem]:
        """Fetch the files of an output whose list (if it is a folder) is in the cache."""
        oids = dict(files_of(output, self.cache.path(output.md5)))
        if oids.keys() != entry.files.keys():
            names = ", ".join(sorted(oids.keys() ^ entry.files.keys())[:5])
            return [Problem(output, f"{MANIFEST} and the output's own list name different files: {names}")]
        return self.fetch([Object(output, name, oid, entry.files[name]) for name, oid in oids.items()])

    def fetch(self, objects: Sequence[Object]) -> list[Problem]:
        """Fetch the objects that the cache does not have as they must be; return what is wrong with some."""
        by_oid = {item.oid: item for item in objects}  # files with the same bytes are one object
        absent = [item for item in by_oid.values() if not self._have(item)]
        if not absent:
            return []
        self.remote = self.remote or self.connect()
        num_bytes = sum(item.content.size for item in absent if item.content)
        log.info("%s: %d objects to fetch, %d bytes", objects[0].output.path, len(absent), num_bytes)
        with progress(objects[0].output.path, num_bytes) as bar:
            found = each(lambda item: self._fetch(item, bar.update), absent, self.remote.jobs)
            return [problem for problem in found if problem]

    def _have(self, item: Object) -> bool:
        path = self.cache.path(item.oid)
        if not path.exists():
            return False
        if wrong := item.mismatch(path):
            log.info("damaged in DVC's cache, removed from it: %s", wrong)
            path.unlink()
        return not wrong

    def _fetch(self, item: Object, count: Callable[[int], None]) -> Problem | None:
        assert self.remote is not None
        try:
            with atomic_path(self.cache.path(item.oid)) as aside:
                self.remote.download(item.oid, aside, count)
                if wrong := item.mismatch(aside):
                    raise Damaged(f"{self.remote} sent other bytes. {wrong}")
        except Missing:
            return self._problem(item, f"{self.remote} does not have {item.name} (object {item.oid})")
        except Damaged as error:
            return self._problem(item, str(error))
        self.cache.protect(item.oid)
        log.info("fetched %s (object %s)", item.name, item.oid)
        return None

    def _problem(self, item: Object, text: str) -> Problem:
        log.info("%s", text)
        return Problem(item.output, text)


class Damaged(Exception):
    """The remote sent bytes that are not the object's."""


def _without(entries: dict[Output, Entry], problems: Sequence[Problem]) -> dict[Output, Entry]:
    """Return the entries of outputs that nothing is wrong with."""
    wrong = {problem.output for problem in problems}
    return {output: entry for output, entry in entries.items() if output not in wrong}


def _check_out(root: Path, absent: Sequence[Output]) -> None:
    """Place outputs from the cache in the workspace. What was edited there stays as it is."""
    if absent and run_stoppable(dvc("checkout", "--quiet", *(output.path for output in absent)), root):
        raise ValueError("DVC could not place the outputs in the workspace, see above. They are in its cache. If you "
                         "changed one, move it away (or lose it: `dvc checkout --force PATH`) and run this again")


def _differing(root: Path, entry: Entry) -> dict[str, Content | None]:
    """Return which files of the workspace are not as they must be, and what was found (None: no file)."""
    found = {name: content_of(root / name) if (root / name).is_file() else None for name in entry.files}
    return {name: content for name, content in found.items() if content != entry.files[name]}


def _remove_differing(root: Path, output: Output, entry: Entry) -> list[Problem]:
    """Check the files that were just placed. DVC may have believed in one that it placed before and that rotted."""
    problems = []
    for name, found in _differing(root, entry).items():
        (root / name).unlink(missing_ok=True)
        problems.append(Problem(output, f"{name}: in the workspace, expected {entry.files[name]}, found "
                                        f"{found or 'no file'}. It was removed: run this again to restore it"))
    log.info("%s: %d files placed and checked", output.path, len(entry.files))
    return problems
