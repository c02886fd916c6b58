"""What becomes of a claim: its comparisons with their intervals, and the verdict, by one rule for every report.

A comparison is one number of one budget for the first method and for one of the others. It **holds** where the interval
of its effect (`intervals`) lies above the rule's neutral value, does **not hold** where it lies below, and is
**undecided** else, also where the interval is unknown because a method has one set, or a cost was measured once. Those
that have an interval decide the claim. It

- holds where every one of them holds (each at 95 %: all have to agree, so none has to be corrected for the rest), and
  none of those without an interval lies on the wrong side; the verdict says how many of all they are;
- does not hold where at least one lies on the wrong side by its interval at 1 - 0.05 / (their number), so that chance
  gives a wrong "does not hold" once in twenty claims at most (Bonferroni);
- is undecided else, also where none has an interval; and not run where no comparison was.

Which budgets have several sets is a parameter (`grid.seed_budgets`), so it is settled before anything is measured.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from repblend.escape import one_line
from repblend.report.claims import RULES, Entry, NotKnown, PublishedEffect, published_effects
from repblend.report.intervals import LEVEL, Difference, Ratio, SetResult, Sets, comparable, counted, difference
from repblend.report.table import NOT_RUN, CellValue, Column, Derived, Table, TableRow, columns, in_columns

HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "undecided"
VERDICTS = (HOLDS, FAILS, UNDECIDED, NOT_RUN)
COMBINED = ("A claim holds where every comparison with an interval does, and none without one lies on the other side. "
            "It does not hold where an interval lies there that is corrected for their number (Bonferroni). Else it is "
            "undecided. Intervals are over sets, of one split of one data set and one pool of experts or teachers: "
            "they do not say what other data would give")
RULE = " ".join(f"{rule.words}." for rule in RULES.values()) + f" {COMBINED}."
SHOWN_FILES = 2
"""Of a comparison, in words; it counts the others."""
Found = dict[int, tuple[SetResult, str]]
"""Seed -> what its set reaches, and the file that has it."""


@dataclass(frozen=True)
class Trial:
    """One comparison for a claim."""

    where: str
    """What sets it apart from the claim's other comparisons: `50 pairs`."""
    against: str
    """What the first is compared with, as titles have it."""
    first: float | None
    second: float | None
    """Means over sets; None where they were not run."""
    effect: Difference | Ratio | None
    """None where either was not run."""
    neutral: float
    sets: tuple[int, int]
    """How many sets of each; 0 of what has none."""
    files: tuple[str, ...]
    """Records and other files behind it; the first one's first."""
    digits: int = 1

    @property
    def run(self) -> bool:
        return self.effect is not None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Of 95 %; None where it is unknown."""
        return self.effect.interval() if self.effect else None

    def verdict_at(self, level: float) -> str:
        """Return the verdict by an interval of another level."""
        if self.effect is None:
            return NOT_RUN
        interval = self.effect.interval(level)
        if interval is None:
            return UNDECIDED
        return HOLDS if interval[0] > self.neutral else FAILS if interval[1] < self.neutral else UNDECIDED

    @property
    def verdict(self) -> str:
        return self.verdict_at(LEVEL)

    @property
    def said(self) -> str:
        """The verdict; where the interval is unknown, with the reason in brackets."""
        unknown = self.effect.unknown if self.effect and self.interval is None else ""
        return f"{self.verdict} ({unknown})" if unknown else self.verdict

    @property
    def shown(self) -> str:
        """The effect with its interval, or, without one, with the deviation between students, which is called that."""
        if self.effect is None:
            return NOT_RUN
        form = f"{{:.{self.digits}f}}×" if isinstance(self.effect, Ratio) else f"{{:+.{self.digits}f}}"
        effect, students = form.format(self.effect.estimate), self.effect.between_students
        if self.interval is None:
            return effect if students is None else f"{effect} (students ± {students:.{self.digits}f})"
        low, high = map(form.format, self.interval)
        return f"{effect} [{low}, {high}]" if self.interval[0] < self.interval[1] else effect

    def to_json(self) -> dict[str, Any]:
        low, high = self.interval or (None, None)
        effect = self.effect
        return {"where": self.where, "against": self.against, "first": self.first, "second": self.second,
                "effect": effect and effect.estimate, "low": low, "high": high,
                "between_students": effect and effect.between_students, "by": effect and effect.form,
                "sets": list(self.sets), "verdict": self.said, "files": list(self.files)}


def trial(where: str, against: str, first: Found, second: Found, digits: int = 1) -> Trial:
    """Return the comparison of two methods by their sets; without one of either it was not run."""
    first, second = comparable(first, second)
    results = [{seed: result for seed, (result, _) in found.items()} for found in (first, second)]
    files = tuple(dict.fromkeys(file for found in (first, second) for _, file in found.values()))
    return Trial(where, against, *map(_over, results), difference(*results) if all(results) else None, 0.0,
                 (len(first), len(second)), files, digits)


def _over(sets: Sets) -> float | None:
    return sum(each.mean for each in sets.values()) / len(sets) if sets else None


def ratio_trial(where: str, against: str, first: float | None, second: float | None, effect: Ratio | None,
                files: Iterable[str]) -> Trial:
    """Return the comparison of two numbers without draws; without an effect it was not run."""
    return Trial(where, against, first, second, effect, 1.0, (0, 0), tuple(dict.fromkeys(files)))


def counted_trial(where: str, against: str, first: tuple[int, str] | None, second: tuple[int, str] | None) -> Trial:
    """Return the comparison of two counts, each with its file; without either it was not run."""
    numbers = [None if each is None else float(each[0]) for each in (first, second)]
    effect = counted(first[0], second[0]) if first and second and second[0] else None
    return ratio_trial(where, against, numbers[0], numbers[1], effect, [each[1] for each in (first, second) if each])


@dataclass(frozen=True)
class Claim:
    """A claim, every comparison for it, and what is published of it."""

    entry: Entry
    trials: tuple[Trial, ...]
    published: tuple[PublishedEffect, ...]

    @property
    def words(self) -> str:
        return self.entry.claim

    @cached_property
    def run(self) -> tuple[Trial, ...]:
        return tuple(each for each in self.trials if each.run)

    @cached_property
    def deciding(self) -> tuple[Trial, ...]:
        """The comparisons that have an interval."""
        return tuple(each for each in self.run if each.interval)

    @cached_property
    def verdict(self) -> str:
        """By the rule of `COMBINED`."""
        if not self.run:
            return NOT_RUN
        if any(each.verdict_at(1 - (1 - LEVEL) / len(self.deciding)) == FAILS for each in self.deciding):
            return FAILS
        agree = all(each.verdict == HOLDS for each in self.deciding) and not self.opposed
        return HOLDS if self.deciding and agree else UNDECIDED

    @cached_property
    def opposed(self) -> tuple[Trial, ...]:
        """The comparisons without an interval that lie on the wrong side."""
        return tuple(each for each in self.run if not each.interval and each.effect
                     and each.effect.estimate <= each.neutral)

    @property
    def said(self) -> str:
        """The verdict; in brackets why no comparison decides, or how many of all do."""
        unknown = dict.fromkeys(each.effect.unknown for each in self.run if each.effect)
        if self.run and not self.deciding:
            return f"{self.verdict} ({', '.join(unknown)})"
        some = len(self.deciding) < len(self.trials)
        partly = f" ({len(self.deciding)} of {len(self.trials)} comparisons)" * (self.verdict == HOLDS and some)
        return self.verdict + partly

    @property
    def why(self) -> str:
        """What does not decide, and how often; empty if there is nothing to say."""
        of = f"of {len(self.trials)} comparisons"
        alone = len(self.run) - len(self.deciding)
        open_ones = [each for each in self.deciding if each.verdict == UNDECIDED]
        below = [each for each in self.deciding if each.verdict == FAILS]
        return "; ".join(words for number, words in (
            (len(self.trials) - len(self.run), f"{len(self.trials) - len(self.run)} {of} not run"),
            (alone, f"{alone} {of} without an interval"),
            (self.verdict == UNDECIDED and len(self.opposed), f"{len(self.opposed)} of these on the other side"),
            (self.verdict == UNDECIDED and len(open_ones),
             f"in {len(open_ones)} {of} the interval holds the value of no difference"),
            (self.verdict == UNDECIDED and len(below), f"in {len(below)} {of} it lies below, but not as corrected for "
             "their number")) if number)

    @property
    def published_words(self) -> str:
        if isinstance(self.entry.published, NotKnown):
            return f"unknown: {self.entry.published.unknown}"
        return "; ".join(map(str, self.published))

    @property
    def files(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(file for each in self.run for file in each.files))

    def to_json(self) -> dict[str, Any]:
        """Everything that is said of the claim, for programs."""
        entry = self.entry
        published = [{"file": f"{each.file}.csv", "evidence": each.evidence, "lowest": float(min(each.values)),
                      "highest": float(max(each.values)), "comparisons": len(each.values)} for each in self.published]
        return {"name": entry.name, "claim": entry.claim, "stands": entry.stands, "measure": entry.measure,
                "metrics": entry.metrics, "rule": entry.rule, "published": published,
                "published_words": self.published_words, "verdict": self.said, "why": self.why,
                 "comparisons": [each.to_json() for each in self.trials]}


def judge(root: Path, entry: Entry, trials: Iterable[Trial]) -> Claim:
    """Return a claim with its comparisons and published effects; raises `ValueError` as `published_effects`."""
    published = published_effects(root, [] if isinstance(entry.published, NotKnown) else entry.published)
    return Claim(entry, tuple(trials), tuple(published))


# As a table, and in words.


def claims_table(claims: Sequence[Claim]) -> Table:
    """Return every comparison behind the claims, with its interval and verdict; in the CSV with all files."""
    head = (*columns("claim"), Column("where", "Where"), Column("against", "Against"), Column("first", "First"),
            Column("second", "Second"), Column("effect", "Effect"), Column("low", "95 % from"), Column("high", "to"),
            Column("between_students", "Between students"), Column("sets", "Sets"), Column("by", "By"),
            *columns("verdict"))
    caption = (f"Every comparison behind the claims. {RULE} Between students: standard deviation of the difference of "
               "one student of each, which is no interval")
    rows = [(TableRow((claim.words, *_cells(each)), each.files[0] if each.run and each.files else None),
             "; ".join(each.files)) for claim in claims for each in claim.trials]
    long = [TableRow((*row.cells, files), row.file) for row, files in rows]
    return Table("claims", caption, head, tuple(row for row, _ in rows),
                 Table("claims", caption, (*head, *columns("files")), tuple(long)))


def _cells(each: Trial) -> tuple[CellValue, ...]:
    effect, form = each.effect, f"{{:.{each.digits}f}}"
    low, high = each.interval or (None, None)

    def number(value: float | None, else_: str = "unknown") -> CellValue:
        return None if effect is None else else_ if value is None else Derived(value, form)

    counts = f"{each.sets[0]} : {each.sets[1]}" if any(each.sets) else "–"
    return (each.where, each.against, *(None if value is None else Derived(value, form)
                                        for value in (each.first, each.second)),
            *(number(value) for value in (effect and effect.estimate, low, high)),
            number(effect and effect.between_students, "–"),
            *((counts, effect.form, each.said) if effect else (None,) * 3))


def claims_text(claims: Sequence[Claim]) -> str:
    """Return every claim with what is published, ours, the verdict and the files behind it."""
    return "\n\n".join(map(_told, claims))


def _told(claim: Claim) -> str:
    entry = claim.entry
    said = [f"{entry.name}; {entry.stands}; rule {entry.rule}", f"published: {claim.published_words}",
            *[claim.why] * bool(claim.run and claim.why)]
    several = len(entry.second) > 1
    lines = [list(map(one_line, (each.where, f"over {each.against}" * several, each.shown,
                                 f"{each.first:,.{each.digits}f} : {each.second:,.{each.digits}f}", each.said,
                                 _listed(each.files))))
             for each in claim.run if each.first is not None and each.second is not None]
    return "\n".join([one_line(f"{claim.said.upper()}: {claim.words}"), *(f"  {one_line(each)}" for each in said),
                      *(f"    {line}" for line in (in_columns(lines) if lines else []))])


def _listed(files: Sequence[str]) -> str:
    more = f" and {len(files) - SHOWN_FILES} more" if len(files) > SHOWN_FILES else ""
    return ", ".join(files[:SHOWN_FILES]) + more


def counted_words(claims: Sequence[Claim]) -> str:
    """Return how many claims have which verdict: `39 claims: 3 holds, 1 does not hold, 30 undecided, 5 not run`."""
    verdicts = [claim.verdict for claim in claims]
    return f"{len(claims)} claims: " + ", ".join(f"{verdicts.count(each)} {each}" for each in VERDICTS)
