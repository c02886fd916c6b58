"""What the pipeline has made: the outputs that dvc.lock names, in the groups that one pulls."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from repro.verify import LOCK, output_hashes

FOLDER_SUFFIX = ".dir"
IN_GIT = "metrics"
"""The folder of outputs that git holds and DVC's cache does not."""
SHOWN = 5
"""Problems of one output that are told; the others are counted."""


class Artifacts(StrEnum):
    """What `repro pull` can bring."""

    METRICS = "metrics"
    DISTILLED = "distilled"
    TRAJECTORIES = "trajectories"
    ALL = "all"


FOLDERS = {
    Artifacts.METRICS: (IN_GIT,),
    Artifacts.DISTILLED: ("sets",),
    Artifacts.TRAJECTORIES: ("features", "experts", "encoder-experts"),
}


@dataclass(frozen=True)
class Output:
    """One output of a stage, in the version that dvc.lock records."""

    stage: str
    path: str
    """In the repository; a file or a folder."""
    md5: str
    """DVC's name of the content; of a folder, that of the list of its files."""

    @property
    def is_folder(self) -> bool:
        return self.md5.endswith(FOLDER_SUFFIX)

    @property
    def in_git(self) -> bool:
        return _top(self.path) == IN_GIT


@dataclass(frozen=True)
class Problem:
    """Why an output, or a file of it, could not be pulled or pushed."""

    output: Output
    text: str
    """Names the file, what was expected and what was found."""


def outputs(root: Path, wanted: Artifacts) -> list[Output]:
    """Return the outputs of a group, in the order of their paths.

    Raises:
        ValueError: dvc.lock is missing or not of that form.
    """
    every = [Output(stage, path, md5) for (stage, path), md5 in output_hashes(root / LOCK).items()]
    return sorted((output for output in every if wanted is Artifacts.ALL or _top(output.path) in FOLDERS[wanted]),
                  key=lambda output: output.path)


def explain(problems: Sequence[Problem], mend: str) -> str:
    """Return the problems, output by output, each with how to mend it; `{stage}` in `mend` is the output's stage."""
    lines: list[str] = []
    for output in dict.fromkeys(problem.output for problem in problems):
        texts = [problem.text for problem in problems if problem.output == output]
        lines += [f"{output.path}:", *(f"  {text}" for text in texts[:SHOWN])]
        if len(texts) > SHOWN:
            lines.append(f"  and {len(texts) - SHOWN} more files")
        lines.append(f"  To mend: {mend.format(stage=output.stage)}")
    return "\n".join(lines)


def _top(path: str) -> str:
    return path.split("/")[0]
