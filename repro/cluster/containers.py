"""Jobs in containers: Apptainer's, on clusters, or the Docker engine's of a node, with the job's GPU alone.

A container sees the job's private checkout as `/workspace`, the shared cache at its own path, and unfinished work,
locks and logs of the shared workspace. Its image has to be made of what docker/contents.json says. Docker cuts off the
network, caps memory and drops privileges as for any other run (`repro.engines.spec`); Apptainer runs as the caller,
with the network of the node.
"""

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from repblend.store import sha256
from repro.cluster.node import Task
from repro.engines.base import Engine, Gpus, Request
from repro.engines.local import run_stoppable
from repro.engines.spec import DVC, MOUNT, NO_NETWORK, environment
from repro.image.contents import CONTENTS, CONTENTS_IN_IMAGE, compare_contents
from repro.workspace import cache_of, only_run

SHARED = ("checkpoints", "logs")
"""Folders of a workspace that all its jobs write to."""


def run_in_apptainer(task: Task, workspace: Path, arguments: Sequence[str], inputs: Mapping[Path, Path]) -> int:
    """Run DVC with these arguments in an Apptainer container; return its exit code.

    Args:
        workspace: in the job's private checkout.
        inputs: what the user brings: where stages look for it -> where it lies.

    Raises:
        ValueError: there is no Apptainer or no image, or the image is made of something else.
    """
    expected = task.checkout / CONTENTS
    check_contents(str(task.image), expected)
    for name in SHARED:
        (task.shared / name).mkdir(parents=True, exist_ok=True)
        (workspace / name).mkdir(parents=True, exist_ok=True)
    return run_stoppable(apptainer_command(task, sha256(expected), arguments, inputs), workspace)


def check_contents(image: str, expected: Path) -> None:
    """Check that this node can run an image, and that it is made of what a file says; raises `ValueError` if not."""
    try:
        said = subprocess.run(["apptainer", "exec", "--containall", image, "cat", CONTENTS_IN_IMAGE],
                              capture_output=True, check=False)
    except FileNotFoundError as error:
        raise ValueError("apptainer: no such command on this node. Name the module that has it in `setup` of "
                         "cluster.yaml, or leave `image` out") from error
    if said.returncode:
        words = " ".join(said.stderr.decode("utf-8", "replace").split())
        raise ValueError(f"{image}: expected {CONTENTS_IN_IMAGE} in it ({words}). Make it of `repro image export`, and "
                         "put it where every node sees it")
    compare_contents(expected, image, said.stdout)


def apptainer_command(task: Task, contents: str, arguments: Sequence[str], inputs: Mapping[Path, Path]) -> list[str]:
    """Return the command that runs DVC in a container.

    Args:
        contents: SHA-256 of what the image says of itself, for the run's record.
    """
    inside, cache = MOUNT / task.workspace, cache_of(Path(task.root)).resolve()
    binds = [f"{task.checkout}:{MOUNT}", f"{cache}:{cache}",
             *(f"{task.shared / name}:{inside / name}" for name in SHARED),
             *(f"{source}:{MOUNT / place}:ro" for place, source in inputs.items())]
    variables = environment(f"contents {contents}", NO_NETWORK)
    if (gpus := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        variables["CUDA_VISIBLE_DEVICES"] = gpus
    return ["apptainer", "exec", "--containall", *(["--nv"] if task.on_gpu else []), "--pwd", str(inside),
            *(word for bind in binds for word in ("--bind", bind)),
            *(word for name, value in variables.items() for word in ("--env", f"{name}={value}")),
            str(task.image), *DVC, *arguments]


def run_in_docker(task: Task, workspace: Path, arguments: Sequence[str], inputs: Mapping[Path, Path]) -> int:
    """Run DVC with these arguments in a container of this node's Docker engine; return its exit code.

    Raises:
        ValueError: no engine answers, it has no such image, or no GPU to give.
    """
    from repro.engines.client import connect
    from repro.engines.container import open_runner

    for name in SHARED:
        (task.shared / name).mkdir(parents=True, exist_ok=True)
    with only_run(workspace):
        runner = open_runner(connect(), task.checkout, docker_request(task))
        return runner.run_job(workspace, tuple(arguments), inputs, {Path(name): task.shared / name for name in SHARED})


def docker_request(task: Task) -> Request:
    """Return what a job's container is to get: the GPUs that the job was given, and no other."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    if not task.on_gpu:
        return Request(Engine.DOCKER, Gpus.NONE)
    return Request(Engine.DOCKER, Gpus.ALL, device_ids=tuple(filter(None, visible.split(","))))
