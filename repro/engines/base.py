"""What is asked of the place where DVC runs, and what every such place offers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:  # slow to import, and `repro --help` needs none of it
    from repro.engines.records import ContainerRun


class Engine(StrEnum):
    """Where to run: in a container if an engine answers, on this machine, or in a container or not at all."""

    AUTO = "auto"
    LOCAL = "local"
    DOCKER = "docker"


class Gpus(StrEnum):
    """Which GPUs a container gets: all that the engine can give, none, or all or not at all."""

    AUTO = "auto"
    NONE = "none"
    ALL = "all"


class On(StrEnum):
    """Past one process, a job per stage: on a SLURM cluster, or on every GPU of this machine."""

    SLURM = "slurm"
    GPUS = "gpus"


@dataclass(frozen=True)
class Request:
    """What a user asks for on the command line: `choose` reads the engine, `spec` the rest."""

    engine: Engine = Engine.AUTO
    gpus: Gpus = Gpus.AUTO
    memory_gib: float | None = None
    """Memory limit of a container; None: nine tenths of this machine's."""
    device_ids: tuple[str, ...] = ()
    """GPUs of the container by number, those of its job; none: as `gpus` says."""


ANYWHERE = Request()


class Runner(Protocol):
    """A place where DVC runs."""

    def run(self, folder: Path, commands: Sequence[tuple[str, ...]], inputs: Mapping[Path, Path] = {}) -> int:
        """Run DVC commands in a workspace, one after the other until one fails; return its exit code, or 0.

        Args:
            commands: DVC's arguments, for example `("repro", "experts")`.
            inputs: what the user brings, as `repro.workspace.inputs_of` gives it.
        """

    def record(self) -> "ContainerRun | None":
        """Return what the run was isolated by; None if by nothing."""
