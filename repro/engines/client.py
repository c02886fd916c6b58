"""The Docker engine of this machine: find it, or say what is wrong. Quick where there is none."""

import errno
import os
from pathlib import Path
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


def connect() -> "docker.DockerClient":
    """Return a client of the engine that `DOCKER_HOST` names, or that listens at the usual socket; a Docker context is
    not followed.

    Raises:
        NoEngine: none answers, or DOCKER_HOST names one on another machine, which could not mount the workspace.
    """
    where = os.environ.get("DOCKER_HOST") or DEFAULT_HOST
    if not where.startswith(LOCAL_SCHEME):
        raise NoEngine(f"DOCKER_HOST is {where}; expected unix://PATH, because the engine has to see this machine's "
                       "folders. Unset it, or use --engine local")
    if not Path(where.removeprefix(LOCAL_SCHEME)).exists():
        raise _no_engine(where, os.strerror(errno.ENOENT))
    import docker  # slow to import
    import requests
    from docker.errors import DockerException

    try:
        quick = docker.DockerClient(base_url=where, timeout=FIRST_ANSWER_S)  # asks for the version
        quick.ping()
        return docker.DockerClient(base_url=where, version=quick.api.api_version, timeout=TIMEOUT_S)
    except (DockerException, requests.RequestException) as error:
        cause: BaseException = error
        while cause.__context__ is not None:  # docker-py wraps what the socket said several times
            cause = cause.__context__
        raise _no_engine(where, " ".join(str(cause).split())) from error


def _no_engine(where: str, reason: str) -> NoEngine:
    return NoEngine(f"no Docker engine answers at {where} ({reason}). Start it, set DOCKER_HOST, or use --engine "
                    "local, which needs none")
