"""Run DVC in containers of the workspace's image: fetching with a network, computing without one.

First the runner, then one container from its creation to its removal, then which process a container belongs to.
"""

import contextlib
import datetime
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker
import psutil
import requests
from docker.errors import APIError, DockerException, ImageNotFound, NotFound
from docker.models.containers import Container
from docker.models.images import Image
from docker.types import Mount

from repblend.store import JSON
from repro.engines.base import Request
from repro.engines.local import stop_signals_go_to
from repro.engines.records import ContainedCommand, ContainerRun, Isolation, UsedImage
from repro.engines.spec import (
    CLIENT_LABEL,
    GIB,
    NO_NETWORK,
    WORKSPACE_LABEL,
    Limits,
    Setting,
    create_arguments,
    device_requests,
    mounts,
)
from repro.image.contents import check_contents, image_name
from repro.workspace import lend, print_refused, take_back

FETCH_STAGES = ("prepare",)
"""The stages that may need a network; all others have none."""
OUTDATED = 1
"""Exit code of `dvc status --quiet`; 0 is up to date."""
SECONDS_TO_STOP = 10
"""From SIGTERM to SIGKILL after Ctrl-C."""
LOST = (DockerException, requests.RequestException)
"""What docker-py raises if the engine does not know the container any more, or does not answer."""
BOOT = Path("/proc/sys/kernel/random/boot_id")
"""Another one after every start of the machine."""
PID_NAMESPACE = Path("/proc/self/ns/pid")


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
    containers: list[ContainedCommand] = field(default_factory=list)
    """What was run so far, with its isolation as the engine reports it."""

    def run(self, folder: Path, commands: Sequence[tuple[str, ...]], inputs: Mapping[Path, Path] = {}) -> int:
        """Run DVC commands in a workspace, one after the other until one fails; return its exit code, or 0.

        First come the stages that fetch, if they are not up to date: in a container with a network. The caller holds
        the workspace's lock.

        Raises:
            ValueError: the engine refuses, or stops answering; or as `lend` and `mounts`.
        """
        def contain_all(mounted: list[Mount]) -> int:
            code = self._contain(folder, mounted, NO_NETWORK, ("status", "--quiet", "--with-deps", *FETCH_STAGES))
            if code == OUTDATED:
                code = self._contain(folder, mounted, fetch_network(self.client), ("repro", *FETCH_STAGES))
            return code or next((code for command in commands
                                 if (code := self._contain(folder, mounted, NO_NETWORK, command))), 0)

        return self._lent(folder, inputs, {}, contain_all)

    def run_job(self, folder: Path, command: tuple[str, ...], inputs: Mapping[Path, Path],
                shared: Mapping[Path, Path]) -> int:
        """Run one stage in the private checkout of a job; return DVC's exit code, or 0. Only stages that fetch have a
        network.

        Args:
            command: `("job", STAGE)`, or with the number of a part.
            shared: folders of the checkout's workspace -> where they lie, to be written to.

        Raises:
            ValueError: as `run`.
        """
        network = fetch_network(self.client) if command[1] in FETCH_STAGES else NO_NETWORK
        return self._lent(folder, inputs, shared, lambda mounted: self._contain(folder, mounted, network, command))

    def _lent(self, folder: Path, inputs: Mapping[Path, Path], shared: Mapping[Path, Path],
              contain: Callable[[list[Mount]], int]) -> int:
        """Lend what a workspace's stages write to containers while these run; return the exit code."""
        lend(folder)
        try:
            code = contain(mounts(folder, inputs, shared))
        except BaseException:
            with contextlib.suppress(*LOST):  # if a container may still run, the next run takes back
                if not containers_of(self.client, self.setting.workspace):
                    take_back(folder)
            raise
        print_refused(refused := take_back(folder))
        return code or bool(refused)

    def record(self) -> ContainerRun:
        """Return what the run was isolated by, as the engine reports it."""
        return ContainerRun(
            engine=self.engine_version,
            image=UsedImage(name=next(iter(self.image.tags), None), id=str(self.image.id),
                            digests=self.image.attrs.get("RepoDigests") or []),
            started=datetime.datetime.fromtimestamp(self.began, datetime.UTC).isoformat(timespec="seconds"),
            wall_seconds=round(time.time() - self.began, 2), containers=self.containers)

    def _contain(self, workspace: Path, mounted: list[Mount], network: str, command: tuple[str, ...]) -> int:
        ended = run_container(self.client, create_arguments(self.setting, workspace, mounted, network, command))
        self.containers.append(ContainedCommand(
            command=" ".join(("dvc", *command)), exit_code=ended.code, out_of_memory=ended.out_of_memory,
            wall_seconds=ended.seconds, isolation=isolation(ended.inspected)))
        if ended.code and ended.out_of_memory:
            limit = self.setting.limits.memory_bytes / GIB
            print(f"A process was killed: the container reached its memory limit, {limit:.1f} GiB. Raise it with "
                  f"--memory {2 * limit:.1f} (in GiB), or set distill.common.encoder_graph to 'recompute' in "
                  "params.yaml", file=sys.stderr)
        return ended.code


def open_runner(client: docker.DockerClient, root: Path, request: Request) -> ContainerRunner:
    """Return a runner for a clone, after removing containers that killed runs of it left.

    Raises:
        NoImage: the workspace's image is not there.
        ValueError: it is not made of what docker/contents.json says, or GPUs are asked for that the engine has not.
    """
    clean_up(client, root)
    image = _image(client, root)
    info = client.info()
    setting = Setting(image.id, user(info), Limits.of(request), workspace=str(root), client=identity(),
                      devices=device_requests(request, info), terminal=sys.stdout.isatty())
    return ContainerRunner(client, image, setting, info["ServerVersion"])


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


def isolation(inspected: JSON) -> Isolation:
    """Return what held a container in, from `docker inspect`: what the engine did, not what it was asked to do."""
    host = inspected["HostConfig"]
    return Isolation(
        user=inspected["Config"]["User"], network=host["NetworkMode"], read_only_root=host["ReadonlyRootfs"],
        privileged=host["Privileged"], capabilities_dropped=host["CapDrop"] or [],
        capabilities_added=host["CapAdd"] or [], security_options=host["SecurityOpt"] or [],
        memory_bytes=host["Memory"], processes=host["PidsLimit"],
        writable=sorted([*(host["Tmpfs"] or {}), *(mount["Destination"] for mount in inspected["Mounts"]
                                                   if mount["RW"])]),
        gpus=bool(host.get("DeviceRequests")))


# One container from its creation to its removal: output as it comes, Ctrl-C and SIGTERM passed on, how it ended.


@dataclass(frozen=True)
class Ended:
    """How a container ended."""

    code: int
    """Of its command; 128 + the signal if Ctrl-C or SIGTERM stopped it."""
    out_of_memory: bool
    """Whether a process in it was killed because the memory limit was reached."""
    seconds: float
    inspected: JSON
    """What the engine says of it (`docker inspect`), once it had ended."""


def run_container(client: docker.DockerClient, arguments: dict[str, Any]) -> Ended:
    """Create a container, run it with its output on ours, and remove it.

    Args:
        arguments: of `containers.create`.

    Raises:
        ValueError: the engine refuses to create or start it, or stops answering.
    """
    began, stop = time.monotonic(), _Stop()
    with stop_signals_go_to(stop) as received, _created(client, arguments) as container:
        inspected = _attend(container, stop)
    state = inspected["State"]
    return Ended(128 + received[0] if received else state["ExitCode"], state["OOMKilled"],
                 round(time.monotonic() - began, 2), inspected)


@dataclass
class _Stop:
    """Stops a container when a signal arrives."""

    container: Container | None = None
    """None until it is about to start."""
    is_asked_for: bool = False

    def __call__(self, number: int) -> None:
        """Handle a signal. The first one starts to stop the container, in a thread because that takes seconds and may
        have interrupted a request to the engine; more of them change nothing.
        """
        if not self.is_asked_for:
            self.is_asked_for = True
            words = f"\nStopping the container ({signal.Signals(number).name}), {SECONDS_TO_STOP} s at most ...\n"
            os.write(sys.stderr.fileno(), words.encode())  # a `print` may have been interrupted, and lets none in
            threading.Thread(target=self.stop, daemon=True).start()

    def stop(self) -> None:
        if self.container is not None:
            with contextlib.suppress(*LOST):  # it has ended, or `_attend` says more
                self.container.stop(timeout=SECONDS_TO_STOP)


def _attend(container: Container, stop: _Stop) -> JSON:
    """Start a container and copy its output until it ends; return what the engine says of it then."""
    stop.container = container
    try:
        # Attached before it starts, so that no line is missed. Not `logs`: these keep a progress bar back until its
        # line ends, and a limit on their size would lose lines.
        output = container.attach(stream=True, demux=True)
        container.start()
        if stop.is_asked_for:  # before there was anything that ran
            stop.stop()
        if sys.stdout.isatty():  # give the container's terminal the size of ours
            size = os.get_terminal_size(sys.stdout.fileno())  # not `shutil`'s, which believes COLUMNS first
            with contextlib.suppress(APIError):  # it has ended already
                container.resize(size.lines, size.columns)
        for out, err in output:
            for content, stream in ((out, sys.stdout), (err, sys.stderr)):
                if content:
                    stream.buffer.write(content)
                    stream.flush()
        container.wait()
        return container.client.api.inspect_container(container.id)
    except BrokenPipeError:  # of our own output: nobody reads it any more
        raise
    except APIError as error:
        raise ValueError(f"the Docker engine refused to run the container: {error.explanation}") from error
    except (requests.RequestException, OSError) as error:
        raise _no_answer(error) from error


@contextlib.contextmanager
def _created(client: docker.DockerClient, arguments: dict[str, Any]) -> Iterator[Container]:
    """Create a container and remove it afterwards, running or not. If the engine is gone, the next run removes it."""
    try:
        container = client.containers.create(**arguments)
    except APIError as error:
        raise ValueError(f"the Docker engine refused to create the container: {error.explanation}") from error
    except requests.RequestException as error:
        raise _no_answer(error) from error
    try:
        yield container
    finally:
        with contextlib.suppress(*LOST):
            container.remove(force=True, v=True)


def _no_answer(error: Exception) -> ValueError:
    return ValueError(f"the Docker engine stopped answering ({' '.join(str(error).split())}). Start it again, then run "
                      "the same command to go on: what was finished is kept")


# Which process a container belongs to, and removing those whose process is gone.


def identity(pid: int | None = None) -> str:
    """Return what no other process ever has: boot, PID namespace, PID, and when it started (seconds since boot).

    Args:
        pid: None for this process.

    Raises:
        psutil.NoSuchProcess: there is no such process.
    """
    process = psutil.Process(pid)
    started = round(process.create_time() - psutil.boot_time(), 2)  # the clock may be set meanwhile
    return f"{BOOT.read_text().strip()} {PID_NAMESPACE.readlink()} {process.pid} {started}"


def is_gone(who: str) -> bool:
    """Whether the process that `identity` named has ended. One in another PID namespace cannot be seen: not gone."""
    boot, namespace, pid, _ = who.split()
    if boot != BOOT.read_text().strip():
        return True
    if namespace != str(PID_NAMESPACE.readlink()):
        return False
    try:
        return identity(int(pid)) != who
    except psutil.NoSuchProcess:
        return True


def containers_of(client: docker.DockerClient, root: object) -> list[Container]:
    """Return the containers of a clone's runs, running or not."""
    return client.containers.list(all=True, filters={"label": f"{WORKSPACE_LABEL}={root}"})


def clean_up(client: docker.DockerClient, root: Path) -> None:
    """Remove containers of a clone whose `repro` was killed, and say so."""
    removed = []
    for container in containers_of(client, root):
        if not is_gone(container.labels[CLIENT_LABEL]):
            continue
        try:
            container.remove(force=True, v=True)
        except APIError as error:
            if not isinstance(error, NotFound) and error.status_code != 409:  # another run removes it already
                raise
        removed.append(container.short_id)
    if removed:
        print(f"Removed what a killed run left: container {', '.join(removed)}", flush=True)
