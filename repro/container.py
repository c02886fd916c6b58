"""Running in containers: DVC commands in the workspace's image, fetching with a network and computing without one."""

import datetime
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker
from docker.errors import ImageNotFound
from docker.models.images import Image

from repblend.store import JSON
from repro.container_client import identity, remove_orphans
from repro.container_gpus import device_requests
from repro.container_process import run_container
from repro.container_spec import GIB, NO_NETWORK, Limits, Setting, View, create_arguments
from repro.engine import connect
from repro.image import check_contents, image_name
from repro.runner import Gpus

FETCH_STAGES = ("prepare",)
"""The stages that may need a network; all others have none."""
OUTDATED = 1
"""Exit code of `dvc status --quiet`; 0 is up to date."""


class NoImage(ValueError):
    """The engine does not have the workspace's image."""


@dataclass
class ContainerRunner:
    """Runs DVC in containers of one image."""

    client: docker.DockerClient
    image: Image
    setting: Setting
    engine_version: str
    began: float = field(default_factory=time.time)
    containers: list[JSON] = field(default_factory=list)
    """What was run so far, with its isolation as the engine reports it."""

    def run(self, folder: Path, commands: Sequence[tuple[str, ...]], inputs: Sequence[Path] = ()) -> int:
        """Run DVC commands in a workspace, one after the other until one fails; return its exit code, or 0.

        First come the stages that fetch, if they are not up to date: in a container with a network. The caller holds
        the workspace's lock.

        Args:
            inputs: folders that the user brings, relative to the clone or absolute.

        Raises:
            ValueError: the engine refuses, or stops answering.
        """
        view = View(folder, tuple(inputs))
        code = self._contain(view, NO_NETWORK, ("status", "--quiet", *FETCH_STAGES))
        if code == OUTDATED:
            code = self._contain(view, fetch_network(self.client), ("repro", *FETCH_STAGES))
        return code or next((code for command in commands if (code := self._contain(view, NO_NETWORK, command))), 0)

    def record(self) -> JSON:
        """Return what the run was isolated by, for `metrics/runs/`."""
        return {
            "engine": self.engine_version,
            "image": {"name": next(iter(self.image.tags), None), "id": self.image.id,
                      "digests": self.image.attrs.get("RepoDigests") or []},
            "started": datetime.datetime.fromtimestamp(self.began, datetime.UTC).isoformat(timespec="seconds"),
            "wall_seconds": round(time.time() - self.began, 2),
            "containers": self.containers,
        }

    def _contain(self, view: View, network: str, command: tuple[str, ...]) -> int:
        ended = run_container(self.client, create_arguments(self.setting, view, network, command))
        self.containers.append({"command": " ".join(("dvc", *command)), "exit_code": ended.code,
                                "out_of_memory": ended.out_of_memory, "wall_seconds": ended.seconds,
                                "isolation": isolation(ended.inspected)})
        if ended.code and ended.out_of_memory:
            print(self._memory_advice(), file=sys.stderr)
        return ended.code

    def _memory_advice(self) -> str:
        limit = self.setting.limits.memory_bytes / GIB
        return (f"A process was killed: the container reached its memory limit, {limit:.1f} GiB. Raise it with "
                f"--memory {2 * limit:.1f} (in GiB), or set distill.common.encoder_graph to 'recompute' in params.yaml")


def open_runner(root: Path, gpus: Gpus, memory_gib: float | None) -> ContainerRunner:
    """Return a runner for a workspace, after removing containers that killed runs of it left.

    Raises:
        NoEngine: none answers.
        NoImage: the workspace's image is not there.
        ValueError: it is not made of what docker/contents.json says, or GPUs are asked for that the engine has not.
    """
    client = connect()
    clean_up(client, root)
    image = _image(client, root)
    info = client.info()
    limits = Limits(int(memory_gib * GIB)) if memory_gib else Limits.of_host()
    setting = Setting(image.id, user(info), limits, workspace=str(root), client=identity(),
                      devices=device_requests(gpus, info), terminal=sys.stdout.isatty())
    return ContainerRunner(client, image, setting, info["ServerVersion"])


def clean_up(client: docker.DockerClient, root: Path) -> None:
    """Remove containers that killed runs of a workspace left, and say so."""
    removed = remove_orphans(client, root)
    if removed:
        print(f"Removed what a killed run left: container {', '.join(removed)}", flush=True)


def _image(client: docker.DockerClient, root: Path) -> Image:
    """Return the workspace's image; it has to be made of what the workspace says."""
    name = image_name(root)
    try:
        image = client.images.get(name)
    except ImageNotFound as error:
        raise NoImage(f"the engine has no image {name}, which this workspace's requirements/lock.txt asks for. Get it "
                      "with `repro image build`, `repro image load` or `repro image pull`, or use --engine "
                      "local") from error
    check_contents(root, client, name)
    return image


def user(info: dict[str, Any]) -> str:
    """Return the caller as `uid:gid`. An engine without root rights maps the caller to its 0."""
    if any("rootless" in option for option in info.get("SecurityOptions") or []):
        return "0:0"
    return f"{os.getuid()}:{os.getgid()}"


def fetch_network(client: docker.DockerClient) -> str:
    """Return `bridge`, or `host` for an engine that was started without one."""
    return "bridge" if client.networks.list(names=["bridge"], filters={"driver": "bridge"}) else "host"


def isolation(inspected: JSON) -> JSON:
    """Return what held a container in, from `docker inspect`: what the engine did, not what it was asked to do."""
    host = inspected["HostConfig"]
    return {
        "user": inspected["Config"]["User"],
        "network": host["NetworkMode"],
        "read_only_root": host["ReadonlyRootfs"],
        "privileged": host["Privileged"],
        "capabilities_dropped": host["CapDrop"] or [],
        "capabilities_added": host["CapAdd"] or [],
        "security_options": host["SecurityOpt"] or [],
        "memory_bytes": host["Memory"],
        "processes": host["PidsLimit"],
        "writable": sorted([*(host["Tmpfs"] or {}), *(mount["Destination"] for mount in inspected["Mounts"]
                                                      if mount["RW"])]),
        "gpus": bool(host.get("DeviceRequests")),
    }
