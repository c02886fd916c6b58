"""Where DVC runs: in a container, or on this machine. What was asked for decides, and what is there."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from repblend.store import JSON
from repro.local import LocalRunner

if TYPE_CHECKING:
    from repro.container import ContainerRunner


class Engine(StrEnum):
    """Where to run: in a container if an engine and the image are there, without one, or in one without fail."""

    AUTO = "auto"
    LOCAL = "local"
    DOCKER = "docker"


class Gpus(StrEnum):
    """Which GPUs a container gets: all if the engine can give them, none, or all without fail."""

    AUTO = "auto"
    NONE = "none"
    ALL = "all"


@dataclass(frozen=True)
class Wishes:
    """What a user asks of the place where DVC runs."""

    engine: Engine = Engine.AUTO
    gpus: Gpus = Gpus.AUTO
    memory_gib: float | None = None
    """Memory limit of a container; None is most of this machine's."""


ANY = Wishes()


class Runner(Protocol):
    """A place where DVC runs."""

    def run(self, folder: Path, commands: Sequence[tuple[str, ...]], inputs: Sequence[Path] = ()) -> int:
        """Run DVC commands in a workspace, one after the other until one fails; return its exit code, or 0.

        Args:
            inputs: folders that the user brings, relative to the clone or absolute.
        """

    def record(self) -> JSON | None:
        """Return what the run was isolated by, or None if by nothing."""


def choose(wishes: Wishes, root: Path) -> Runner:
    """Return where to run, and say where and why. A container that a killed run of the workspace left is removed.

    Raises:
        ValueError: what is asked for is not there, or makes no sense without a container.
    """
    if wishes.engine is Engine.LOCAL:
        _refuse_container_wishes(wishes)
        _clean_up(root)
        return LocalRunner()
    from repro.container import NoImage  # slow to import
    from repro.engine import NoEngine

    try:
        runner = _open(wishes, root)
    except (NoEngine, NoImage) as error:
        if wishes.engine is Engine.DOCKER:
            raise
        _refuse_container_wishes(wishes)
        print(f"Engine: local, not a container: {error}", flush=True)
        return LocalRunner()
    print(f"Engine: docker, image {runner.image.tags[0]} ({runner.image.short_id})", flush=True)
    return runner


def _open(wishes: Wishes, root: Path) -> "ContainerRunner":
    """Open a runner in the workspace's image; `auto` builds that first if it is missing."""
    from repro.container import NoImage, open_runner

    try:
        return open_runner(root, wishes.gpus, wishes.memory_gib)
    except NoImage:
        if wishes.engine is not Engine.AUTO:
            raise
        _build(root)
        return open_runner(root, wishes.gpus, wishes.memory_gib)


def _build(root: Path) -> None:
    """Build the workspace's image; where that fails, say why, and leave it at that."""
    from repro.engine import connect
    from repro.image import image_name
    from repro.image_build import BuildOptions, build

    print(f"The engine has no image {image_name(root)} yet: it is built now, once (7 GB, some minutes). --engine local "
          "works without.", flush=True)
    try:
        build(root, connect(), BuildOptions())
    except (ValueError, OSError) as error:
        print(f"The image could not be built: {error}", flush=True)


def _clean_up(root: Path) -> None:
    from repro.container import clean_up
    from repro.engine import NoEngine, connect

    with contextlib.suppress(NoEngine):
        clean_up(connect(), root)


def _refuse_container_wishes(wishes: Wishes) -> None:
    if wishes.gpus is Gpus.ALL or wishes.memory_gib is not None:
        raise ValueError("--gpus all and --memory are for containers, and this would run on the machine itself. Leave "
                         "them out, or use --engine docker")
