"""`repro compare`: do the recorded results hold here?

Recorded is what a commit of the clone (`HEAD` by default) or another workspace's folder holds: `dvc.lock`,
`runs.jsonl`, `metrics` and `params.yaml`. A result counts only if its stage ran here, as its log and `runs.jsonl` show:
one that came with the clone or was pulled is named as such. Bytes are compared by the hashes of dvc.lock, results by
the mean recall or accuracy of the protocol that selects on held-out data.

A difference is judged by the spread of students alone: two standard errors of the difference of both means. Of many
results one in twenty lies outside of that by chance, so a result disagrees only beyond Student's limit at 5 % for all
comparisons together (Welch's degrees of freedom, Bonferroni). A coreset of other pairs is no disagreement: which pairs
come next can hang on the last bit of a sum.
"""

import datetime
import io
import math
import sys
import tarfile
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import FiniteFloat, TypeAdapter

from repblend.params.reading import read_yaml
from repblend.records.base import Run, read_typed
from repblend.records.results import METRIC_DECIMALS
from repblend.report.table import in_columns
from repblend.runtime.locked import LOCK, Lock, LockedStage, Output, check_outputs, lies_in, outdated, read_list
from repblend.runtime.provenance import git, git_bytes, read_runs
from repblend.runtime.settings import SETTINGS
from repblend.store import read_json, repository_of
from repro.artifacts.look import NOT_RESULTS
from repro.profiles import Profile, profiles_of
from repro.workspace import cache_of, find_root

METRICS, RUNS = "metrics/held-out", "runs.jsonl"
FILES = (LOCK, RUNS, "metrics", "params.yaml")
"""What is recorded of a workspace."""
FLAT = TypeAdapter(dict[str, FiniteFloat])
VALUES = ("mean", "accuracy")
"""The flat metric that counts, by the kind of pipeline."""
SHIPPED = Path("artifacts/files/md5")
COMPARED_BY, CHANCE = 2.0, 0.05
"""Standard errors within which results agree; and how often any result of a comparison lies beyond its limit by
chance."""
AROUND_S = 120.0
"""Between a run's own times and those of its log: a stage imports first, and may log nothing."""
NOTHING = 2
"""Exit code where no result was computed here, so that none was compared."""


# Bytes.


@dataclass(frozen=True)
class Verdict:
    """What became of one output."""

    stage: str
    path: str
    expected: str | None
    """Recorded hash; None if there is none."""
    found: str | None
    """Hash here; None if it was not made."""

    @property
    def same(self) -> bool:
        return self.expected is not None and self.expected == self.found

    def __str__(self) -> str:
        if self.same:
            return f"same     {self.path}"
        if self.found is None:
            return f"MISSING  {self.path} (stage {self.stage})"
        if self.expected is None:
            return f"UNKNOWN  {self.path} (stage {self.stage}; dvc.lock does not know it)"
        return f"DIFFERS  {self.path} (stage {self.stage}: expected {self.expected}, found {self.found})"


def verdicts_of(expected: Mapping[str, Output], found: Mapping[str, Output], stages: Collection[str]) -> list[Verdict]:
    """Return a verdict for every output of the stages, in the order of their names."""
    every = {**expected, **found}
    return [Verdict(output.stage, path, expected[path].md5 if path in expected else None,
                    found[path].md5 if path in found else None)
            for path, output in sorted(every.items(), key=lambda item: (item[1].stage, item[0]))
            if output.stage in stages]


# What a workspace holds, or held.


@dataclass(frozen=True)
class Results:
    """Outputs, runs and metrics of a workspace, now or as recorded."""

    name: str
    lock: Lock
    runs: Mapping[str, Run]
    """Stage, as its command calls it -> its last run."""
    metrics: Mapping[str, Mapping[str, float]]
    """Path -> flat metrics."""
    params: Any

    @classmethod
    def in_folder(cls, folder: Path, name: str | None = None) -> "Results":
        """Read a workspace's results.

        Raises:
            ValueError: `dvc.lock`, `runs.jsonl` or a metric is missing or not as expected.
        """
        metrics = {}
        for path in sorted((folder / METRICS).glob("*.json")):
            metrics[f"{METRICS}/{path.name}"] = read_typed(path, FLAT, "flat metric, numbers by their names",
                                                           f"Bring it back: git checkout HEAD -- {path}")
        return cls(name or str(folder), Lock.read(folder / LOCK),
                   {run.stage: run for run in read_runs(folder / RUNS)}, metrics, read_yaml(folder / "params.yaml"))

    @classmethod
    def in_commit(cls, workspace: Path, commit: str) -> "Results | None":
        """Read what a commit of the clone has of a workspace; None if it has no results of it.

        Raises:
            ValueError: there is no such commit, or a file of it is not as expected.
        """
        root = repository_of(workspace)
        found = git(root, "rev-parse", "--verify", "--end-of-options", f"{commit}^{{commit}}")
        wanted = [(workspace.relative_to(root) / name).as_posix() for name in FILES]
        here = git(root, "ls-tree", "--name-only", found, "--", *wanted).splitlines()
        if set(wanted) - set(here):
            return None
        with tempfile.TemporaryDirectory(prefix="repro-compare-") as folder:
            archive = git_bytes(root, "archive", "--format=tar", found, "--", *wanted)
            with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
                tar.extractall(folder, filter="data")
            name = found[:7] if found.startswith(commit) else f"{commit}, {found[:7]}"
            return cls.in_folder(Path(folder) / workspace.relative_to(root), name)

    def value(self, path: str) -> tuple[float, float | None] | None:
        """Return mean and deviation of a result; None if it is not there."""
        found = self.metrics.get(path, {})
        return next(((found[key], found.get(f"{key}_std")) for key in VALUES if key in found), None)

    def needed(self, stage: str) -> Iterator[str]:
        """Yield a stage and all that it needs."""
        waiting, seen = [stage], {stage}
        while waiting:
            yield (name := waiting.pop())
            makers = {maker.stage for dep in self.lock.stages[name].deps if (maker := self.lock.maker(dep.path))}
            waiting += makers - seen
            seen |= makers


# Results.


class Status(StrEnum):
    """What a result is, in the order in which results are listed."""

    DISAGREES = "disagrees"
    OTHER_PAIRS = "other pairs"
    CHANCE = "agrees within chance"
    AGREES = "agrees"
    SAME = "the same"
    NOT_HERE = "recorded, not computed here"
    OTHER_PARAMETERS = "other parameters"
    NOT_RECORDED = "not recorded"


COMPARED = (Status.DISAGREES, Status.OTHER_PAIRS, Status.CHANCE, Status.AGREES, Status.SAME)


@dataclass(frozen=True)
class Difference:
    """One result, recorded and here."""

    cell: str
    status: Status
    recorded: tuple[float, float | None] | None
    here: tuple[float, float | None] | None
    """None where it was not computed here."""
    num_students: int
    on_recorded_set: bool = False
    """Whether only students were trained here, on the set that was recorded."""

    @property
    def difference(self) -> float:
        assert self.recorded and self.here
        return self.here[0] - self.recorded[0]

    @property
    def _variances(self) -> list[float]:
        return [(each[1] or 0.0)**2 / self.num_students for each in (self.recorded, self.here) if each]

    @property
    def error(self) -> float:
        """The standard error of the difference."""
        return math.sqrt(sum(self._variances))

    def limit(self, num_comparisons: int) -> float:
        """Return the standard errors beyond which a result disagrees, among so many."""
        from scipy.special import stdtrit  # slow to import, and seldom needed

        degrees = sum(self._variances)**2 / sum(each**2 / max(1, self.num_students - 1) for each in self._variances)
        return float(stdtrit(degrees, 1 - CHANCE / 2 / num_comparisons))

    def row(self) -> tuple[str, ...]:
        difference = (f"{self.difference:+.1f} ± {COMPARED_BY * self.error:.1f}" if self.status in COMPARED else "")
        note = " (students alone: the set is the recorded one)" if self.on_recorded_set else ""
        return self.cell, _shown(self.recorded), _shown(self.here), difference, self.status + note


def _shown(value: tuple[float, float | None] | None) -> str:
    return "-" if value is None else f"{value[0]:.1f}" if value[1] is None else f"{value[0]:.1f} ± {value[1]:.1f}"


def _pairs_in(path: Path) -> Any:
    """The pairs that a coreset's record names; None if it is none: records of any age are compared."""
    found = read_json(path)
    return found.get("pairs") if isinstance(found, dict) else None


@dataclass(frozen=True)
class Comparison:
    """What a workspace has computed, against what is recorded."""

    recorded: Results
    here: Results
    num_students: int
    unfit: Mapping[str, str]
    """Output here that is not what params.yaml asks for -> the reason."""
    workspace: Path

    def ran_here(self, stage: str) -> bool:
        """Whether a stage's last run was in this workspace: its log, which nobody else has, was written then."""
        run = self.here.runs.get(_run_name(self.here.lock.stages[stage]))
        log = self.workspace / "logs" / f"{run.stage}.log" if run else None
        if run is None or log is None or not log.is_file():
            return False
        written, began = log.stat().st_mtime, datetime.datetime.fromisoformat(run.started).timestamp()
        return began - AROUND_S < written < began + run.wall_seconds + AROUND_S

    @cached_property
    def outputs(self) -> list[Verdict]:
        """A verdict for every output of stages that ran here; the report, and what stages are made of, are none."""
        stages = {stage for stage in self.here.lock.stages if stage != SETTINGS and self.ran_here(stage)}
        return [verdict for verdict in verdicts_of(self.recorded.lock.outputs, self.here.lock.outputs, stages)
                if not lies_in(verdict.path, NOT_RESULTS)]

    @cached_property
    def results(self) -> list[Difference]:
        """All results, those first that disagree."""
        paths = self.recorded.metrics.keys() | self.here.metrics.keys()
        first = [self._compare(path) for path in sorted(paths, key=_order)]
        num = sum(result.status in COMPARED for result in first)
        judged = [self._judge(result, num) for result in first]
        return sorted(judged, key=lambda result: list(Status).index(result.status))

    def _compare(self, path: str) -> Difference:
        recorded, here, maker = self.recorded.value(path), self.here.value(path), self.here.lock.maker(path)
        needed = list(self.here.needed(maker.stage)) if maker else []
        makers = [stage for stage in needed if _run_name(self.here.lock.stages[stage]) in self.here.runs]
        status, cell = Status.SAME, Path(path).stem
        if maker is None or here is None or not self.ran_here(maker.stage):
            status, here = Status.NOT_HERE, None
        elif recorded is None:
            status = Status.NOT_RECORDED
        elif path in self.unfit or not all(map(self._has_same_parameters, makers)):
            status = Status.OTHER_PARAMETERS
        return Difference(cell, status, recorded, here, self.num_students,
                          here is not None and not all(map(self.ran_here, makers)))

    def _has_same_parameters(self, stage: str) -> bool:
        name = _run_name(self.here.lock.stages[stage])
        one, other = (each.runs.get(name) for each in (self.recorded, self.here))
        return (self.recorded.params == self.here.params or one is None or other is None
                or one.parameters_sha256 == other.parameters_sha256)

    def _judge(self, result: Difference, num: int) -> Difference:
        """Return a result that is to be compared with what the comparison says."""
        if result.status is not Status.SAME or result.recorded == result.here:
            return result
        apart = abs(result.difference)
        if apart <= max(COMPARED_BY * result.error, 10**-METRIC_DECIMALS):
            status = Status.AGREES
        elif result.cell in self.other_pairs:
            status = Status.OTHER_PAIRS
        else:
            chance = result.error > 0 and apart <= result.limit(num) * result.error
            status = Status.CHANCE if chance else Status.DISAGREES
        return Difference(result.cell, status, result.recorded, result.here, result.num_students,
                          result.on_recorded_set)

    @cached_property
    def other_pairs(self) -> list[str]:
        """Coresets that were chosen here and have other pairs than the recorded ones."""
        found = []
        for path, output in self.here.lock.outputs.items():
            if path.startswith("records/select/") and self.ran_here(output.stage):
                before = self.recorded.lock.outputs.get(path)
                if before and before.md5 != output.md5 and self._pairs(before) != self._pairs(output):
                    found.append(Path(path).name)
        return sorted(found, key=_order)

    def _pairs(self, output: Output) -> Any:
        """The pairs of a coreset's record: from the workspace, DVC's cache, or what the clone ships."""
        root = repository_of(self.workspace)
        if self.here.lock.outputs.get(output.path) == output and (self.workspace / output.path).is_dir():
            return _pairs_in(self.workspace / output.path / "record.json")
        for store in (cache_of(root) / "files/md5", root / SHIPPED):
            listing = store / output.md5[:2] / output.md5[2:]
            name = read_list(listing).get("record.json", "none") if listing.is_file() else "none"
            if (record := store / name[:2] / name[2:]).is_file():
                return _pairs_in(record)
        return None

    # In words.

    @property
    def exit_code(self) -> int:
        if any(result.status is Status.DISAGREES for result in self.results):
            return 1
        return 0 if any(result.status in COMPARED for result in self.results) else NOTHING

    def verdict(self) -> str:
        """Return what a reader has to know, in one sentence; what disagrees is named first."""
        by_status = {status: [result for result in self.results if result.status is status] for status in Status}
        compared = [result for result in self.results if result.status in COMPARED]
        processors = f"recorded on {_machines(self.recorded)}"
        if not compared and not self.outputs:
            return (f"Nothing was computed here: all {len(self.results)} results are the recorded ones "
                    f"({self.recorded.name}, {processors})")
        if self.recorded.runs == self.here.runs:
            return f"The recorded results ({self.recorded.name}) are those that were computed here, on {self.machine}"
        same = sum(verdict.same for verdict in self.outputs)
        if not compared:
            return (f"No result was computed here yet; of what was, {same} of {len(self.outputs)} outputs have the "
                    f"recorded bytes ({self.recorded.name}, {processors})")
        parts = []
        if wrong := by_status[Status.DISAGREES]:
            parts.append("Disagree: " + ", ".join(f"{each.cell} ({each.row()[3]})" for each in wrong))
        if same == len(self.outputs):
            parts.append(f"the same bytes: {same} of {same} outputs")
        else:
            machine = (f"another processor ({self.machine}, {processors})" if self.machine != _machines(self.recorded)
                       else f"the same kind of processor ({self.machine}), {same} of {len(self.outputs)} outputs with "
                       "the same bytes")
            close = sum(len(by_status[status]) for status in (Status.AGREES, Status.SAME))
            parts.append(f"{machine}: {close} of {len(compared)} results agree within two standard errors")
        if near := by_status[Status.CHANCE]:
            parts.append(f"{_names(near)} outside of that, but within what chance gives {len(compared)} comparisons")
        if self.other_pairs:
            parts.append(f"{', '.join(self.other_pairs)} chose other pairs")
        parts += [f"{words}: {_names(by_status[status])}" for status, words in (
            (Status.NOT_HERE, "not computed here"), (Status.OTHER_PARAMETERS, "of other parameters, not compared"))
            if by_status[status]]
        text = "; ".join(parts)
        return text[0].upper() + text[1:]

    @property
    def machine(self) -> str:
        """What computed here."""
        return _machines(self.here, {_run_name(stage) for name, stage in self.here.lock.stages.items()
                                     if self.ran_here(name)})

    def text(self) -> str:
        """Return the verdict, and a line per result."""
        head = ("result", f"recorded ({self.recorded.name})", "here", "difference", "")
        return "\n".join([f"{self.verdict()}.", "", *in_columns([head, *(each.row() for each in self.results)]), "",
                          WORDS.format(num=self.num_students)])


WORDS = ("Mean and deviation of {num} students, in percent, epoch chosen on held-out data; of a difference, two "
         "standard errors of students.")


def _names(results: Sequence[Difference]) -> str:
    return ", ".join(result.cell for result in results)


def _order(path: str) -> tuple[bool, int, str]:
    """Cells by budget, and last what has none."""
    name, _, budget = Path(path).stem.rpartition("-")
    return (False, int(budget), name) if budget.isdigit() else (True, 0, path)


def _run_name(stage: LockedStage) -> str:
    """Return a stage as `runs.jsonl` has it: of `python -m PACKAGE MODULE CELL`, `MODULE@CELL`."""
    return "@".join(stage.cmd.split()[3:])


def _machines(results: Results, stages: Collection[str] | None = None) -> str:
    """Return what stages ran on."""
    return ", ".join(sorted({run.computed_on for name, run in results.runs.items()
                             if stages is None or name in stages})) or "an unknown machine"


def comparison(profile: Profile, against: str | None = None) -> Comparison | None:
    """Compare a workspace with what is recorded; None where nothing is.

    Args:
        against: a commit, or the folder of a clone or workspace; by default the last commit.

    Raises:
        ValueError: there is no such thing, or a file is not as expected; an output here is not what dvc.lock says.
    """
    workspace = profile.workspace
    recorded = _recorded(workspace, against)
    if recorded is None or not (workspace / LOCK).is_file():
        return None
    here = Results.in_folder(workspace, "here")
    return Comparison(recorded, here, profile.kind.num_students(profile.params()),
                      outdated(workspace, here.lock, profile.kind.pipeline), workspace)


def _recorded(workspace: Path, against: str | None) -> Results | None:
    if against is not None and Path(against).is_dir():
        folder = Path(against).resolve()
        inside = folder / workspace.relative_to(repository_of(workspace))
        return Results.in_folder(inside if (inside / LOCK).is_file() else folder)
    return Results.in_commit(workspace, against or "HEAD")


def main(against: str | None, name: str) -> int:
    """`repro compare`: print the verdict and every result of a profile, or of each of a suite. Return 1 if results
    disagree, 2 if none was computed here, else 0.
    """
    codes: list[int] = []
    try:
        for profile in profiles_of(find_root(), name):
            check = Lock.read(profile.workspace / LOCK)
            check_outputs(profile.workspace, check)
            found = comparison(profile, against)
            if found is None:
                raise ValueError(f"{against or 'HEAD'}: holds no results of {profile.workspace}; expected "
                                 f"{', '.join(FILES)}. Name a commit or a folder that does, or commit yours")
            print(found.text())
            codes.append(found.exit_code)
    except (ValueError, OSError) as error:
        print(f"repro compare: {error}", file=sys.stderr)
        return 1
    return 1 if 1 in codes else max(codes)
