"""What the repository tells its users: documents, notebooks, comments of parameter files, and the commands in them."""

import json
import re
import shlex
import subprocess
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PROGRAMS = ("repro", "make", "python -m", "dvc", "pip", "docker", "apptainer", "git")
"""How a command begins that stands in a document."""
COMMAND = rf"(?:\.venv/bin/)?((?:{'|'.join(PROGRAMS)}) .+)"


class Command(NamedTuple):
    """A command that a user is told of."""

    words: list[str]
    whole: bool
    """A line of a code block, to be typed as it stands; otherwise named in a sentence, maybe without its arguments."""


@cache
def tracked(*patterns: str) -> list[Path]:
    """Return the files of the repository that match, as git knows them or would add them."""
    listed = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", *patterns],
                            cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in sorted(filter(None, set(listed.split("\0")))) if (ROOT / name).is_file()]


def text_of(path: Path) -> str:
    """Return what a reader sees: of a notebook its prose, of a parameter file its comments, of others everything."""
    content = path.read_text("utf-8")
    if path.suffix == ".ipynb":
        return "\n".join("".join(cell["source"]) for cell in json.loads(content)["cells"]
                         if cell["cell_type"] == "markdown")
    if path.suffix == ".yaml":
        return "\n".join(re.findall(r"(?:^|\s)#\s?(.*)", content))
    return content


def documents() -> list[Path]:
    """Return all files that are written for users to read."""
    return tracked("*.md", "*.ipynb", "params.yaml", "conf/*.yaml", "profiles/*/params.yaml")


def sources() -> list[Path]:
    """Return the product's code, whose messages and docstrings name commands too."""
    return tracked("src/*.py", "repro/*.py", "benchmarks/*.py", "docker/*.py")


def commands(path: Path) -> list[Command]:
    """Return the commands of a document, or those that code names in backquotes."""
    text = text_of(path)
    if path.suffix == ".py":
        return [_command(match[1], whole=False) for span in re.findall(r"(?<!`)`([^`\n\"]+)`", text)
                if "{" not in span and (match := re.fullmatch(COMMAND, span))]
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    rest = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    spans = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", rest)]
    return [_command(match[1], whole) for found, whole in ((lines, True), (spans, False)) for candidate in found
            if (match := re.fullmatch(COMMAND, candidate))]


def _command(text: str, whole: bool) -> Command:
    return Command(shlex.split(re.sub(r"\[[^]]*\]|\s\.\.\.", "", text), comments=True), whole)
