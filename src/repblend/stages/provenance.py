"""Where a number comes from: what decides its bytes (in the metrics), and the run that made it (beside them).

A metrics file must have the same bytes on every run, so it carries only what decides them. What differs from run to run
(commit, machine, wall time, peak memory) goes into `metrics/runs/`, which DVC does not track.
"""

import datetime
import importlib.metadata
import os
import platform
import resource
import subprocess
from collections.abc import Iterable
from pathlib import Path

from repblend.stages.context import StageContext
from repblend.store import JSON, sha256

LIBRARIES = ("torch", "numpy", "timm", "transformers", "tokenizers", "safetensors", "pillow")
"""Packages that compute or store numbers."""
LOCK = Path("requirements/lock.txt")
IMAGE_DIGEST_VARIABLE = "REPBLEND_IMAGE_DIGEST"
"""Set inside a container to the digest of its image."""


def provenance(context: StageContext, sections: Iterable[str], inputs: Iterable[Path]) -> JSON:
    """Return everything that decides the bytes of a stage's outputs, but for its source code.

    Args:
        sections: parameter sections that the stage uses.
        inputs: the files that it reads.
    """
    lock, params = context.paths.repository / LOCK, context.params
    return {
        "stage": context.stage,
        "cell": str(context.cell) if context.cell else None,
        "seed": params.seed,
        "threads": params.compute.threads,
        "device": f"cuda ({_gpu_name()})" if on_gpu(context) else "cpu",
        "parameters": context.parameters(sections),
        "inputs": {context.paths.shown(path): sha256(path) for path in inputs},
        "libraries": {name: importlib.metadata.version(name) for name in LIBRARIES},
        "requirements_sha256": sha256(lock) if lock.is_file() else None,
        "command": context.command,
        "run": context.paths.shown(context.paths.run_record(context)),
    }


def run_record(context: StageContext, started: datetime.datetime, seconds: float) -> JSON:
    """Return what was particular to this run of the stage."""
    root = context.paths.root
    return {
        "stage": context.name,
        "commit": _git(root, "rev-parse", "HEAD"),
        "dirty": bool(_git(root, "status", "--porcelain", "--untracked-files=no")),
        "image_digest": os.environ.get(IMAGE_DIGEST_VARIABLE),
        "started": started.isoformat(timespec="seconds"),
        "wall_seconds": round(seconds, 2),
        "peak_memory_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "machine": {"processor": processor(), "cores": os.cpu_count(), "system": platform.platform()},
        "python": platform.python_version(),
    } | (_gpu_record() if on_gpu(context) else {})


def on_gpu(context: StageContext) -> bool:
    """Whether a stage computes on a GPU."""
    return context.params.compute.device == "cuda"


def _gpu_name() -> str:
    import torch  # not at the top: who only reads records needs none of it

    return torch.cuda.get_device_name()


def _gpu_record() -> JSON:
    import torch

    return {"gpu": {"name": _gpu_name(), "cuda": torch.version.cuda,
                    "peak_memory_mib": round(torch.cuda.max_memory_allocated() / 2**20, 1)}}


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", root, *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):  # no git here, or not a clone: the record says null
        return None
    return done.stdout.strip()


def processor() -> str:
    """Return the processor's name as the system has it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
