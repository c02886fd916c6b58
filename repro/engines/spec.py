"""What a container may do and see, as arguments of docker-py's `containers.create`. Nothing here asks an engine.

This is where `--gpus` and `--memory` end: in `device_requests` and `Limits.of`.
"""

import os
import posixpath
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from docker.types import DeviceRequest, Mount

from repblend.runtime.provenance import IMAGE_DIGEST_VARIABLE, MIXED_VARIABLE
from repblend.store import repository_of
from repro.engines.base import Gpus, Request
from repro.workspace import LOCK, MOUNT, WRITTEN, cache_of, dvc_setting, inside_of

WORKSPACE_LABEL, CLIENT_LABEL = "repblend.workspace", "repblend.client"
NO_NETWORK = "none"
GUARD = ("python", "-m", "repro.engines.guard")
"""The first process; the lock's path follows. It stops the others when the `repro` that holds the lock is gone."""
DVC = ("python", "-m", "repro.guarded_dvc")
LOCK_INSIDE = "/run/workspace.lock"
TEMPORARY = Path(".dvc/tmp")
"""Of DVC: every container has its own, in memory."""
GIB = 1024**3
SHARE_OF_MEMORY = 0.9
CDI_KIND = "nvidia.com/gpu"


@dataclass(frozen=True)
class Limits:
    """What a container may use up."""

    memory_bytes: int
    """Memory of all processes and of /tmp together; there is no swap beyond it."""
    processes: int = 4096
    """Processes and threads."""
    tmp_bytes: int = GIB
    """Size of /tmp, which lies in memory."""

    @classmethod
    def of(cls, request: Request) -> "Limits":
        """The memory that is asked for, or nine tenths of this machine's, which so stays usable if a stage grows."""
        if request.memory_gib is not None:
            return cls(memory_bytes=int(request.memory_gib * GIB))
        return cls(memory_bytes=int(psutil.virtual_memory().total * SHARE_OF_MEMORY))


@dataclass(frozen=True)
class Setting:
    """What all containers of a run have in common."""

    image_id: str
    """`sha256:...`: a name could be given to another image while the run goes on."""
    user: str
    """`uid:gid`, the owner of everything that is written."""
    limits: Limits
    workspace: str
    """The clone on the host that the run belongs to (not always the one that is mounted: see `repro verify`)."""
    client: str
    """Which process started it, as `repro.engines.container.identity` says it."""
    devices: tuple[DeviceRequest, ...] = ()
    terminal: bool = False
    """Whether the output goes to a terminal, where progress is drawn as bars."""


def mounts(workspace: Path, inputs: Mapping[Path, Path], shared: Mapping[Path, Path] = {}) -> list[Mount]:
    """Return what a container sees of the host: in the place of the clone the folder of its own to which `lend` moved
    what stages write, and over it, read-only, all else of the clone; DVC's cache; the lock; what the user brings.

    Decided by files that no stage can write, once for all containers of a run. Links of the clone are not followed.

    Args:
        inputs: as `repro.workspace.inputs_of` gives them.
        shared: folders of the workspace that other containers write to as well -> where they lie.

    Raises:
        ValueError: DVC's configuration cannot be read, or asks for links into its cache alone.
    """
    root, inside = repository_of(workspace), inside_of(workspace)
    own = {workspace.relative_to(root) / path for path in WRITTEN}
    folders = {folder for path in own for folder in path.parents}
    found = {MOUNT: Mount(str(MOUNT), str(inside), type="bind")}

    def show(place: Path, source: Path, read_only: bool = True) -> None:
        if not place.is_absolute() and not (point := inside / place).exists():
            point.parent.mkdir(parents=True, exist_ok=True)
            point.mkdir() if source.is_dir() else point.touch()
        found[MOUNT / place] = Mount(str(MOUNT / place), str(source), type="bind", read_only=read_only)

    def show_all(folder: Path) -> None:
        for source in sorted((root / folder).iterdir()):
            place = folder / source.name
            if place in folders and not source.is_symlink():
                show_all(place)
            elif place not in own and (source.is_dir() or source.is_file()) and not source.is_symlink():
                show(place, source)

    show_all(Path())
    for place, source in inputs.items():
        show(place, source)
    for name, source in shared.items():
        show(workspace.relative_to(root) / name, source, read_only=False)
    if "copy" not in (kinds := dvc_setting(root, "type", "copy")) or "symlink" in kinds:
        raise ValueError(f"{root / '.dvc'}: cache.type is {kinds}, expected 'copy' in it and no 'symlink': outputs of "
                         "a container are no links. Set it: dvc config --local cache.type reflink,copy")
    for folder in (cache := cache_of(root), root / TEMPORARY):  # as DVC does; what is not there cannot be mounted
        folder.mkdir(parents=True, exist_ok=True)
    # Where the configuration leads to inside of a container.
    target = Path(posixpath.normpath(MOUNT / ".dvc" / dvc_setting(root, "dir", "cache")))
    found[target] = Mount(str(target), str(cache), type="bind")
    found[Path(LOCK_INSIDE)] = Mount(LOCK_INSIDE, str(root / LOCK), type="bind", read_only=True)
    return list(found.values())


def create_arguments(setting: Setting, workspace: Path, mounted: list[Mount], network: str,
                     dvc_arguments: tuple[str, ...]) -> dict[str, Any]:
    """Return the arguments of `containers.create` for one DVC command.

    Args:
        workspace: where DVC runs.
        mounted: as `mounts` gives them.
        network: `none`, `bridge` or `host`.
        dvc_arguments: for example `("repro", "experts")`.
    """
    limits = setting.limits
    return {
        "image": setting.image_id,
        "entrypoint": [],
        "command": [*GUARD, LOCK_INSIDE, *DVC, *dvc_arguments],
        "working_dir": str(MOUNT / workspace.relative_to(repository_of(workspace))),
        "mounts": mounted,
        "environment": environment(setting.image_id, network),
        "use_config_proxy": network != NO_NETWORK,  # docker-py passes the proxies of the user's configuration on
        "labels": {WORKSPACE_LABEL: setting.workspace, CLIENT_LABEL: setting.client},
        "user": setting.user,
        "network_mode": network,
        "read_only": True,
        "tmpfs": dict.fromkeys(("/tmp", str(MOUNT / TEMPORARY)), f"size={limits.tmp_bytes},mode=1777"),
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "mem_limit": limits.memory_bytes,
        "memswap_limit": limits.memory_bytes,
        "pids_limit": limits.processes,
        "device_requests": list(setting.devices),
        "init": True,  # reaps what a killed stage leaves behind
        "stop_signal": "SIGTERM",
        "tty": setting.terminal,
    }


def device_requests(request: Request, info: dict[str, Any]) -> tuple[DeviceRequest, ...]:
    """Return what gives a container all GPUs, those of its job, or nothing: the end of `--gpus`.

    Args:
        info: what the engine says of itself (`client.info()`).

    Raises:
        ValueError: all GPUs are asked for and the engine has none to give.
    """
    if request.gpus is Gpus.NONE:
        return ()
    ids = [*request.device_ids]
    if "nvidia" in (info.get("Runtimes") or {}):
        which = {"device_ids": ids} if ids else {"count": -1}
        return (DeviceRequest(**which, capabilities=[["gpu"]]),)
    if any(device.get("ID", "").startswith(f"{CDI_KIND}=") for device in info.get("DiscoveredDevices") or []):
        return (DeviceRequest(driver="cdi", device_ids=[f"{CDI_KIND}={each}" for each in ids or ["all"]]),)
    if request.gpus is Gpus.ALL:
        raise ValueError("--gpus all: the engine has neither the 'nvidia' runtime nor CDI devices of NVIDIA. Install "
                         "the NVIDIA Container Toolkit and restart the engine, or use --gpus none")
    return ()


def environment(image_id: str, network: str) -> dict[str, str]:
    """Return the variables of a container beside those of its image: nothing of the host's but what a job was told."""
    return {
        "PYTHONPATH": f"{MOUNT / 'src'}:{MOUNT}",
        "HF_HUB_OFFLINE": "1" if network == NO_NETWORK else "0",
        IMAGE_DIGEST_VARIABLE: image_id,
        "HOME": "/tmp",
        "USER": "repblend",  # the caller's uid has no name in the image, and some libraries ask for one
        "DVC_SITE_CACHE_DIR": "/tmp/dvc",  # by default it lies under /var, which is read-only here
        "LANG": "C.UTF-8",
    } | {name: os.environ[name] for name in (MIXED_VARIABLE,) if name in os.environ}
