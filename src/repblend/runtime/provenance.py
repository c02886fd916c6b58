"""Where a number comes from: what decides its bytes (in every record), and the run that made it (`runs.jsonl`).

A record must have the same bytes on every run, so it carries only what decides them. What differs from run to run
(commit, machine, wall time, peak memory) is a line of `runs.jsonl`, which DVC does not track.
"""

import datetime
import importlib.metadata
import json
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from pydantic import ValidationError

from repblend.files import read_text
from repblend.records.base import GpuUse, HubCheckpoint, Machine, Provenance, Run
from repblend.runtime.context import StageContext, Workspace
from repblend.runtime.processes import only_writer
from repblend.runtime.settings import PACKAGE, differences
from repblend.store import SOURCES, fingerprint, repository_of, sha256, write_bytes, write_json

LIBRARIES = ("torch", "numpy", "timm", "transformers", "tokenizers", "safetensors", "pillow")
"""Packages that compute or store numbers."""
REQUIREMENTS = "requirements/lock.txt"
CPU_INFO = Path("/proc/cpuinfo")
IMAGE_DIGEST_VARIABLE = "REPBLEND_IMAGE_DIGEST"
"""Set inside a container to the digest of its image."""
BESIDE_VARIABLE = "REPBLEND_BESIDE"
"""How many stages an engine runs at once on this machine."""
MIXED_VARIABLE = "REPBLEND_MIXED"
"""Set where a user has allowed results of several kinds of hardware in one workspace: these say which they are from."""


def provenance(context: StageContext, inputs: Iterable[Path],
               checkpoints: Mapping[str, HubCheckpoint] | None = None) -> Provenance:
    """Return what decides the bytes of a stage's outputs, but for its source code.

    Args:
        inputs: the files that it reads.
        checkpoints: weights of its encoders that come from a hub, as `checkpoints_used` finds them.
    """
    settings = context.settings
    return Provenance(
        stage=context.stage, cell=settings.cell, command=context.command, seed=settings.seed,
        device=device_name(context), parameters=settings.parameters,
        inputs=_hashes(context, inputs), libraries={name: importlib.metadata.version(name) for name in LIBRARIES},
        requirements_sha256=settings.environment.get(REQUIREMENTS), checkpoints=dict(checkpoints or {}))


def device_name(context: StageContext) -> str:
    """Return `cpu`, or the GPU by name; where kinds of hardware are mixed, the processor's as well."""
    gpu = f"cuda ({_gpu_name()})" if on_gpu(context) else None
    if MIXED_VARIABLE in os.environ:
        return f"{gpu} beside {processor()}" if gpu else f"cpu ({processor()})"
    return gpu or "cpu"


def write_metric(path: Path, values: Mapping[str, float], made: Provenance) -> None:
    """Write flat metrics; where results of several kinds of hardware are mixed, with the one that these are from."""
    write_json(path, {**values, **({"device": made.device} if MIXED_VARIABLE in os.environ else {})})


def work_fingerprint(context: StageContext, inputs: Iterable[Path]) -> str:
    """Identify a stage's work: unfinished work of other settings or inputs (files) must not be resumed."""
    return fingerprint({"settings": context.settings.to_json(), "inputs": _hashes(context, inputs)})


def _hashes(context: StageContext, inputs: Iterable[Path]) -> dict[str, str]:
    return {context.paths.shown(path): sha256(path) for path in inputs}


def on_gpu(context: StageContext) -> bool:
    """Whether a stage computes on a GPU."""
    return context.params.compute.device == "cuda"


def _gpu_name() -> str:
    import torch  # not at the top: who only reads records needs none of it

    return torch.cuda.get_device_name()


# Which source code made an output: the workspace's own, and the same from the stage's start to its end.
#
# DVC hashes sources and parameters only when a stage is over. Without a check here, code edited while a stage ran, or
# the code of another clone that happens to be installed, would be recorded as what made the outputs.


def check_sources_are_the_workspaces(root: Path) -> None:
    """Check that a workspace whose clone has sources is run by these.

    Raises:
        ValueError: `repblend` was imported from elsewhere.
    """
    own = repository_of(root.resolve()) / SOURCES
    if own.is_dir() and own != PACKAGE:
        raise ValueError(f"{own}: this clone has sources of its own, but `repblend` was imported from {PACKAGE}. "
                         "Start the pipeline with `repro run`, or run `make install` here and use its .venv")


def refuse_edits(context: StageContext) -> None:
    """Check, when a stage is over, that nothing it was made of was edited while it ran.

    Raises:
        ValueError: a source or a parameter of the stage is not what it was when `context.settings` was first read.
    """
    if edited := differences(context.settings, context.settings_now()):
        raise ValueError(f"{', '.join(edited)}: edited while stage {context.name} ran, so its outputs may belong to "
                         "neither version. They were not recorded; run the same command again")


# Git, asked in one way by all: nothing that a repository's configuration names is executed, and no other repository
# answers than the clone's own.

GIT = ("git", "--no-pager", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "-c",
       "core.attributesFile=/dev/null", "-c", "protocol.allow=never", "-c", "protocol.file.allow=always")
FILTERS = r"^filter\..*\.(clean|smudge|process|required)$"
REDIRECTIONS = ("GIT_DIR", "GIT_WORK_TREE", "GIT_COMMON_DIR", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY",
                "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_NAMESPACE", "GIT_EXTERNAL_DIFF")
"""Variables that a hook sets for the commands that it runs: of another repository, perhaps."""


def git(root: Path, *arguments: str) -> str:
    """Return what a git command prints in the clone around a folder, without the end of its last line.

    Raises:
        ValueError: git is not installed, or fails; the message has its reason.
    """
    return git_bytes(root, *arguments).decode(errors="replace").rstrip()


def git_bytes(root: Path, *arguments: str) -> bytes:
    """Return what a git command prints, as it is; raises `ValueError` as `git`."""
    environment = {name: value for name, value in os.environ.items() if name not in REDIRECTIONS} | {
        "GIT_CEILING_DIRECTORIES": str(repository_of(root.absolute()).parent), "GIT_OPTIONAL_LOCKS": "0",
        "GIT_TERMINAL_PROMPT": "0", "GIT_NO_LAZY_FETCH": "1", "LC_ALL": "C"}

    def run(*arguments: str, **more: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run([*GIT, "-C", root, *arguments], env=environment | more, capture_output=True, check=False)

    try:
        filters = run("config", "--null", "--name-only", "--get-regexp", FILTERS).stdout.decode().split("\0")[:-1]
        first = int(os.environ.get("GIT_CONFIG_COUNT", 0))
        off = {"GIT_CONFIG_COUNT": str(first + len(filters))}
        for number, name in enumerate(filters, first):
            off |= {f"GIT_CONFIG_KEY_{number}": name,
                    f"GIT_CONFIG_VALUE_{number}": "false" if name.endswith(".required") else ""}
        done = run(*arguments, **off)
    except FileNotFoundError as error:
        raise ValueError("git: no such command. Install git") from error
    if done.returncode:
        said = " ".join(done.stderr.decode(errors="replace").split())
        raise ValueError(f"{root}: git {' '.join(arguments)} failed ({said})")
    return done.stdout


def commit_of(root: Path) -> tuple[str | None, bool | None]:
    """Return the commit of a clone and whether tracked files differ from it: None for what git could not be asked."""
    commit = None
    try:
        commit = git(root, "rev-parse", "HEAD")
        return commit, bool(git(root, "status", "--porcelain", "--untracked-files=no"))
    except ValueError:
        return commit, None


# The run record: a line per stage, that of its last run.


def note_run(context: StageContext, started: datetime.datetime, seconds: float, resumed: bool = False) -> None:
    """Put this run of the stage into the workspace's `runs.jsonl`, in the place of the stage's last one."""
    keep_run(context.paths, _run(context, started, seconds, resumed))


def keep_run(paths: Workspace, run: Run) -> None:
    """Put a run of a stage into a workspace's `runs.jsonl`, in the place of the stage's last one."""
    with only_writer(paths.runs_lock, str(paths.runs)):
        runs = {each.stage: each for each in read_runs(paths.runs)} | {run.stage: run}
        lines = [json.dumps(runs[stage].to_json(), sort_keys=True) + "\n" for stage in sorted(runs)]
        write_bytes(paths.runs, "".join(lines).encode())


def read_runs(path: Path) -> list[Run]:
    """Return the last run of every stage, by name; none if nothing ran.

    Raises:
        ValueError: a line is not as expected; the message names it.
    """
    runs: list[Run] = []
    for number, line in enumerate(read_text(path).splitlines() if path.is_file() else [], start=1):
        try:
            runs.append(Run.model_validate_json(line))
        except ValidationError as error:
            raise ValueError(f"{path}, line {number}: expected the record of a run. Remove the line") from error
    return runs


def _run(context: StageContext, started: datetime.datetime, seconds: float, resumed: bool) -> Run:
    commit, dirty = commit_of(context.paths.root)
    return Run(
        stage=context.name, parameters_sha256=context.settings.parameters_sha256, commit=commit, dirty=dirty,
        image_digest=os.environ.get(IMAGE_DIGEST_VARIABLE), started=started.isoformat(timespec="seconds"),
        wall_seconds=round(seconds, 2), resumed=resumed,
        beside=1 if on_gpu(context) else int(os.environ.get(BESIDE_VARIABLE, "1")),
        peak_memory_mib=round(peak_memory_mib(), 1),
        machine=machine_here(),
        python=platform.python_version(), gpu=_gpu_use() if on_gpu(context) else None)


def _gpu_use() -> GpuUse:
    import torch

    return GpuUse(name=_gpu_name(), cuda=torch.version.cuda,
                  peak_memory_mib=round(torch.cuda.max_memory_allocated() / 2**20, 1))


def peak_memory_mib() -> float:
    """Return the most memory that this process has had: systems count in KiB, macOS in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def machine_here() -> Machine:
    """Return what this process runs on."""
    return Machine(processor=processor(), generation=generation(), cores=os.cpu_count(), system=platform.platform())


def processor(cpu_info: Path = CPU_INFO) -> str:
    """Return the processor's name as the system has it."""
    return _cpu_facts(cpu_info).get("model name", "unknown") if cpu_info.is_file() else platform.processor()


def generation(cpu_info: Path = CPU_INFO) -> str | None:
    """Return what tells processors of one name apart, `family 25, model 17`; None where the system does not say."""
    facts = _cpu_facts(cpu_info) if cpu_info.is_file() else {}
    return f"family {facts['cpu family']}, model {facts['model']}" if {"cpu family", "model"} <= facts.keys() else None


def _cpu_facts(cpu_info: Path) -> dict[str, str]:
    """What the system says of the first processor."""
    first, _, _ = cpu_info.read_text().partition("\n\n")
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}
