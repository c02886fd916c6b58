"""The clone and its workspaces: where they are, who may write to them, and how commands run in them.

A workspace is a folder with `params.yaml` and `dvc.yaml`: the clone's own folder, or that of a profile inside of it.
"""

import configparser
import contextlib
import json
import os
import shutil
import stat
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from repblend.encoders.hub import HUB
from repblend.runtime.locked import PLACES
from repblend.runtime.processes import only_writer
from repblend.store import refuse_links, repository_of
from repro import QUICKSTART

MARKER = "dvc.yaml"
MOUNT = PurePosixPath("/workspace")
"""Where every workspace is mounted in its containers: outputs must not depend on where it lies on the host."""
LOCK = Path("checkpoints/locks/workspace.lock")
"""In the clone. Held by the process that runs a pipeline, on the host, for as long as it runs: in a container as well.
There is one for all workspaces: they share DVC's cache."""
INSIDE, PROFILES = Path(".dvc/inside"), Path("profiles")
"""What containers have in the place of the clone, while a run lasts; and where all workspaces but the clone lie."""
RWLOCK = Path(".dvc/tmp/rwlock")
"""DVC's own list of the processes that read and write outputs."""


def find_root() -> Path:
    """Return the clone's folder: the nearest one upwards that holds dvc.yaml, or the clone around that.

    Raises:
        ValueError: there is none.
    """
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / MARKER).is_file():
            return repository_of(folder)
    raise ValueError(f"{here}: neither this folder nor one above has a {MARKER}. Run this in a clone of the repository")


@contextlib.contextmanager
def only_run(*workspaces: Path) -> Iterator[None]:
    """Hold the lock of a clone while the body runs in workspaces of it, and begin without what a killed run left: of
    DVC's own, and outputs in the place of a container's clone.

    Raises:
        ValueError: another run holds it, and the message says which; or what is going to be written is a link.
    """
    root = repository_of(workspaces[0])
    with only_writer(root / LOCK, f"workspace {root}", wait_seconds=3.0):
        for left in refuse_links(root / INSIDE).glob("*"):
            print_refused(take_back(root if left.name == QUICKSTART else root / PROFILES / left.name))
        forget_killed(root)
        for workspace in workspaces:
            for path in (*WRITTEN, *HOST_ONLY):
                refuse_links(workspace / path)
        yield


def forget_killed(root: Path) -> None:
    """Remove DVC's list of readers and writers if a DVC that was killed while it wrote that left half of it. The caller
    holds the clone's lock.
    """
    path = root / RWLOCK
    try:
        json.loads(path.read_text())
    except FileNotFoundError:
        return
    except ValueError:
        path.unlink()


# What stages write. A container has a folder of its own in the place of the clone: `.dvc/inside/NAME`. While it runs,
# what is written lies there: outputs, checkpoints and logs were moved (no byte is copied), and all else of the clone is
# mounted over it, read-only (`repro.engines.spec`). So whatever a stage does, no other name of the clone is touched.
# Afterwards the declared names come back, if they are plain files and folders, and what else is there is removed.

CHECKPOINTS, LOCKS = Path("checkpoints"), "locks"
COPIED = (Path("dvc.lock"), Path("runs.jsonl"))
"""Small, and in git: a copy is lent, so that git does not miss them meanwhile."""
WRITTEN = (*map(Path, PLACES), *COPIED, CHECKPOINTS, Path("logs"))
"""Of a workspace, what its stages may write; none is inside of another."""
HOST_ONLY = (CHECKPOINTS / LOCKS, *map(Path, ("container.json", "verification.json", "paper/run.html")))
"""What `repro` itself writes beside."""


def inside_of(workspace: Path) -> Path:
    """Return the folder that a container of a workspace has in the place of the clone, while a run lasts."""
    root = repository_of(workspace)
    return root / INSIDE / (QUICKSTART if workspace == root else workspace.name)


def lend(workspace: Path) -> None:
    """Move what a workspace's stages write to where a container finds it.

    Raises:
        ValueError: some of it lies on another disk, or the workspace belongs to another user. Nothing was moved.
    """
    root, owner = repository_of(workspace), workspace.stat()
    if owner.st_uid != os.getuid() and not owner.st_mode & (0o020 if owner.st_gid == os.getgid() else 0o002):
        raise ValueError(f"The workspace belongs to user {owner.st_uid}:{owner.st_gid}; a container runs as user "
                         f"{os.getuid()}:{os.getgid()}, without privileges, and cannot write there. Start `repro` as "
                         f"the owner, or give the folder away: chown -R {os.getuid()}:{os.getgid()} FOLDER")
    work = refuse_links(inside_of(workspace)) / workspace.relative_to(root)
    names = [*_present(workspace, WRITTEN)]
    for name in names:
        if (workspace / name).lstat().st_dev != (root / ".dvc").stat().st_dev:
            raise ValueError(f"{workspace / name}: lies on another disk than the clone, where no container can write. "
                             "Put the whole clone on the larger disk, or DVC's cache (`dvc cache dir --local PATH`)")
    work.mkdir(parents=True)
    for name in names:
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        source = workspace / name
        if name in COPIED:
            source = Path(shutil.copy2(source, work / f".{name}.partial"))
        source.rename(work / name)


def take_back(workspace: Path) -> list[Path]:
    """Move back to a workspace what its stages may write, and remove the rest of what a container left; return what was
    refused, and is lost: links, special files, programs that would run as somebody else. No container runs any more.

    Raises:
        OSError: a file cannot be moved. Nothing is lost: the next run tries again.
    """
    root, inside, refused = repository_of(workspace), refuse_links(inside_of(workspace)), []
    work = inside / workspace.relative_to(root)
    for path in WRITTEN:
        for folder in reversed((work / path).parents):  # folders of a container's own, in which outputs lie
            if folder.is_relative_to(inside) and folder.is_symlink():
                refused.append(folder)
                folder.unlink()
    for name in _present(work, WRITTEN):
        target = refuse_links(workspace / name)
        if strange := _strange(work / name):
            refused.append(strange)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_dir() or (work / name).is_dir():
            _remove(target)
        (work / name).rename(target)
    cache = cache_of(root).resolve()
    while cache.exists() and (strange := _strange(cache)):
        refused.append(strange)
        _remove(strange)
    for folder, names, _ in os.walk(inside):  # so that folders which a stage has closed can be removed
        for name in names:
            if not Path(folder, name).is_symlink():
                Path(folder, name).chmod(0o700)
    _remove(inside)
    return refused


def print_refused(refused: Sequence[Path]) -> None:
    """Say what was not taken over."""
    for path in refused:
        print(f"{path}: written by a stage in a container, and not taken over: neither a plain file nor a folder of "
              "such. What it belongs to is made again by the next run", file=sys.stderr)


def _present(folder: Path, paths: Iterable[Path]) -> Iterator[Path]:
    """Yield those of the paths that are in a folder; in the place of `checkpoints` what is in it, but for the locks."""
    for path in paths:
        if path == CHECKPOINTS and not (folder / path).is_symlink():
            yield from (path / each.name for each in (folder / path).glob("*") if each.name != LOCKS)
        elif os.path.lexists(folder / path):
            yield path


def _strange(path: Path) -> Path | None:
    """Return the first of a file, or of all that is in a folder, that no stage has reason to write."""
    waiting = [path]
    while waiting:
        mode = (path := waiting.pop()).lstat().st_mode
        if stat.S_ISDIR(mode) and mode & stat.S_IRWXU == stat.S_IRWXU:
            waiting += path.iterdir()
        elif not stat.S_ISREG(mode) or mode & (stat.S_ISUID | stat.S_ISGID):
            return path
    return None


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def dvc_setting(root: Path, name: str, default: str) -> str:
    """Return a setting of section `cache` of a clone's DVC configuration as written there.

    Raises:
        ValueError: the configuration is not of the form that DVC writes.
    """
    config = configparser.ConfigParser(interpolation=None)
    try:
        config.read([root / ".dvc" / "config", root / ".dvc" / "config.local"], "utf-8")
    except (configparser.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{root / '.dvc'}: expected DVC's configuration ({' '.join(str(error).split())}). Mend it, "
                         "or write it anew with `dvc config`") from error
    return config.get("cache", name, fallback=default)


def cache_of(root: Path) -> Path:
    """Return the folder of DVC's cache: a relative one starts at `.dvc`. Raises `ValueError` as `dvc_setting`."""
    return Path(os.path.normpath(root / ".dvc" / dvc_setting(root, "dir", "cache")))


# How commands run.


def named_stages(workspace: Path, stages: Iterable[str], names: Iterable[str]) -> list[str]:
    """Return the stages that names stand for, all if there are none: `distill` is every `distill@METHOD-BUDGET`.

    Raises:
        ValueError: a name is no stage's.
    """
    kinds: dict[str, list[str]] = {}
    for stage in stages:
        kinds.setdefault(stage.partition("@")[0], []).append(stage)
    known = kinds | {stage: [stage] for several in kinds.values() for stage in several}
    names = list(names)
    if unknown := set(names) - set(known):
        raise ValueError(f"{workspace / MARKER}: it has no stage {', '.join(sorted(unknown))}; expected some of "
                         f"{', '.join(kinds)}, or single ones, as {max(known, key=len)}")
    return list(dict.fromkeys(stage for name in names or kinds for stage in known[name]))


def environment() -> Mapping[str, str]:
    """Return the environment for stages: this Python first on the path, and no model hub."""
    binaries = str(Path(sys.executable).parent)
    return os.environ | {"PATH": os.pathsep.join([binaries, os.environ.get("PATH", "")]), "HF_HUB_OFFLINE": "1"}


def workspace_environment(workspace: Path) -> Mapping[str, str]:
    """Return `environment()` with the sources of a workspace's clone first, wherever this process's own come from."""
    base, root = environment(), repository_of(workspace)
    sources = [str(root / "src"), str(root), *filter(None, [base.get("PYTHONPATH")])]
    return {**base, "PYTHONPATH": os.pathsep.join(sources)}


def dvc(*arguments: str) -> list[str]:
    """Return a command line that runs DVC with this Python, and stops it when this process is gone."""
    return [sys.executable, "-m", "repro.guarded_dvc", *arguments]


# Folders and files of a clone that neither git nor a pipeline makes: a user's data, and the hub's checkpoints.
# Containers and clean checkouts have to see them too, wherever they lie.


def missing(root: Path, files: Iterable[Path]) -> list[Path]:
    """Return those of the files, relative to the clone at `root` or absolute, that are not there."""
    return [root / file for file in files if not (root / file).exists()]


def inputs_of(root: Path, folders: Iterable[Path]) -> dict[Path, Path]:
    """Return where stages look for what a user brings (relative to the clone, or absolute) -> where that lies.

    Raises:
        ValueError: a relative path leads out of the clone, or the folder of the hub's checkpoints is a link, which no
            user has asked for.
    """
    refuse_links(root / HUB)
    for folder in folders:
        if not Path(os.path.normpath(root / folder)).is_relative_to(root) and not folder.is_absolute():
            raise ValueError(f"{folder}: leads out of the clone, where a container sees nothing. Write in params.yaml "
                             f"{(root / folder).resolve()}")
    return {folder: (root / folder).resolve() for folder in (HUB, *folders) if (root / folder).exists()}
