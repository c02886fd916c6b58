"""What the recorded files say, in the form in which documents write it, and the place in a document where it stands."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import NamedTuple

import yaml

from repblend.params import read_params
from repblend.report.intervals import SetResult, difference
from repblend.store import JSON
from repblend.titles import title
from tests.docs.documents import ROOT

QUICKSTART, OPENMOJI, GLYPHS = ROOT, ROOT / "profiles/openmoji", ROOT / "profiles/ufc-glyphs"
SECOND_SPLIT = ROOT / "profiles/openmoji-fold-1"
SHIPPED = ROOT / "artifacts/files/md5"
NUMBER = r"([^|\n]{1,60}?)"
SEEDS = ("", "+seed-1", "+seed-2")
"""What stands behind a method's name, for every set of it."""


class Bound(NamedTuple):
    """A piece of a document with numbers in it."""

    document: str
    text: str
    """As the document has it, `{}` for each number, and words on both sides of it; any white space stands for any."""
    values: tuple[str, ...]

    def find(self, content: str) -> re.Match:
        """Return where it stands; raises `ValueError` unless it stands there exactly once."""
        parts = [r"\s+".join(map(re.escape, re.split(r"\s+", part))) for part in self.text.split("{}")]
        found = list(re.finditer(NUMBER.join(parts), content))
        if len(found) != 1:
            raise ValueError(f"{self.document}: found {len(found)} times, expected once: {self.text}")
        return found[0]


def bind(document: str, text: str, *values: str) -> Bound:
    return Bound(document, text, values)


def template(columns: Sequence[str], rows: Iterable[str]) -> str:
    """Return a table as Markdown with `{}` in its cells, but for the first of each row."""
    return "\n".join([f"| {' | '.join(columns)} |", "|---" * len(columns) + "|",
                      *(row(name, len(columns) - 1) for name in rows)])


def row(name: str, num_cells: int) -> str:
    return f"| {name} |" + " {} |" * num_cells


def held_out(workspace: Path, cell: str, form: str = "{mean:.1f} ± {mean_std:.1f}") -> str:
    """Return the mean recall of a cell by the held-out protocol as documents write it."""
    return form.format(**json.loads((workspace / f"metrics/held-out/{cell}.json").read_text()))


def mean(workspace: Path, cell: str) -> str:
    return held_out(workspace, cell, "{mean:.1f}")


def deviation(workspace: Path, cell: str) -> str:
    return held_out(workspace, cell, "{mean_std:.1f}")


def exact(workspace: Path, cell: str, value: str = "mean") -> float:
    """Return a value of the held-out protocol as it is recorded, for differences."""
    return float(held_out(workspace, cell, f"{{{value}}}"))


def table(workspace: Path, corner: str, methods: Sequence[str], budgets: Sequence[int]) -> tuple[str, ...]:
    """Return a table of recalls as Markdown with `{}` in its cells, and what belongs there."""
    return (template([corner, *(f"{budget} pairs" for budget in budgets)], map(title, methods)),
            *(held_out(workspace, f"{method}-{budget}") for method in methods for budget in budgets))


@cache
def runs(workspace: Path) -> list[JSON]:
    return [json.loads(line) for line in (workspace / "runs.jsonl").read_text().splitlines()]


def minutes(workspace: Path) -> float:
    """Return how long stages ran, those side by side counted once; raises `ValueError` if one ran in parts."""
    if stopped := [run["stage"] for run in runs(workspace) if run.get("resumed")]:
        raise ValueError(f"{workspace}/runs.jsonl: {', '.join(stopped)} ran in parts. Run them again without a stop")
    total = until = 0.0
    for begin, seconds in sorted((datetime.fromisoformat(run["started"]).timestamp(), run["wall_seconds"])
                                 for run in runs(workspace)):
        end = begin + seconds
        total += max(0.0, end - max(begin, until))
        until = max(until, end)
    return total / 60


def gigabytes(workspace: Path) -> str:
    """Return the peak memory of the hungriest stage."""
    return f"{max(run['peak_memory_mib'] for run in runs(workspace)) / 1024:.1f} GB"


def processor(workspace: Path) -> str:
    """Return the processors that a workspace was recorded on."""
    return ", ".join(sorted({re.sub(r"\(R\)|\(TM\)| CPU.*| \d+-Core.*", "", run["machine"]["processor"]).strip()
                             for run in runs(workspace)}))


@cache
def locked(workspace: Path) -> dict[str, str]:
    """Return every output of `dvc.lock` with its MD5."""
    stages = yaml.load((workspace / "dvc.lock").read_text(), yaml.CSafeLoader)["stages"]
    return {out["path"]: out["md5"] for stage in stages.values() for out in stage.get("outs", [])}


def record(workspace: Path, cell: str) -> JSON:
    """Return `records/<cell>/record.json`, from the workspace or else from what the clone ships."""
    folder = f"records/{cell}"
    path = workspace / folder / "record.json"
    if not path.is_file():
        listed = json.loads(_shipped(locked(workspace)[folder]).read_text())
        path = _shipped(next(file["md5"] for file in listed if file["relpath"] == "record.json"))
    return json.loads(path.read_text())


def _shipped(md5: str) -> Path:
    return SHIPPED / md5[:2] / md5[2:]


def concentration(cell: str, key: str) -> str:
    return f"{record(OPENMOJI, f'embed/{cell}')['measures']['concentration_ratio_img'][key]:.2f}"


def course(cell: str, name: str) -> list[float]:
    """Return a measure of collapse at the checkpoints of a distillation."""
    return record(OPENMOJI, f"distill/{cell}")["course"]["checkpoints"][name]


def measured(cell: str, name: str) -> str:
    """Return a measure of collapse after the last iteration of a distillation."""
    return f"{course(cell, name)[-1]:.3f}"


def sets_of(method: str, budget: int) -> dict[int, SetResult]:
    """Return the mean recall of every set of a method, with its students' deviation."""
    students = read_params(OPENMOJI / "params.yaml").evaluate.num_seeds
    contents = (json.loads((OPENMOJI / f"metrics/held-out/{method}{seed}-{budget}.json").read_text()) for seed in SEEDS)
    return {number: SetResult(each["mean"], each["mean_std"], students) for number, each in enumerate(contents)}


def with_ends(first: Mapping[int, SetResult], second: Mapping[int, SetResult]) -> tuple[float, float, float]:
    """Return the difference of two methods and the ends of its interval over sets."""
    found = difference(first, second)
    ends = found.interval()
    assert ends is not None
    return found.estimate, *ends


def in_points(estimate: float, low: float, high: float) -> str:
    return f"{estimate:+.1f} [{low:+.1f}, {high:+.1f}]"
