"""The claims of both papers as `paper/claims.yaml` has them: its entries, what they may compare, published effects.

An entry says in our words what is claimed, where, what is to be compared, and by which rule it is decided. What ours
say of it is in `verdicts`; where our numbers come from, in `evidence` for RepBlend and `repblend.ufc.report.evidence`
for UFC. The 'published' column alone comes from the papers, by reference to rows of `paper/published`.

Nothing here imports matplotlib or torch.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from repblend.params.reading import explain, read_yaml
from repblend.records.base import RECALLS, Record
from repblend.records.results import MEASURES as COLLAPSE
from repblend.report.published import FILES, PublishedRow, read_published
from repblend.sections import NAME, Name, Positive

FILE = "paper/claims.yaml"
"""In the clone."""
MEND = f"Mend it, or bring the file back with `git restore {FILE}`"
START = "start"
"""In the place of a second method: the first one's own sets before their first iteration."""
ACCURACIES = ("best", "last", "best_on_test")


# What can be compared, and by which rules.


@dataclass(frozen=True)
class Measure:
    """A kind of number that claims compare."""

    paper: Literal["repblend", "ufc"]
    metrics: tuple[str, ...]
    """What an entry's `metrics` may name."""
    words: str
    unit: str = ""
    ratio: bool = False
    """Whether the first is divided by the second; else the second is taken from it."""
    digits: int = 1


CHECKPOINTS = (*COLLAPSE, "val_mean_recall")
MEASURES: dict[str, Measure] = {
    "recall": Measure("repblend", RECALLS, "recall on test, epoch chosen on validation", "points"),
    "transfer": Measure("repblend", RECALLS, "the same of students on other image encoders", "points"),
    "task": Measure("repblend", ("icons", "ten_words"), "tasks that no set was distilled for: mean recall of icons by "
                    "their names, accuracy by ten words", "points"),
    "collapse": Measure("repblend", COLLAPSE, "measures of collapse, means over reference models", digits=3),
    "course": Measure("repblend", CHECKPOINTS, "what a distillation measures after its last iteration, against another "
                      "or against its own start", digits=3),
    "sides": Measure("repblend", ("matching_loss",), "how far the matching losses of images and texts are apart, mean "
                     "over the last tenth of a distillation's iterations", digits=3),
    "cost": Measure("repblend", ("time_per_iteration", "peak_memory", "time_per_trajectory"),
                    "costs in benchmarks/efficiency.json; of the time of an iteration the range over rounds",
                    ratio=True),
    "trajectory": Measure("repblend", ("bytes",), "bytes of an expert's trajectory", ratio=True),
    "accuracy": Measure("ufc", ACCURACIES, "top-1 accuracy on test images", "points"),
    "regions": Measure("ufc", ("disagreement",), "neighbours in the plane that a student gives another class",
                       "points"),
    "passes": Measure("ufc", ("teacher_passes",), "images that go through a teacher for one student", ratio=True)}
"""What an entry's `measure` may be."""


@dataclass(frozen=True)
class Rule:
    """How comparisons of one kind are decided."""

    neutral: float
    """What the effect is where the methods do not differ."""
    ratio: bool
    words: str


RULES: dict[str, Rule] = {
    "above-everywhere": Rule(0.0, False, "A comparison holds where the 95 % interval of first minus second, over sets "
                             "of several seeds with their students, lies above 0, and does not hold where it lies "
                             "below; of a method with one set there is no interval: the comparison stays undecided"),
    "times-everywhere": Rule(1.0, True, "A ratio holds where first over second is above 1: of counts as it stands, of "
                             "times over the whole range of rounds; of what was measured once it stays undecided")}
"""What an entry's `rule` may be; `everywhere`: at every budget, by every metric, against every method of `second`."""


# Published effects.


class Published(Record):
    """A published effect that follows from rows of a file in `paper/published`."""

    file: Annotated[str, Field(pattern=f"^({'|'.join(FILES)})$")]
    first: dict[str, str]
    """Column -> what its cell holds, in the rows of the first method."""
    second: dict[str, str | list[str]]
    """Likewise of the second; where a list stands, the best of these counts."""
    value: str = "mean"
    """Column of the numbers."""
    average: str | None = None
    """Column over whose values numbers are averaged: `recall`."""
    ratio: bool = False

    @model_validator(mode="after")
    def _columns_are_of_the_file(self) -> Self:
        known = FILES[self.file]
        for column in (*self.first, *self.second, self.value, *[self.average] * bool(self.average)):
            if column not in known:
                raise ValueError(f"{self.file}.csv has no column {column!r}; expected one of {', '.join(known)}")
        if self.first.keys() != self.second.keys():
            raise ValueError("first and second name different columns; name the same in both")
        if not self.first:
            raise ValueError("first names no column; name at least the one of the method")
        return self


class NotKnown(Record):
    """Why there is no published effect."""

    unknown: Annotated[str, Field(min_length=1)]


@dataclass(frozen=True)
class PublishedEffect:
    """A published effect: one value per budget, data set and whatever else the rows differ in."""

    file: str
    """Without folder and ending."""
    values: tuple[Decimal, ...]
    evidence: str
    ratio: bool
    quantity: str = ""
    """What it is of, where the file has several."""

    def __str__(self) -> str:
        form = "{:.1f}×" if self.ratio else "{:+.3f}" if max(map(abs, self.values)) < 1 else "{:+.1f}"
        ends = dict.fromkeys(form.format(each) for each in (min(self.values), max(self.values)))
        of = f" {self.quantity.replace('_', ' ')}" if self.quantity else ""
        times = f" in {len(self.values)} comparisons" if len(self.values) > 1 else ""
        return f"{' to '.join(ends)}{of}{times} ({self.file}.csv, evidence {self.evidence})"


def published_effects(root: Path, specs: Iterable[Published]) -> list[PublishedEffect]:
    """Return the published effects of an entry.

    Args:
        root: of the clone.

    Raises:
        ValueError: as `read_published`; or no rows of a file are about both methods.
    """
    effects = []
    for spec in specs:
        rows = read_published(root, spec.file)
        first = _numbers(rows, spec, spec.first)
        seconds = [_numbers(rows, spec, dict(zip(spec.second, chosen, strict=True)))
                   for chosen in _choices(list(spec.second.values()))]
        values = []
        for key, number in first.items():
            if others := [each[key] for each in seconds if key in each]:
                values.append(number / max(others) if spec.ratio else number - max(others))
        if not values:
            raise ValueError(f"{root / FILE}: no rows of {spec.file}.csv are about both {spec.first} and "
                             f"{spec.second}. {MEND}")
        letters = sorted({row["evidence"] for row in rows if _is_of(row, spec.first)})
        effects.append(PublishedEffect(spec.file, tuple(values), "/".join(letters), spec.ratio,
                                       spec.first.get("quantity", "")))
    return effects


def _choices(values: Sequence[str | list[str]]) -> list[tuple[str, ...]]:
    """Every way to take one of each, in the order of the lists."""
    found: list[tuple[str, ...]] = [()]
    for value in values:
        found = [(*each, chosen) for each in found for chosen in ([value] if isinstance(value, str) else value)]
    return found


def _is_of(row: PublishedRow, wanted: dict[str, str]) -> bool:
    return all(str(row[column]) == value for column, value in wanted.items())


def _numbers(rows: Iterable[PublishedRow], spec: Published, wanted: dict[str, str]) -> dict[tuple[Any, ...], Decimal]:
    """The numbers of the wanted rows by what else these are about, averaged over one column."""
    apart = {*wanted, spec.value, spec.average, "mean", "std", "value", "mean_recall", "source", "evidence"}
    found: dict[tuple[Any, ...], list[Decimal]] = {}
    for row in rows:
        if _is_of(row, wanted) and (spec.average is None or row[spec.average] != "mean_recall"):
            key = tuple(value for column, value in row.values.items() if column not in apart)
            found.setdefault(key, []).append(row[spec.value])
    return {key: sum(values, Decimal(0)) / len(values) for key, values in found.items()}


# Entries.


class Entry(Record):
    """A claim as `paper/claims.yaml` has it."""

    name: Name
    claim: Annotated[str, Field(min_length=1, max_length=300)]
    """In our words."""
    stands: Annotated[str, Field(min_length=1, max_length=200)]
    """Where in the paper or in the release."""
    measure: Annotated[str, Field(pattern=f"^({'|'.join(MEASURES)})$")]
    metrics: Annotated[list[str], Field(min_length=1)]
    """What is compared of the measure."""
    first: Annotated[str, Field(pattern=f"^{NAME}$")]
    """A method or coreset, or a variant of it, as cells are named; of UFC a set and its labels: `ufc+static`."""
    second: Annotated[list[Annotated[str, Field(pattern=f"^{NAME}$")]], Field(min_length=1)]
    """What the first is compared with, each by itself."""
    budgets: Literal["all"] | Annotated[list[Positive], Field(min_length=1)]
    """`all`: those of the workspace's grid that have such cells."""
    profiles: Annotated[list[Name], Field(min_length=1)]
    """Workspaces that `repro claims` looks into; another one is asked by its name."""
    rule: Annotated[str, Field(pattern=f"^({'|'.join(RULES)})$")]
    published: list[Published] | NotKnown

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        measure = MEASURES[self.measure]
        if wrong := [metric for metric in self.metrics if metric not in measure.metrics]:
            raise ValueError(f"metrics has {wrong[0]!r}, which {self.measure} has not; expected some of "
                             f"{', '.join(measure.metrics)}")
        if RULES[self.rule].ratio != measure.ratio:
            right = next(name for name, rule in RULES.items() if rule.ratio == measure.ratio)
            raise ValueError(f"rule {self.rule!r} does not fit {self.measure}, whose effect is a "
                             f"{'ratio' if measure.ratio else 'difference'}; take {right}")
        for key in ("second", "metrics", "profiles"):
            if len(set(getattr(self, key))) < len(getattr(self, key)):
                raise ValueError(f"{key} names something twice; name it once")
        if self.first in self.second:
            raise ValueError(f"second has {self.first!r}, which is the first; name another method")
        if START in self.second and self.measure != "course":
            raise ValueError(f"second has {START!r}, which only the measure course knows; name a method")
        if self.published == []:
            raise ValueError("published is empty; name rows, or say under 'unknown' why there are none")
        return self

    @property
    def paper(self) -> str:
        return MEASURES[self.measure].paper


_ENTRY = TypeAdapter(Entry)


def read_entries(root: Path, paper: str | None = None) -> list[Entry]:
    """Return the claims of `paper/claims.yaml`.

    Args:
        root: of the clone.
        paper: `repblend` or `ufc`; both by default.

    Raises:
        ValueError: the file is missing or no YAML, or an entry lacks a key, has an unknown one, or a value that breaks
            its rule; the message names every such entry and key, the value found and what to do.
    """
    path = root / FILE
    try:
        content = read_yaml(path)
    except ValueError as error:
        raise ValueError(f"{error}. {MEND}") from error
    if not isinstance(content, list):
        raise ValueError(f"{path}: expected a list of claims. {MEND}")
    found, wrong = list[Entry](), list[str]()
    for number, each in enumerate(content, 1):
        name = f"claim {number}" + (f" ({each['name']})" if isinstance(each, dict) and "name" in each else "")
        try:
            found.append(_ENTRY.validate_python(each, strict=True))
        except ValidationError as error:
            wrong += [f"  {name}: {line.strip()}" for line in explain(path, error).splitlines()[1:]]
            continue
        if sum(each.name == found[-1].name for each in found) > 1:
            wrong.append(f"  {name}: an earlier claim has the same name")
    if wrong:
        raise ValueError("\n".join([f"{path}: {len(wrong)} value(s) that are not as a claim has them", *wrong, MEND]))
    return [entry for entry in found if paper in (None, entry.paper)]


def check_methods(root: Path, entries: Iterable[Entry], known: Callable[[str], bool], expected: str) -> None:
    """Check what claims compare, which each paper's own part of this package knows.

    Args:
        root: of the clone.
        known: whether `first`, or one of `second`, is a method.
        expected: which there are, in words.

    Raises:
        ValueError: one is not; the message names the claim and the key.
    """
    for entry in entries:
        for key, names in (("first", [entry.first]), ("second", entry.second)):
            if wrong := [name for name in names if name != START and not known(name)]:
                raise ValueError(f"{root / FILE}: claim {entry.name}: {key}: found {wrong[0]!r}, expected {expected}. "
                                 f"{MEND}")
