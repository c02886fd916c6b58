"""`repro doctor`: is this machine fit, and is this clone whole? Every finding says how to mend it.

A check finds out what it says, by doing what the next command would: it asks git, lets DVC open the clone, composes the
parameters, and waits for an engine. One that could not be made is a finding, too.
"""

import importlib.metadata
import locale
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from repblend.params import read_params
from repblend.params.reading import read_yaml
from repblend.runtime.processes import only_writer
from repblend.runtime.provenance import git
from repblend.store import refuse_links
from repro import QUICKSTART
from repro.workspace import HOST_ONLY, INSIDE, LOCK, MARKER, WRITTEN, cache_of, environment, find_root, inputs_of

NEEDED_DISK_GIB, NEEDED_TMP_GIB, NEEDED_MEMORY_GIB = 2.0, 0.25, 4.0
NEEDED_INODES = 10_000
PYTHONS, GIT = ((3, 11), (3, 12), (3, 13)), (2, 31)
"""Of git, the first that takes settings from variables: filters are switched off by these."""
GIB = 1024**3
CGROUP = Path("/sys/fs/cgroup/memory.max")
DAY_S = 86_400
Subject = TypeVar("Subject")


@dataclass(frozen=True)
class Finding:
    """The outcome of one check."""

    name: str
    status: str
    """`ok`, `note` (the pipeline works without it) or `mend`."""
    detail: str

    def __str__(self) -> str:
        return f"{self.status:<5} {self.name}: {self.detail}"


def main() -> int:
    """Run every check; return 1 if something has to be mended."""
    try:
        root = find_root()
    except (ValueError, OSError) as error:
        print(f"repro doctor: {error}", file=sys.stderr)
        return 1
    findings = [found_by(check, root) for check in CHECKS]
    for finding in findings:
        print(finding)
    broken = [finding.name for finding in findings if finding.status == "mend"]
    print("To mend: " + ", ".join(broken) if broken else "Ready: `repro run`")
    return 1 if broken else 0


def found_by(check: Callable[[Subject], Finding], subject: Subject) -> Finding:
    """Return a check's finding, or what kept it from finding anything out: whatever a library raises.

    Args:
        subject: what is looked at: a clone, or a node of a cluster (`repro.cluster.check`).
    """
    name = getattr(check, "__name__", "check").removeprefix("check_")
    try:
        return check(subject)
    except ValueError as error:  # says itself what to do
        return Finding(name, "mend", " ".join(str(error).split()))
    except Exception as error:
        return Finding(name, "mend", f"could not be found out ({type(error).__name__}: {error}). Mend what that names, "
                       "or bring the file back with `git checkout`, and run this again")


def check_python(root: Path) -> Finding:
    found = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] == PYTHONS[0]:
        return Finding("python", "ok", found)
    if sys.version_info[:2] in PYTHONS:
        return Finding("python", "note", f"{found}; results were recorded with 3.11, and other bytes may come out")
    return Finding("python", "mend", f"{found}, but requirements/lock.txt is for 3.11 to 3.13; use `make "
                   "PYTHON=python3.11`")


def check_packages(root: Path) -> Finding:
    from packaging.markers import Marker  # of one command alone
    from packaging.version import Version

    text = (root / "requirements/lock.txt").read_text()
    lines = re.findall(r"^([A-Za-z0-9_.-]+)==([^\s\\;]+)(?: ; ([^\\\n]+))?", text, re.M)
    locked = {name: version for name, version, marker in lines if not marker or Marker(marker.strip()).evaluate()}
    wrong = [f"{name} {version} (found {_version(name) or 'none'})" for name, version in locked.items()
             if not (found := _version(name)) or Version(found) != Version(version)]  # 1.002 is 1.2
    if not wrong:
        return Finding("packages", "ok", f"all {len(locked)} are the locked ones")
    return Finding("packages", "mend", f"{len(wrong)} of {len(locked)} are not the locked ones: "
                   f"{', '.join(wrong[:5])}; run `make install`")


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def check_torch(root: Path) -> Finding:
    """Import torch in a process of its own: `repro` never does."""
    code = "import torch; print(torch.__version__, 'cuda' if torch.cuda.is_available() else 'cpu')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=False)
    if done.returncode:
        return Finding("torch", "mend", f"cannot be imported ({done.stderr.strip().splitlines()[-1]}); "
                       "run `make install`")
    if read_params(root / "params.yaml").compute.device == "cuda" and not done.stdout.endswith("cuda\n"):
        return Finding("torch", "mend", f"{done.stdout.strip()}: finds no GPU, but compute.device in params.yaml is "
                       "'cuda'; look at `nvidia-smi`, or set it to 'cpu'")
    return Finding("torch", "ok", done.stdout.strip())


def check_parameters(root: Path) -> Finding:
    params = read_params(root / "params.yaml")
    return Finding("parameters", "ok", f"dataset {params.data.name}, budgets {params.grid.budgets}")


def check_pipeline(root: Path) -> Finding:
    """Do what a run does before its first stage, but for writing: compose, make the pipeline, look for the inputs."""
    from repro.profiles import Profile, compose, pipeline_text  # slow to import
    from repro.run import absent_inputs

    profile = Profile(QUICKSTART, compose(root, QUICKSTART)[0], root)
    pipeline_text(root, profile)
    inputs_of(root, profile.brought().folders)
    if absent := absent_inputs(profile):
        return Finding("pipeline", "mend", absent)
    return Finding("pipeline", "ok", f"{len(read_yaml(root / MARKER)['stages'])} stages, every input is here")


def check_dvc(root: Path) -> Finding:
    """Let DVC open the clone: its configuration, dvc.yaml and dvc.lock."""
    from repro.artifacts.remote import dvc_repository  # slow to import

    for name in (".dvc/config", "dvc.lock"):
        text = (root / name).read_text("utf-8") if (root / name).exists() or name != "dvc.lock" else "\n"
        if re.search("^(<<<<<<<|=======|>>>>>>>)", text, re.M):
            return Finding("dvc", "mend", f"{name} has conflict markers of a merge; take one side (git checkout --ours "
                           f"{name}, or --theirs) and commit it, then `repro run`")
        if not text.endswith("\n"):
            return Finding("dvc", "mend", f"{name} is cut off: no line end after its last line; git checkout {name}")
    try:
        with dvc_repository(root) as repo:
            outs = [out for stage in repo.index.stages for out in stage.outs]
            known, remotes = sum(bool(out.hash_info) for out in outs), repo.config["remote"]
            default = repo.config["core"].get("remote")
    except ValueError as error:
        raise ValueError(f"{error}. In a source archive, git init; else git checkout .dvc/config {MARKER} dvc.lock, or "
                         "mend what is named there") from error
    if default not in remotes:
        return Finding("dvc", "mend", f".dvc/config: the default remote is {default}, expected one of the remotes that "
                       f"it has ({', '.join(remotes) or 'none'}); git checkout .dvc/config, or dvc remote default NAME")
    return Finding("dvc", "ok", f"opens the clone; dvc.lock knows {known} of its {len(outs)} outputs")


GIT_REMEDIES = {
    "no such command": "",
    "dubious ownership": ": git config --global --add safe.directory {root}",
    "not a git repository": ": clone the repository, or, in a source archive, git init && git add --all && git commit",
    "ambiguous argument 'HEAD'": ": commit once",
    "": ": look what git says there, or clone the repository again"}
"""What git says -> how to mend it."""


def check_git(root: Path) -> Finding:
    try:
        version = git(root, "--version")
        if tuple(map(int, re.findall(r"\d+", version)[:2])) < GIT:
            return Finding("git", "mend", f"{version}, expected 2.31 or later; install that")
        changes, commit = len(git(root, "status", "--porcelain").splitlines()), git(root, "rev-parse", "HEAD")[:7]
    except ValueError as error:
        remedy = next(remedy for sign, remedy in GIT_REMEDIES.items() if sign in str(error))
        return Finding("git", "mend", f"{error}{remedy.format(root=root)}. Until then records of runs name no commit, "
                       "and `repro verify` cannot work")
    return Finding("git", "ok", f"commit {commit}, " + (f"{changes} uncommitted changes" if changes else "clean"))


def check_folder(root: Path) -> Finding:
    """Who owns the clone, and whether what a run writes are plain files and folders of it."""
    for path in (*WRITTEN, *HOST_ONLY, INSIDE):
        refuse_links(root / path)
    wrong = [f"{path} belongs to user {path.stat().st_uid}" for path in (root, root / ".dvc", root / "checkpoints")
             if path.exists() and path.stat().st_uid != os.getuid()]
    wrong += [f"{path} cannot be written" for path in (root, root / ".dvc", cache_of(root))
              if path.exists() and not os.access(path, os.W_OK)]
    if wrong:
        return Finding("folder", "mend", f"{', '.join(wrong)}; run this as the owner, or, as root: chown -R "
                       f"{os.getuid()}:{os.getgid()} {root}")
    if left := [path.name for path in (root / INSIDE).glob("*")]:
        return Finding("folder", "note", f"a run in a container has lent the outputs of {', '.join(left)} to "
                       f"{INSIDE}; if none is running, it was killed, and the next run takes them back")
    return Finding("folder", "ok", f"{root}, of user {os.getuid()}; outputs are no links")


def check_encoding(root: Path) -> Finding:
    wrong = [f"{what} {found}" for what, found in (("files", locale.getpreferredencoding(False)),
                                                   ("file names", sys.getfilesystemencoding()))
             if found.lower().replace("-", "") != "utf8"]
    if wrong:
        return Finding("encoding", "mend", f"{' and '.join(wrong)}, expected UTF-8; export LANG=C.UTF-8 PYTHONUTF8=1")
    return Finding("encoding", "ok", "UTF-8")


def check_disk(root: Path) -> Finding:
    found, wrong = [], []
    for what, folder, needed in (("clone", root, NEEDED_DISK_GIB), ("cache", cache_of(root), NEEDED_DISK_GIB),
                                 ("temporary files", Path(tempfile.gettempdir()), NEEDED_TMP_GIB)):
        place = next(each for each in (folder, *folder.parents) if each.exists())
        free, inodes = shutil.disk_usage(place).free / GIB, os.statvfs(place)
        found.append(f"{what} {free:.1f} GiB free")
        if free < needed or (inodes.f_files and inodes.f_favail < NEEDED_INODES):
            wrong.append(f"{what} ({place}): {free:.1f} GiB and {inodes.f_favail} files free, expected {needed:g} GiB "
                         f"and {NEEDED_INODES}")
    if wrong:
        return Finding("disk", "mend", f"{'; '.join(wrong)}; free some space, or name another folder (`dvc cache dir "
                       "--local PATH`, TMPDIR)")
    return Finding("disk", "ok", ", ".join(found))


def check_memory(root: Path) -> Finding:
    import psutil

    limits = re.findall(r"\d+", CGROUP.read_text()) if CGROUP.is_file() else []  # or the word "max"
    total = min(psutil.virtual_memory().total, *map(int, limits), 2**62) / GIB
    if total >= NEEDED_MEMORY_GIB:
        return Finding("memory", "ok", f"{total:.1f} GiB")
    return Finding("memory", "note", f"{total:.1f} GiB, the default pipeline was measured to need less than "
                   f"{NEEDED_MEMORY_GIB:.0f}; set distill.common.encoder_graph to 'recompute' if it does not fit")


GPU_DEVICES = ("/dev/nvidiactl", "/dev/dxg")
"""What NVIDIA's driver brings, on Linux itself and below Windows."""


def check_gpu(device: str) -> Finding:
    """Whether there is the GPU that a run asks for; without torch, which takes seconds to tell."""
    if device != "cuda" or any(Path(path).exists() for path in GPU_DEVICES):
        return Finding("gpu", "ok", "there is one" if device == "cuda" else "not needed (compute.device is 'cpu')")
    return Finding("gpu", "mend", "compute.device in params.yaml is 'cuda', but this machine has no NVIDIA GPU or no "
                   "driver (look at `nvidia-smi`). Set it to 'cpu', or run where there is one")


def shortages(root: Path) -> list[str]:
    """Return what a run on this machine may lack, a line each: said before anything starts."""
    return [f"{finding.name}: {finding.detail}" for check in (check_disk, check_memory)
            if (finding := found_by(check, root)).status != "ok"]


def check_clock(root: Path) -> Finding:
    """The clock must not stand before what was done already: DVC and certificates are judged by times."""
    latest = max((root / name).stat().st_mtime for name in ("params.yaml", MARKER, "requirements/lock.txt"))
    if (now := time.time()) < latest - DAY_S:
        return Finding("clock", "mend", f"it says {time.ctime(now)}, but files of the clone are of "
                       f"{time.ctime(latest)}; set it (`timedatectl set-ntp true`), or `touch` the files")
    return Finding("clock", "ok", time.strftime("%Y-%m-%d %H:%M:%S %z"))


def check_engine(root: Path) -> Finding:
    from repro.engines.client import NoEngine, connect  # slow to import

    try:
        client = connect()
    except NoEngine as error:
        return Finding("engine", "note", f"{error}. `repro run` works on this machine itself")
    from repro.engines.base import Gpus, Request
    from repro.engines.spec import device_requests
    from repro.image.contents import check_contents, image_name

    info, name = client.info(), image_name(root)
    if read_params(root / "params.yaml").compute.device == "cuda":
        device_requests(Request(gpus=Gpus.ALL), info)
    if not client.images.list(name):
        return Finding("engine", "note", f"docker {info['ServerVersion']} has no image {name} yet: the first run "
                       "builds it (7 GB), and works without if that fails")
    check_contents(root, client, name)
    return Finding("engine", "ok", f"docker {info['ServerVersion']}, image {name}")


def check_lock(root: Path) -> Finding:
    with only_writer(root / LOCK, f"workspace {root}", wait_seconds=0.0):
        return Finding("lock", "ok", "no other run writes here")


CHECKS: tuple[Callable[[Path], Finding], ...] = (
    check_python, check_packages, check_torch, check_parameters, check_pipeline, check_git, check_dvc, check_folder,
    check_encoding, check_disk, check_memory, check_clock, check_engine, check_lock)
