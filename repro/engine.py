"""The Docker engine: finding one on this machine, and saying what is wrong where none answers (docker-py)."""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import docker

DEFAULT_HOST = "unix:///var/run/docker.sock"
LOCAL_SCHEME = "unix://"
TIMEOUT_S = 3600
"""Of one answer. A container that computes says nothing for minutes, and building an image takes long as well."""
FIRST_ANSWER_S = 5


class NoEngine(ValueError):
    """No Docker engine of this machine answers."""


def host() -> str:
    """Return where the engine listens: `DOCKER_HOST`, or the usual socket. No Docker context is followed."""
    return os.environ.get("DOCKER_HOST") or DEFAULT_HOST


def connect() -> "docker.DockerClient":
    """Return a client of this machine's engine.

    Raises:
        NoEngine: none answers, or DOCKER_HOST names one on another machine, which could not mount the workspace.
    """
    import docker  # slow to import, and most commands need no engine

    where = host()
    if not where.startswith(LOCAL_SCHEME):
        raise NoEngine(f"DOCKER_HOST is {where}; expected unix://PATH, because the engine has to see this machine's "
                       "folders. Unset it, or use --engine local")
    try:
        docker.DockerClient(base_url=where, timeout=FIRST_ANSWER_S).ping()
        return docker.DockerClient(base_url=where, timeout=TIMEOUT_S)
    except docker.errors.DockerException as error:
        raise NoEngine(f"no Docker engine answers at {where} ({_reason(error)}). Start it, set DOCKER_HOST, or use "
                       "--engine local, which needs none") from error


def _reason(error: BaseException) -> str:
    """The innermost cause on one line: docker-py wraps what the socket said several times."""
    cause = error
    while cause.__context__ is not None:
        cause = cause.__context__
    return " ".join(str(cause).split())
