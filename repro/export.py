"""`repro export`: write a set or experts as files for others, in a process of its own (it needs torch)."""

import subprocess
import sys
from enum import StrEnum
from pathlib import Path

from repro.kinds import KINDS, MULTIMODAL
from repro.profiles import profile_of
from repro.workspace import find_root, python, workspace_environment


class Format(StrEnum):
    """A folder with a data card that `datasets` opens, or the files of the official release."""

    FOLDER = "folder"
    OFFICIAL = "official"


MODULES = {Format.FOLDER: "repblend.release", Format.OFFICIAL: "repblend.release.official"}


EXPERTS = ("experts", "encoder-experts")


def _check_made(sets: Path, what: str, profile: str) -> None:
    if not (sets / f"{what}.safetensors").is_file():
        here = sorted(path.stem for path in sets.glob("*.safetensors"))
        raise ValueError(f"{sets / what}.safetensors: no such file; expected one of {', '.join(here) or 'none yet'}. "
                         f"`repro run --profile {profile}` makes the sets, and `repro pull distilled --profile "
                         f"{profile}` brings those that were published")


def main(what: str, target: str, form: Format, profile: str) -> int:
    """Write the folder or file; return the exit code."""
    try:
        found = profile_of(find_root(), profile)
        if found.kind != KINDS[MULTIMODAL]:
            raise ValueError(f"--profile {profile}: it has no set of pairs, and others cannot be exported. Its sets "
                             f"are in {found.workspace / 'sets'}")
        root = found.workspace
        if what not in EXPERTS:
            _check_made(root / "sets", what, profile)
    except ValueError as error:
        print(f"repro export: {error}", file=sys.stderr)
        return 1
    command = python("-m", MODULES[form], what, str(Path(target).absolute()))
    return subprocess.run(command, cwd=root, env=workspace_environment(root), check=False).returncode
