"""`repro checkpoints`: which checkpoints of the model hub there are, which the parameters need, and whether they are
here.

They are fetched on the host before anything is computed: by this command, or by `repro run`, which begins with it. No
stage and no container fetches them.
"""

import contextlib
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer

from repblend.clone import repository_of
from repblend.encoders.hub import faults, is_here, with_record
from repblend.encoders.pins import CHECKPOINTS, Checkpoint, checkpoint_of
from repblend.report.table import in_columns
from repro.profiles import QUICKSTART, Profile, profiles_of
from repro.workspace import find_root

app = typer.Typer(invoke_without_command=True,
                  help="Pre-trained encoders from the model hub: list them, fetch them, check them.")
MEGABYTE = 1e6

Names = Annotated[list[str] | None, typer.Argument(
    help="Encoders, for example nfnet_l0 or timm:resnet18.a1_in1k. By default those that the profile needs.",
    show_default=False)]
ProfileOption = Annotated[str, typer.Option("--profile", metavar="NAME", help="Whose encoders, if none are named.")]


@app.callback()
def needed_command(context: typer.Context, profile: ProfileOption = QUICKSTART) -> None:
    """Pre-trained encoders from the model hub. Alone: those that the profile needs."""
    if context.invoked_subcommand is None:
        with _explained() as root:
            names = _chosen(None, profile, root)
            print("\n".join(table(names, root)) if names else f"{profile} needs no checkpoint from the hub.")
    elif profile != QUICKSTART:
        raise typer.BadParameter(f"give it after the command: `repro checkpoints {context.invoked_subcommand} "
                                 f"--profile {profile}`", param_hint="--profile")


@app.command("list")
def list_command() -> None:
    """List all that are declared: size, license, whether they are here."""
    with _explained() as root:
        print("\n".join(table(CHECKPOINTS, root)))


@app.command("fetch")
def fetch_command(names: Names = None, profile: ProfileOption = QUICKSTART) -> None:
    """Download what is not here yet, and check every file's SHA-256. Run it again to go on."""
    with _explained() as root:
        fetch(_chosen(names, profile, root), root)


@app.command("check")
def check_command(names: Names = None, profile: ProfileOption = QUICKSTART) -> None:
    """Check the SHA-256 of every file; say which are missing or damaged."""
    with _explained() as root:
        found = {name: faults(with_record(_declared(name), root), root) for name in _chosen(names, profile, root)}
        for name, each in found.items():
            print("\n".join(f"MEND  {name}: {fault}" for fault in each) or f"ok    {name}")
        if broken := [name for name, each in found.items() if each]:
            raise ValueError(f"mend with `repro checkpoints fetch {' '.join(broken)}`")


@contextlib.contextmanager
def _explained() -> Iterator[Path]:
    """Give the clone's folder; turn a user's error into a message and an exit code."""
    try:
        yield find_root()
    except (ValueError, OSError) as error:
        print(f"repro checkpoints: {error}", file=sys.stderr)
        raise typer.Exit(1) from error


def _chosen(names: Sequence[str] | None, profile: str, root: Path) -> list[str]:
    """The names that were given, or what a profile (or each of a suite) needs."""
    return list(names or dict.fromkeys(
        name for member in profiles_of(root, profile) for name in needed(member)))


def needed(profile: Profile) -> list[str]:
    """Return the encoders that a profile's parameters name and that come from the hub.

    Raises:
        ValueError: `params.yaml` is not as expected.
    """
    names = getattr(profile.params(), "encoders", [])  # pipelines of other kinds use none
    return [name for name in names if checkpoint_of(name)]


def fetch(names: Sequence[str], root: Path) -> None:
    """Fetch encoders by name.

    Raises:
        ValueError: as `repro.hub_fetch.fetch`, or a name does not lead to the hub.
    """
    from repro.hub_fetch import fetch as fetch_all  # most commands need no network

    fetch_all([_declared(name) for name in names], root)


def fetch_missing(profile: Profile) -> None:
    """Fetch what a profile's parameters need and is not there; without a word, and without a network, if nothing is.

    Only names are looked at, not bytes: stages check those.
    """
    root = repository_of(profile.workspace)
    missing = [name for name in needed(profile) if not is_here(_declared(name), root)]
    if missing:
        print(f"The parameters need checkpoints that are not here yet: {', '.join(missing)}", flush=True)
        fetch(missing, root)


def _declared(name: str) -> Checkpoint:
    checkpoint = checkpoint_of(name)
    if checkpoint is None:
        raise ValueError(f"{name!r} is no encoder of the model hub; expected one of {', '.join(CHECKPOINTS)}, or "
                         "timm:, transformers: or open_clip:OWNER/NAME")
    return checkpoint


def table(names: Iterable[str], root: Path) -> list[str]:
    """Return a line for each encoder: name, size, license, state, where it comes from."""
    return in_columns([("name", "size", "license", "state", "repository"), *(_row(name, root) for name in names)])


def _row(name: str, root: Path) -> tuple[str, ...]:
    checkpoint = with_record(_declared(name), root)
    size = f"{checkpoint.num_bytes / MEGABYTE:,.0f} MB" if checkpoint.num_bytes else "?"
    revision = f"@{checkpoint.revision[:7]}" if checkpoint.revision else " (pinned by the first fetch)"
    return (name, size, checkpoint.license, "here" if is_here(checkpoint, root) else "-",
            checkpoint.repository + revision)
