"""`repro plan`: what a run would do with each stage, and what it would take, before anything starts.

`repro.estimates` says what a stage takes; here is what is made of that: totals, a page to decide by, a line per stage.
"""

import hashlib
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from repblend.costs import (
    REHEARSAL,
    Rehearsal,
    counts_of,
    with_encoders_of,
)
from repblend.methods import METHODS
from repblend.params import Params
from repblend.report.table import in_columns
from repblend.runtime.settings import SETTINGS, settings_texts
from repro.decision import assembled, disk, page, seconds_by_purpose, subsets_text, written
from repro.engines.base import On
from repro.estimates import (
    Estimate,
    Known,
    PlannedStage,
    State,
    cell_of,
    missing,
    output_bytes,
    planned_stages,
    runs_of,
)
from repro.fetch.download import size_in_words
from repro.profiles import FOLDER, Profile, profiles_of
from repro.schedule import WORKERS, Job, jobs_of, schedule_text, workers_on
from repro.workspace import find_root


def main(targets: Sequence[str], name: str, stages: bool = False, workers: int | None = None,
         on: On | None = None) -> int:
    """Print the plan of the targets, or of all of the profile if there are none; return the exit code.

    Args:
        stages: list every stage; without targets they are summed up otherwise.
        workers: how many work side by side; None: as many as `on` has, or the plan says it for several numbers.
    """
    try:
        root, totals, jobs = find_root(), list[Priced](), list[Job]()
        workers = workers_on(root, on) if on and not workers else workers
        profiles = profiles_of(root, name)
        plans = {profile.name: plan(profile, root, targets) for profile in profiles}
        whole = len(profiles) > 1 and not (stages or targets)
        if whole:
            print(f"{name}: {', '.join(plans)}. `repro plan --profile {profiles[0].name}` and so on show one alone.\n")
            print(page(plans, duration, size_in_words), end="\n\n")
            print("\n".join(dict.fromkeys(line for tell in (notes, downloads) for profile in profiles
                                          for line in tell(plans[profile.name], profile, root))), end="\n\n")
        for profile in profiles:
            rows = plans[profile.name]
            if not whole:
                print(f"Profile {profile.name}, in {profile.workspace}, on device {profile.params().compute.device}\n")
                print(stages_text(rows) if stages or targets else summary_text(rows))
                print("\n".join(decision(rows, profile, root)), end="\n\n")
            totals += rows
            jobs += jobs_of(rows, profile.parts, profile.name if len(profiles) > 1 else "")
        if len(profiles) > 1 and not whole:
            print(f"All of {name}: {hours_in_words(seconds_of(totals))}. Disk: {disk_in_words(totals)}.\n")
        if side_by_side := schedule_text(jobs, [workers] if workers else WORKERS, duration):
            print(side_by_side, end="\n\n")
        print(WORDS)
    except (ValueError, OSError) as error:
        print(f"repro plan: {error}", file=sys.stderr)
        return 1
    return 0


def plan(profile: Profile, root: Path, targets: Sequence[str]) -> "list[Priced]":
    """Return what each stage that the targets need would do and take.

    Raises:
        ValueError: a target is no stage, or a file is not as expected.
    """
    workspace, params = profile.workspace, profile.params()
    settings = {(workspace / SETTINGS / path).resolve(): hashlib.md5(text.encode()).hexdigest()
                for path, text in settings_texts(profile.kind.pipeline, workspace)}
    folders = dict.fromkeys((workspace, root, *sorted((root / FOLDER).glob("*"))))
    counts = counts_of(workspace, params)
    known = Known(params, counts, [found for folder in folders if (found := runs_of(folder))],
                  [Rehearsal.read(folder / REHEARSAL) for folder in folders if (folder / REHEARSAL).is_file()])
    return [Priced(stage, replace(known, params=own).estimate(stage), output_bytes(stage, own, counts))
            for stage in planned_stages(workspace, targets, settings)
            for own in [with_encoders_of(stage.run, params)]]


# A plan as text.

WORDS = """\
Hours are of one stage after the other, on one device. measured: when the stage last ran with these parameters.
rehearsed: by `repro rehearse`. scaled: from a like stage's run. published: the authors' minutes per expert (40 and 70)
on Flickr30K's 145,000 captions, by captions (COCO has 3.9 times as many), and seconds per iteration (1.71 and 11.5) for
batches of 20, by batch sizes (MTT-VL's has 100), for NFNet-L0 and BERT; other kinds of steps by their share of
multiply-adds. Validations are the released ones: LoRS and MTT-VL train and score five students every 50 iterations.
estimated: from multiply-adds, to a factor of several. A line has the source of most of its time. GPU memory: published
(10.17 and 21.78 GiB), by batch sizes, an upper bound; memory: 3.4 GiB, and held-out pixels."""


PARTS = {"prepare": "data and features", "encode": "data and features", "initial": "data and features",
         "teacher": "teachers", "generate": "compensators", "integrate": "sets", "label": "labels",
         "validate": "students"}
"""Module -> what it is summed up under; other modules with cells under the cell's method."""


@dataclass(frozen=True)
class Priced:
    """A stage and what it takes."""

    stage: PlannedStage
    estimate: Estimate
    output_bytes: float | None
    """Of its large outputs; None: small, or not counted."""

    @property
    def seconds(self) -> float:
        """What is still to be spent on it, as far as it is known."""
        return (self.estimate.seconds or 0.0) if self.stage.state is State.RUNS else 0.0

    @property
    def is_variant(self) -> bool:
        """Whether its cell is a variant of a method."""
        cell = cell_of(self.stage.run)
        return bool(cell and not cell.is_coreset and cell.variant)

    @property
    def part(self) -> str:
        """What it is summed up under."""
        module, cell = self.stage.module, cell_of(self.stage.run)
        if module in PARTS or cell is None:
            return PARTS.get(module, module.replace("-", " "))
        return "coresets" if cell.is_coreset else METHODS[cell.base_method].title


def seconds_of(rows: Iterable[Priced]) -> float:
    """Return the seconds that are still to be spent."""
    return sum(row.seconds for row in rows)


def stages_text(rows: Sequence[Priced]) -> str:
    """Return a line per stage, and the sums of what runs."""
    head = ("stage", "state", "time", "how known", "memory", "GPU memory", "writes")
    lines = [(row.stage.name, str(row.stage.state), duration(row.seconds) if row.seconds else "-",
              row.estimate.basis if row.seconds else "", *_memory_in_words([row]), _written([row])) for row in rows]
    runs = [row for row in rows if row.stage.state is State.RUNS]
    sums = (f"{len(rows)} stages", f"{len(runs)} run", duration(seconds_of(rows)), _basis(rows),
            *_memory_in_words(rows), _written(runs))
    return "\n".join(in_columns([head, *lines, sums]))


def summary_text(rows: Sequence[Priced]) -> str:
    """Return a line per part of the grid, and the sums."""
    parts: dict[str, list[Priced]] = defaultdict(list)
    for row in rows:
        parts[row.part].append(row)
    head = ("part", "stages", "to run", "time", "how known", "memory", "GPU memory", "writes")
    lines = [(name, str(len(part)), str(sum(row.stage.state is State.RUNS for row in part)),
              duration(seconds_of(part)) if seconds_of(part) else "-", _basis(part), *_memory_in_words(part),
              _written(part)) for name, part in (*parts.items(), ("all", rows))]
    return "\n".join(in_columns([head, *lines]))


def _seconds_by_basis(rows: Iterable[Priced]) -> dict[str, float]:
    seconds: dict[str, float] = defaultdict(float)
    for row in rows:
        seconds[row.estimate.basis] += row.seconds
    return seconds


def _basis(rows: Iterable[Priced]) -> str:
    """How most of the time is known."""
    seconds = _seconds_by_basis(rows)
    return max(seconds, key=lambda basis: seconds[basis]) if any(seconds.values()) else ""


def _memory_in_words(rows: Iterable[Priced]) -> tuple[str, str]:
    """The most of main memory and of a GPU's."""
    most = (max((value for row in rows if (value := getattr(row.estimate, name)) is not None), default=None)
            for name in ("memory_gib", "gpu_gib"))
    main, gpu = ("" if value is None else f"{value:.1f} GiB" for value in most)
    return main, gpu


def _written(rows: Iterable[Priced]) -> str:
    num_bytes = written(rows)
    return size_in_words(num_bytes) if num_bytes else ""


def decision(rows: Sequence[Priced], profile: Profile, root: Path) -> Iterator[str]:
    """Yield what a person decides by: device hours, disk, downloads, and what a part of it would cost."""
    params = profile.params()
    shares = [f"{duration(value)} {basis}" for basis, value in _seconds_by_basis(rows).items() if value]
    known = f" ({', '.join(shares)})" if shares else ""
    yield f"\nTime: {hours_in_words(seconds_of(rows), params.compute.device)}{known}. Disk: {disk_in_words(rows)}."
    purposes = "; ".join(f"{purpose} {duration(seconds)}" for purpose, seconds in seconds_by_purpose(rows).items())
    yield from filter(None, (f"Of it: {purposes}." if purposes else "", subsets_text(rows, duration)))
    yield from notes(rows, profile, root)
    yield from downloads(rows, profile, root)


def notes(rows: Sequence[Priced], profile: Profile, root: Path) -> Iterator[str]:
    """Yield what else bears on a decision: encoders that published times are not of, and doubtful cells."""
    params = profile.params()
    if isinstance(params, Params):
        if more := sum(row.estimate.by_multiply_adds or 0.0 for row in rows if row.seconds):
            yield (f"Published times are NFNet-L0's and BERT's; they stand here for {params.encode.image_encoder} and "
                   f"{params.encode.text_encoder} as they are. By multiply-adds, {profile.name} would take up to "
                   f"{duration(more)}. `repro rehearse --profile {profile.name}` tells yours.")
        for caveat in dict.fromkeys(params.grid.caveats.values()):
            cells = [cell for cell, text in params.grid.caveats.items() if text == caveat]
            yield f"{', '.join(cells)}: {caveat}."


def downloads(rows: Sequence[Priced], profile: Profile, root: Path) -> Iterator[str]:
    """Yield what has to be fetched first."""
    params = profile.params()
    if absent := missing(params, root):
        yield "To be fetched first:"
        yield from (f"  {line}" for line in absent)


def hours_in_words(seconds: float, device: str = "cuda") -> str:
    """Return hours of a device, and days if there is one of it."""
    what = "GPU hours" if device == "cuda" else "hours of this processor"
    return f"{seconds / 3600:,.0f} {what}, {seconds / 86400:.1f} days on one" if seconds > 86400 else duration(seconds)


def disk_in_words(rows: Iterable[Priced]) -> str:
    """Return what a run needs: outputs, DVC's copy of them, and the largest experts again while they are assembled."""
    rows = [*rows]
    if not written(rows):
        return "little"
    return (f"{size_in_words(disk(rows))} ({size_in_words(written(rows))} of outputs, as much in DVC's cache, "
            f"{size_in_words(assembled(rows))} while experts are put together)")


def duration(seconds: float | None) -> str:
    """Return seconds in words: `40 s`, `12 min`, `3.5 h`, `288 h`; `?` if they are not known."""
    if seconds is None:
        return "?"
    for unit, name in ((1, "s"), (60, "min")):
        if seconds / unit < 100:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds / 3600:,.{1 if seconds < 360_000 else 0}f} h"
