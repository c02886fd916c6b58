"""What a container may do and see, as arguments of docker-py's `containers.create`. Nothing here asks an engine."""

import configparser
import os
import posixpath
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from docker.types import DeviceRequest, Mount

from repblend.clone import repository_of
from repblend.stages.provenance import IMAGE_DIGEST_VARIABLE
from repro.dvc_locks import MOUNT
from repro.inputs import outside
from repro.workspace import LOCK

WORKSPACE_LABEL, CLIENT_LABEL = "repblend.workspace", "repblend.client"
NO_NETWORK = "none"
GUARD = ("python", "-m", "repro.container_guard")
"""The first process; the lock's path follows. It stops the others when the `repro` that holds the lock is gone."""
DVC = ("python", "-m", "repro.guarded_dvc")
GIB = 1024**3
SHARE_OF_MEMORY = 0.9


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
    def of_host(cls) -> "Limits":
        """Nine tenths of this machine's memory, so that it stays usable while a stage grows too large."""
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return cls(memory_bytes=int(total * SHARE_OF_MEMORY))


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
    """Which process started it, as `container_client.identity` says it."""
    devices: tuple[DeviceRequest, ...] = ()
    terminal: bool = False
    """Whether the output goes to a terminal, where progress is drawn as bars."""


@dataclass(frozen=True)
class View:
    """What a container sees of the host."""

    workspace: Path
    """Where DVC runs. The clone that it lies in is mounted; its lock is held by this process."""
    inputs: tuple[Path, ...] = ()
    """Folders that the user brings, relative to the clone or absolute: those outside of it are mounted, read-only."""

    @property
    def root(self) -> Path:
        """The clone."""
        return repository_of(self.workspace)

    def mounts(self) -> list[Mount]:
        """Return the mounts; raises `ValueError` as `cache_mounts`."""
        return [Mount(str(MOUNT), str(self.root), type="bind"), *cache_mounts(self.root),
                *(Mount(str(path), str(path), type="bind", read_only=True) for path in outside(self.root, self.inputs))]


def create_arguments(setting: Setting, view: View, network: str, dvc_arguments: tuple[str, ...]) -> dict[str, Any]:
    """Return the arguments of `containers.create` for one DVC command.

    Args:
        network: `none`, `bridge` or `host`.
        dvc_arguments: for example `("repro", "experts")`.

    Raises:
        ValueError: DVC's configuration cannot be read.
    """
    limits, inside = setting.limits, PurePosixPath(view.workspace.relative_to(view.root))
    return {
        "image": setting.image_id,
        "entrypoint": [],
        "command": [*GUARD, posixpath.relpath(LOCK, inside), *DVC, *dvc_arguments],
        "working_dir": str(MOUNT / inside),
        "mounts": view.mounts(),
        "environment": environment(setting.image_id, network),
        "use_config_proxy": network != NO_NETWORK,  # docker-py passes the proxies of the user's configuration on
        "labels": {WORKSPACE_LABEL: setting.workspace, CLIENT_LABEL: setting.client},
        "user": setting.user,
        "network_mode": network,
        "read_only": True,
        "tmpfs": {"/tmp": f"size={limits.tmp_bytes},mode=1777"},
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


def environment(image_id: str, network: str) -> dict[str, str]:
    """Return the variables of a container beside those of its image: nothing of the host's."""
    return {
        "PYTHONPATH": f"{MOUNT / 'src'}:{MOUNT}",
        "HF_HUB_OFFLINE": "1" if network == NO_NETWORK else "0",
        IMAGE_DIGEST_VARIABLE: image_id,
        "HOME": "/tmp",
        "USER": "repblend",  # the caller's uid has no name in the image, and some libraries ask for one
        "DVC_SITE_CACHE_DIR": "/tmp/dvc",  # by default it lies under /var, which is read-only here
        "LANG": "C.UTF-8",
    }


def cache_mounts(folder: Path) -> list[Mount]:
    """Return the mount of DVC's cache if the workspace's configuration puts it outside of the workspace.

    It is mounted where that configuration leads to inside the container, so that links to it hold on both sides.

    Raises:
        ValueError: the configuration is not of the form that DVC writes.
    """
    configured = cache_folder(folder)
    if configured is None:
        return []
    target = PurePosixPath(posixpath.normpath(MOUNT / ".dvc" / configured))
    if target.is_relative_to(MOUNT):
        return []
    source = Path(os.path.normpath(folder / ".dvc" / configured))
    source.mkdir(parents=True, exist_ok=True)  # as DVC does; the engine refuses to mount what is not there
    return [Mount(str(target), str(source), type="bind")]


def cache_folder(folder: Path) -> str | None:
    """Return `cache.dir` of the workspace's DVC configuration as written there (relative ones start at `.dvc`)."""
    config = configparser.ConfigParser(interpolation=None)
    try:
        config.read([folder / ".dvc" / "config", folder / ".dvc" / "config.local"])
    except configparser.Error as error:
        raise ValueError(f"{folder / '.dvc'}: expected DVC's configuration ({error}). Mend it, or "
                         "write it anew with `dvc config`") from error
    return config.get("cache", "dir", fallback=None)
