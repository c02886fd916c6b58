"""Choose where DVC runs, by what was asked for and by what is there, and say where and why."""

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from repro.engines.base import Engine, Gpus, Request, Runner
from repro.engines.client import NoEngine, connect
from repro.engines.local import LocalRunner

if TYPE_CHECKING:
    import docker


def choose(request: Request, root: Path) -> Runner:
    """Return where to run. A container that a killed run of the clone left is removed.

    Raises:
        ValueError: what is asked for is not there, or makes no sense without a container.
    """
    if request.engine is Engine.LOCAL:
        runner = _local(request)
        with contextlib.suppress(NoEngine):
            client = connect()
            from repro.engines.container import clean_up  # slow to import, and useless without an engine

            clean_up(client, root)
        return runner
    try:
        return _in_container(connect(), request, root)
    except NoEngine as error:
        return _instead(request, error)


def _in_container(client: "docker.DockerClient", request: Request, root: Path) -> Runner:
    """Return a runner in the clone's image; `auto` builds that first if it is missing."""
    from repro.engines.container import NoImage, open_runner
    from repro.image.build import BuildOptions, build
    from repro.image.contents import image_name

    try:
        try:
            runner = open_runner(client, root, request)
        except NoImage:
            if request.engine is Engine.DOCKER:
                raise
            print(f"The engine has no image {image_name(root)} yet: it is built now, once (7 GB, some minutes). "
                  "--engine local works without.", flush=True)
            try:
                build(root, client, BuildOptions())
            except (ValueError, OSError) as error:
                print(f"The image could not be built: {error}", flush=True)
            runner = open_runner(client, root, request)
    except NoImage as error:
        return _instead(request, error)
    print(f"Engine: docker, image {runner.image.tags[0]} ({runner.image.short_id})", flush=True)
    return runner


def _instead(request: Request, error: ValueError) -> Runner:
    """Return the runner of this machine where a container is not to be had; raises the error if one must be."""
    if request.engine is Engine.DOCKER:
        raise error
    runner = _local(request)
    print(f"Engine: local, not a container: {error}", flush=True)
    return runner


def _local(request: Request) -> LocalRunner:
    if request.gpus is Gpus.ALL or request.memory_gib is not None:
        raise ValueError("--gpus all and --memory are for containers, and this would run on the machine itself. Leave "
                         "them out, or use --engine docker")
    return LocalRunner()
