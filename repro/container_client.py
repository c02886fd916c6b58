"""Which process a container belongs to, and removing those whose process is gone (Linux)."""

import contextlib
from pathlib import Path

import docker
from docker.errors import APIError, NotFound

from repro.container_spec import CLIENT_LABEL, WORKSPACE_LABEL

PROC = Path("/proc")
START_TIME = 19
"""Field of /proc/PID/stat, counted from behind the command's name, which may hold spaces."""


def identity(pid: int | str = "self") -> str:
    """Return what no other process ever has: boot, PID namespace, PID, and when it started (clock ticks since boot).

    Raises:
        OSError: there is no such process.
    """
    boot = (PROC / "sys/kernel/random/boot_id").read_text().strip()
    number, _, rest = (PROC / str(pid) / "stat").read_text().rpartition(")")
    return f"{boot} {_namespace()} {number.split()[0]} {rest.split()[START_TIME]}"


def is_gone(who: str) -> bool:
    """Whether the process that `identity` named has ended. One in another PID namespace cannot be seen: not gone."""
    boot, namespace, pid, _ = who.split()
    if boot != (PROC / "sys/kernel/random/boot_id").read_text().strip():
        return True
    if namespace != _namespace():
        return False
    try:
        return identity(pid) != who
    except OSError:
        return True


def remove_orphans(client: docker.DockerClient, workspace: Path) -> list[str]:
    """Remove containers of a workspace whose `repro` was killed; return their short ids."""
    removed = []
    for container in client.containers.list(all=True, filters={"label": f"{WORKSPACE_LABEL}={workspace}"}):
        if not is_gone(container.labels[CLIENT_LABEL]):
            continue
        with contextlib.suppress(NotFound):
            _remove(container)
        removed.append(container.short_id)
    return removed


def _remove(container: docker.models.containers.Container) -> None:
    try:
        container.remove(force=True, v=True)
    except APIError as error:
        if error.status_code != 409:  # another run is removing it already
            raise


def _namespace() -> str:
    return str((PROC / "self/ns/pid").readlink())
