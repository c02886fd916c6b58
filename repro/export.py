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


def main(what: str, target: str, form: Format, profile: str) -> int:
    """Write the folder or file; return the exit code."""
    try:
        found = profile_of(find_root(), profile)
        if found.kind != KINDS[MULTIMODAL]:
            raise ValueError(f"--profile {profile}: it has no set of pairs, and others cannot be exported. Its sets "
                             f"are in {found.workspace / 'sets'}")
        root = found.workspace
    except ValueError as error:
        print(f"repro export: {error}", file=sys.stderr)
        return 1
    command = python("-m", MODULES[form], what, str(Path(target).absolute()))
    return subprocess.run(command, cwd=root, env=workspace_environment(root), check=False).returncode
