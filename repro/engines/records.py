"""What a run in containers leaves in `container.json`: by which image, and what held each container in."""

from repblend.records.base import Record
from repblend.sections import Count


class Isolation(Record):
    """What held a container in, as the engine says of it."""

    user: str
    network: str
    read_only_root: bool
    privileged: bool
    capabilities_dropped: list[str]
    capabilities_added: list[str]
    security_options: list[str]
    memory_bytes: Count
    processes: int | None
    writable: list[str]
    gpus: bool


class ContainedCommand(Record):
    """One command of a run, and the container that it had."""

    command: str
    exit_code: int
    out_of_memory: bool
    wall_seconds: float
    isolation: Isolation


class UsedImage(Record):
    """The image of a run's containers."""

    name: str | None
    id: str
    digests: list[str]


class ContainerRun(Record):
    """A run in containers."""

    engine: str
    """The version of Docker."""
    image: UsedImage
    started: str
    wall_seconds: float
    containers: list[ContainedCommand]
    commit: str | None = None
    dirty: bool | None = None
