"""A small project with the groups of the real one, run by DVC itself, and what one does with clones of it."""

import contextlib
import os
import re
import subprocess
from pathlib import Path
from unittest import mock

from dvc.cli import main as dvc_main

from repro.artifacts import pull, push
from repro.artifacts.manifest import Artifacts
from repro.profiles import QUICKSTART
from repro.workspace import environment

MAKE = """\
import pathlib, sys
folder = pathlib.Path("features")
(folder / "below").mkdir(parents=True)
for number in range(12):
    (folder / f"{number}.bin").write_bytes(bytes([number]) * (1000 + number))
(folder / "below/again.bin").write_bytes(bytes([3]) * 1003)
(folder / "below/large ü.bin").write_bytes(bytes(range(250)) * 12000)
"""
DISTILL = """\
import hashlib, pathlib
text = hashlib.sha256(pathlib.Path("features/3.bin").read_bytes()).hexdigest()
for name in ("sets/toy-10.bin", "metrics/toy-10.json", "records/toy-10/record.json", "records/toy-10/loss.csv"):
    pathlib.Path(name).parent.mkdir(exist_ok=True, parents=True)
    pathlib.Path(name).write_text(f'{{"{pathlib.Path(name).suffix}": "{text}"}}')
"""
PIPELINE = """\
stages:
  encode:
    cmd: python make.py
    outs: [features]
  distill:
    cmd: python distill.py
    deps: [features]
    outs:
    - sets/toy-10.bin
    - records/toy-10
    metrics:
    - metrics/toy-10.json: {cache: false}
"""


def make(folder: Path) -> Path:
    """Make the project in a folder: a git repository whose stages have run."""
    folder.mkdir()
    for name, text in (("make.py", MAKE), ("distill.py", DISTILL), ("dvc.yaml", PIPELINE),
                       (".gitignore", "/features\n/sets\n/records\n/logs\n/checkpoints\n")):
        (folder / name).write_text(text)
    git(folder, "init", "--quiet")
    dvc(folder, "init", "--quiet")
    dvc(folder, "config", "core.autostage", "false")
    with mock.patch.dict(os.environ, environment()):
        dvc(folder, "repro", "--quiet")
    commit(folder, "Run the pipeline")
    return folder


def git(folder: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=Test", "-c", "user.email=test@example.org")
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


def commit(folder: Path, message: str) -> None:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", message)


def clone(origin: Path, folder: Path) -> Path:
    """Return what a newcomer has: what git holds, nothing of DVC's cache."""
    subprocess.run(["git", "clone", "--quiet", origin, folder], check=True)
    return folder


def colleague(origin: Path, folder: Path) -> Path:
    """Return a clone that shares the cache of `origin`: something to push from."""
    clone(origin, folder)
    dvc(folder, "cache", "dir", "--local", str(origin / ".dvc/cache"))
    return folder


def dvc(folder: Path, *arguments: str) -> None:
    """Run a DVC command in a folder."""
    with contextlib.chdir(folder):  # DVC's own --cd stays in the folder when the command is done
        assert dvc_main(list(arguments)) == 0


def add_remote(folder: Path, url: str, **settings: str) -> None:
    """Configure the default remote, as repro/README.md does."""
    dvc(folder, "remote", "add", "--force", "--local", "--default", "store", url)
    for name, value in ({"verify": "true"} | settings).items():
        dvc(folder, "remote", "modify", "--local", "store", name, value)


def pulled(folder: Path, what: Artifacts = Artifacts.ALL, remote: str | None = None) -> int:
    with contextlib.chdir(folder):
        return pull.main(what, remote, QUICKSTART)


def pushed(folder: Path, what: Artifacts = Artifacts.ALL, remote: str | None = None) -> int:
    with contextlib.chdir(folder):
        return push.main(what, remote, QUICKSTART)


def contents(folder: Path) -> dict[str, bytes]:
    """Return the bytes of every file of every output."""
    return {str(path.relative_to(folder)): path.read_bytes() for name in ("features", "sets", "records", "metrics")
            for path in sorted((folder / name).rglob("*")) if path.is_file()}


def objects_in(store: Path) -> dict[str, bytes]:
    """Return the bytes of every object of a store, by its name."""
    folder = store / "files/md5"
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def object_of(store: Path, file: Path) -> Path:
    """Return the object of a store that holds the bytes of a file."""
    content = file.read_bytes()
    found = [path for path in (store / "files/md5").rglob("*") if path.is_file() and path.read_bytes() == content]
    assert len(found) == 1
    return found[0]


def list_object(folder: Path, project: Path) -> Path:
    """Return the object of a store or a cache that lists the files in `features` of a project."""
    oid = re.search(r"path: features\n\s+hash: md5\n\s+md5: (\w+\.dir)", (project / "dvc.lock").read_text())[1]
    return folder / "files/md5" / oid[:2] / oid[2:]


def link_to_another(cached: Path) -> None:
    """Replace an object of a cache by a link to another one; DVC believes in it, for it is read-only."""
    other = cached.parents[1] / "another"
    other.unlink(missing_ok=True)
    other.write_text("another")
    other.chmod(0o444)
    cached.unlink()
    cached.symlink_to(other)
