"""`repro checkpoints`: list, fetch and check the pre-trained encoders of the model hub that parameters name.

They are fetched on the host before anything is computed: by this command, or by `repro run`, which begins with it. No
stage and no container fetches them.
"""

import socket
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from repblend.encoders.hub import CHECKPOINTS, Checkpoint, checkpoint_of, faults, is_here, with_record
from repblend.report.table import in_columns
from repblend.store import repository_of
from repro.fetch.download import size_in_words
from repro.profiles import Profile, profiles_of
from repro.workspace import find_root

SECONDS_TO_ANSWER = 3.0

def main(command: Literal["needed", "list", "fetch", "check"], names: Sequence[str] | None, profile: str) -> int:
    """Do what a command says with the encoders of these names, or with those that a profile needs (`list`: with all);
    return the exit code.
    """
    try:
        root = find_root()
        chosen = list(CHECKPOINTS) if command == "list" else _chosen(names, profile, root)
        match command:
            case "needed" | "list":
                print("\n".join(table(chosen, root)) if chosen else f"{profile} needs no checkpoint from the hub.")
            case "fetch":
                fetch(chosen, root)
            case "check":
                check(chosen, root)
    except (ValueError, OSError) as error:
        print(f"repro checkpoints: {error}", file=sys.stderr)
        return 1
    return 0


def check(names: Sequence[str], root: Path) -> None:
    """Check the SHA-256 of every file of the encoders, and print what was found; raises `ValueError` if one is missing
    or damaged.
    """
    found = {name: faults(with_record(_declared(name), root), root) for name in names}
    for name, each in found.items():
        print("\n".join(f"MEND  {name}: {fault}" for fault in each) or f"ok    {name}")
    if broken := [name for name, each in found.items() if each]:
        raise ValueError(f"mend with `repro checkpoints fetch {' '.join(broken)}`")


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
        ValueError: as `repro.fetch.hub.fetch`, or a name does not lead to the hub.
    """
    from repro.fetch.hub import fetch as fetch_all  # most commands need no network

    fetch_all([_declared(name) for name in names], root)


def fetch_missing(profile: Profile) -> None:
    """Fetch what a profile's parameters need and is not there; without a word, and without a network, if nothing is.

    Only names are looked at, not bytes: stages check those.
    """
    root = repository_of(profile.workspace)
    missing = [name for name in needed(profile) if not is_here(_declared(name), root)]
    if missing:
        print(f"The parameters need checkpoints that are not here yet: {', '.join(missing)}", flush=True)
        from repro.fetch.hub import endpoint  # most commands need no network

        check_reachable(endpoint())
        fetch(missing, root)


def check_reachable(address: str) -> None:
    """Check within seconds that a server can be reached; behind a proxy, that is for the fetch to find out.

    Raises:
        ValueError: it cannot.
    """
    url = urllib.parse.urlsplit(address)
    if urllib.request.getproxies().get(url.scheme):
        return
    try:
        port = url.port or (443 if url.scheme == "https" else 80)
        socket.create_connection((url.hostname or "", port), timeout=SECONDS_TO_ANSWER).close()
    except OSError as error:
        raise ValueError(f"{address}: cannot be reached ({error}). If this machine is offline, fetch the checkpoints "
                         "on another one with `repro checkpoints fetch` and copy data/hub; if not, look at "
                         "HF_ENDPOINT") from error


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
    size = size_in_words(checkpoint.num_bytes) if checkpoint.num_bytes else "?"
    revision = f"@{checkpoint.revision[:7]}" if checkpoint.revision else " (pinned by the first fetch)"
    return (name, size, checkpoint.license, "here" if is_here(checkpoint, root) else "-",
            checkpoint.repository + revision)
