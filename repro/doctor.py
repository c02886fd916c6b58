"""`repro doctor`: is this machine fit, is this workspace whole? Every finding says how to mend it."""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from repblend.params import read_params
from repro.engine import NoEngine, connect
from repro.workspace import environment, find_root, python

NEEDED_DISK_GIB = 2.0
NEEDED_MEMORY_GIB = 4.0
PYTHON = (3, 11)
GIB = 1024**3


@dataclass(frozen=True)
class Finding:
    """The outcome of one check."""

    name: str
    status: str
    """`ok`, `note` (works without it) or `mend`."""
    detail: str

    def __str__(self) -> str:
        return f"{self.status:<5} {self.name}: {self.detail}"


def main() -> int:
    """Run every check; return 1 if something has to be mended."""
    try:
        root = find_root()
    except ValueError as error:
        print(f"repro doctor: {error}", file=sys.stderr)
        return 1
    findings = [check(root) for check in CHECKS]
    for finding in findings:
        print(finding)
    broken = [finding.name for finding in findings if finding.status == "mend"]
    print("To mend: " + ", ".join(broken) if broken else "Ready: `repro run`")
    return 1 if broken else 0


def check_python(root: Path) -> Finding:
    found = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] == PYTHON:
        return Finding("python", "ok", found)
    return Finding("python", "mend", f"{found}, but requirements/lock.txt is for 3.11; use `make PYTHON=python3.11`")


def check_packages(root: Path) -> Finding:
    locked = dict(re.findall(r"^([A-Za-z0-9_.-]+)==([^\s\\;]+)", (root / "requirements/lock.txt").read_text(), re.M))
    wrong = [f"{name} {version} (found {_version(name) or 'none'})" for name, version in locked.items()
             if _version(name) != version]
    if not wrong:
        return Finding("packages", "ok", f"all {len(locked)} are the locked ones")
    return Finding("packages", "mend", f"{len(wrong)} of {len(locked)} are not the locked ones: "
                   f"{', '.join(wrong[:5])}; run `make install`")


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def check_parameters(root: Path) -> Finding:
    try:
        params = read_params(root / "params.yaml")
    except ValueError as error:
        return Finding("parameters", "mend", str(error))
    return Finding("parameters", "ok", f"dataset {params.data.name}, budgets {params.grid.budgets}")


def check_torch(root: Path) -> Finding:
    """In a process of its own: this one stays light."""
    code = "import torch; print(torch.__version__, 'cuda' if torch.cuda.is_available() else 'cpu')"
    done = subprocess.run(python("-c", code), capture_output=True, text=True, env=environment(), check=False)
    if done.returncode:
        return Finding("torch", "mend", f"cannot be imported ({done.stderr.strip().splitlines()[-1]}); "
                       "run `make install`")
    return Finding("torch", "ok", done.stdout.strip())


def check_disk(root: Path) -> Finding:
    free = shutil.disk_usage(root).free / GIB
    if free >= NEEDED_DISK_GIB:
        return Finding("disk", "ok", f"{free:.1f} GiB free")
    return Finding("disk", "mend", f"{free:.1f} GiB free, expected {NEEDED_DISK_GIB:.0f}; free some space")


def check_memory(root: Path) -> Finding:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    if total >= NEEDED_MEMORY_GIB:
        return Finding("memory", "ok", f"{total:.1f} GiB")
    return Finding("memory", "note", f"{total:.1f} GiB, the default pipeline was measured to need less than "
                   f"{NEEDED_MEMORY_GIB:.0f}; set distill.common.encoder_graph to 'recompute' if it does not fit")


def check_git(root: Path) -> Finding:
    done = subprocess.run(["git", "-C", root, "status", "--porcelain"], capture_output=True, text=True, check=False)
    if done.returncode:
        return Finding("git", "note", "not a git clone: run records name no commit, `repro verify` does not work")
    changes = len(done.stdout.splitlines())
    return Finding("git", "ok", "clean" if not changes else f"{changes} uncommitted changes")


def check_docker(root: Path) -> Finding:
    try:
        return Finding("docker", "ok", f"engine {connect().version()['Version']}")
    except NoEngine as error:
        return Finding("docker", "note", str(error))


CHECKS: tuple[Callable[[Path], Finding], ...] = (
    check_python, check_packages, check_torch, check_parameters, check_disk, check_memory, check_git, check_docker)
