"""`repro image`: make the image of this workspace, move it between machines, and say what is in it.

docker-py is imported by the commands that need it: `repro --help` stays quick.
"""

import contextlib
import sys
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from repro.workspace import find_root

if TYPE_CHECKING:
    import docker

app = typer.Typer(no_args_is_help=True, help="Make the container image of this workspace, move it, look into it.")


class Network(StrEnum):
    """The network of build steps."""

    DEFAULT = "default"
    HOST = "host"
    NONE = "none"


Base = Annotated[str | None, typer.Option(
    help="Image to build on: NAME@sha256:DIGEST, an id, or an image that the engine has. By default the pinned one.")]
Wheelhouse = Annotated[Path | None, typer.Option(
    help="Folder of packages (`pip download`) to install; the package index is not asked, no network is needed.")]
Authorities = Annotated[Path | None, typer.Option(
    "--ca", help="Folder of certificates to trust while packages are fetched; none of them stays in the image.")]
NetworkOption = Annotated[Network, typer.Option(
    help="The engine's network that build steps use; 'host' where containers reach nothing else.")]
ArchiveFile = Annotated[Path, typer.Argument(help="The file.")]


@app.command("base")
def base_command() -> None:
    """Make a base image from Debian's packages (debootstrap, as root), where no registry can be reached."""
    with _engine("base") as client:
        from repro.image_base import BASE_NAME, make_base
        print(f"{BASE_NAME} is {make_base(client)}. Build on it: `repro image build --base {BASE_NAME}`")


@app.command("build")
def build_command(base: Base = None, wheelhouse: Wheelhouse = None, ca: Authorities = None,
                  network: NetworkOption = Network.DEFAULT) -> None:
    """Build the image from docker/Dockerfile and requirements/lock.txt, and record what it is made of."""
    with _engine("build") as client:
        from repro.image_build import BuildOptions, build
        name = build(find_root(), client, BuildOptions(base, wheelhouse, ca, network))
        print(f"{name} is built. `repro image inspect` says what is in it.")


@app.command("push")
def push_command(reference: Annotated[str, typer.Argument(help="REGISTRY/REPOSITORY[:TAG]")]) -> None:
    """Push the image to a registry and print the reference to pull it by."""
    with _engine("push") as client:
        from repro.image_registry import push
        print(f"Pushed. Elsewhere: `repro image pull {push(find_root(), client, reference)}`")


@app.command("pull")
def pull_command(reference: Annotated[str, typer.Argument(help="REGISTRY/REPOSITORY@sha256:DIGEST")]) -> None:
    """Pull an image by digest; it becomes this workspace's if it is made of what docker/contents.json says."""
    with _engine("pull") as client:
        from repro.image_registry import pull
        print(pull(find_root(), client, reference))


@app.command("save")
def save_command(file: ArchiveFile) -> None:
    """Write the image to a file, for a machine without a registry."""
    with _engine("save") as client:
        from repro.image_archive import save
        print(f"{file}: written, SHA-256 {save(find_root(), client, file)}")


@app.command("load")
def load_command(file: ArchiveFile) -> None:
    """Load a saved image; it becomes this workspace's if it is made of what docker/contents.json says."""
    with _engine("load") as client:
        from repro.image_archive import load
        print(load(find_root(), client, file))


@app.command("export")
def export_command(file: ArchiveFile) -> None:
    """Write the image to an OCI archive, for clusters that run Apptainer instead of Docker."""
    with _engine("export") as client:
        from repro.image_export import export
        export(find_root(), client, file)
        print(f"{file}: written. `apptainer build repblend.sif oci-archive://{file}` makes Apptainer's image of it")


@app.command("inspect")
def inspect_command() -> None:
    """Say what the image is made of, and what its size is made of."""
    with _engine("inspect") as client:
        from repro.image_inspect import inspect
        print(inspect(find_root(), client))


@contextlib.contextmanager
def _engine(command: str) -> Iterator["docker.DockerClient"]:
    """Give a client; errors that a user can mend, the engine's own too, end the command with a sentence and code 1."""
    from docker.errors import APIError

    from repro.engine import connect
    try:
        yield connect()
    except (ValueError, OSError, APIError) as error:
        print(f"repro image {command}: {getattr(error, 'explanation', None) or error}", file=sys.stderr)
        raise typer.Exit(1) from error
