"""`repro profile`: write the workspace of a profile, say what is edited in it, or list all profiles."""

import sys
from collections.abc import Sequence
from pathlib import Path

from repro.compose import compose
from repro.profiles import (
    FOLDER,
    QUICKSTART,
    SUITES,
    WHOLE,
    Profile,
    edits,
    is_in_the_clones_folder,
    members,
    names,
    write_params,
    write_pipeline,
)
from repro.workspace import find_root

MEANINGS = {QUICKSTART: "some minutes, of params.yaml here", WHOLE: "the whole pipeline of params.yaml here"}


def main(name: str | None, changes: Sequence[str]) -> int:
    """Write a profile's workspace, or each of a suite; without a name list them. Return the exit code.

    Args:
        changes: `KEY=VALUE`, applied to what the profile composes.
    """
    try:
        root = find_root()
        if name is None:
            print("\n".join(map(_line, names(root))))
            return 0
        if is_in_the_clones_folder(name):
            raise ValueError(f"{name} is {MEANINGS[name]}: edit that file, there is nothing to write")
        return max(_write(root, member, changes) for member in members(root, name))
    except (ValueError, OSError) as error:
        print(f"repro profile: {error}", file=sys.stderr)
        return 1


def _line(name: str) -> str:
    in_suite = f"{', '.join(SUITES[name])}, one after the other" if name in SUITES else f"workspace {FOLDER / name}"
    return f"{name:<12} {MEANINGS.get(name, in_suite)}"


def _write(root: Path, name: str, changes: Sequence[str]) -> int:
    """Write one workspace. Parameters that are there stay: changes that would alter them are refused."""
    kind, composed = compose(root, name, changes)
    profile = Profile(name, kind, root / FOLDER / name)
    file = FOLDER / name / "params.yaml"
    written = write_params(profile, composed)
    write_pipeline(root, profile)
    if written:
        print(f"{file}: written. Edit it, then `repro run --profile {name}`")
        return 0
    different = edits(profile, composed)
    for line in different:
        print(f"{file}: {line}")
    print(f"{file}: {'left as it is; remove it to compose it anew' if different else 'as the profile composes it'}")
    return 1 if different and changes else 0
