"""What several sets of the same settings reach, and by how much two methods differ, with a 95 % interval.

Two levels of draws. A *set* of a method has a seed: initial pairs, experts' order, mini-batches, blends; of a coreset
whatever it draws. *Students* of a set differ in their initial heads and mini-batches; those of another seed have other
draws, so that they are nested in their set. With y_ij what student j of set i reaches, the model is that of random
effects,

    y_ij = mu + a_i + e_ij,    a_i ~ (0, sigma_a^2) between sets,    e_ij ~ (0, sigma_e^2) between students,

so that the mean m_i of the n students of a set has the variance sigma_a^2 + sigma_e^2 / n. With M sets:

- the mean is that of the m_i, `between_sets` = s their sample standard deviation: it has the students' share in it;
- `between_students` is the root of the mean of the students' variances;
- the interval of the mean is mean +- t(M - 1) s / sqrt(M), exact where the m_i are normal with one variance, whatever
  part of that is the students': a set with its students is one draw.

A difference of two methods, first minus second, has one of three forms:

- **paired**, where both have sets of two or more common seeds, which share initial pairs and students' draws: with d_i
  the differences of set means of one seed, mean(d) +- t(M - 1) s_d / sqrt(M). Exact for normal d_i, whatever the sets
  of one seed have in common. Sets of other seeds do not count;
- **Welch**, where they have not, and several sets each: the error is e^2 = s_1^2 / M_1 + s_2^2 / M_2, with
  Satterthwaite's degrees of freedom, e^4 / (s_1^4 / (M_1^2 (M_1 - 1)) + s_2^4 / (M_2^2 (M_2 - 1)));
- **unknown**, where a method has one set: how far its sets differ cannot be told from one, so there is no interval. The
  other's set of the same seed is what it is compared with, if there is one.

Sets that differ by the same in every digit say nothing of how far others would: no interval either.

Beside it stands `between_students`, the standard deviation of the difference of one student of each: no interval.

This project's definitions. Tested against closed forms, printed quantiles, the hierarchical bootstrap of
`scipy.stats`, and the coverage of drawn sets.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

S = TypeVar("S")
LEVEL = 0.95
ONE_SET, NO_SPREAD, ONE_MEASUREMENT = "one set", "sets agree in every digit", "one measurement"
"""Why an interval is unknown."""


@dataclass(frozen=True)
class SetResult:
    """What one set reaches."""

    mean: float
    """Over its students."""
    std: float = 0.0
    """Sample standard deviation over them; 0 of one alone, or where nothing was drawn."""
    num: int = 1
    """Students."""


Sets = Mapping[int, SetResult]
"""Seed of the set -> what it reaches."""


def quantile_of_t(level: float, degrees: float) -> float:
    """Return the quantile of Student's t distribution."""
    from scipy.special import stdtrit  # slow to import, and only needed where there are several sets

    return float(stdtrit(degrees, level))


@dataclass(frozen=True)
class OverSets:
    """What several sets of the same settings reach, in the unit of their numbers."""

    mean: float
    between_sets: float
    """Sample standard deviation of the sets' means."""
    between_students: float
    """Root mean square of the deviations over the students of a set."""
    half_width: float
    """Of the 95 % interval around the mean."""

    @classmethod
    def of(cls, sets: Sequence[SetResult]) -> "OverSets":
        """Sum two or more sets up."""
        between = statistics.stdev(each.mean for each in sets)
        return cls(statistics.fmean(each.mean for each in sets), between,
                   math.sqrt(statistics.fmean(each.std**2 for each in sets)),
                   quantile_of_t((1 + LEVEL) / 2, len(sets) - 1) * between / math.sqrt(len(sets)))


@dataclass(frozen=True)
class Difference:
    """First minus second, in the unit of their numbers."""

    estimate: float
    error: float | None
    """Standard error over sets; None where one has a single set."""
    degrees: float
    """Of freedom, of Student's t."""
    form: str
    """`paired`, `Welch` or `unknown`."""
    between_students: float | None
    """Standard deviation of one student's of the first minus one's of the second; None without students."""

    def interval(self, level: float = LEVEL) -> tuple[float, float] | None:
        """Return the interval that holds the difference of any sets of both methods; None where it is unknown."""
        if not self.error:
            return None
        half = quantile_of_t((1 + level) / 2, self.degrees) * self.error
        return self.estimate - half, self.estimate + half

    @property
    def unknown(self) -> str:
        """Why there is no interval."""
        return ONE_SET if self.error is None else NO_SPREAD


def comparable(first: Mapping[int, S], second: Mapping[int, S]) -> tuple[Mapping[int, S], Mapping[int, S]]:
    """Return what of two methods' sets is compared: those of common seeds where that pairs several, or where one has a
    single set; else all.

    Args:
        first: from the seed of a set to the set.
        second: likewise.
    """
    common = first.keys() & second.keys()
    if len(common) >= 2 or (common and min(len(first), len(second)) < 2):
        first, second = ({seed: each[seed] for seed in sorted(common)} for each in (first, second))
    return first, second


def difference(first: Sets, second: Sets) -> Difference:
    """Return by how much one method is above another, in the form that their sets allow.

    Args:
        first: one set or more.
        second: likewise.
    """
    first, second = comparable(first, second)
    both, paired = (first, second), first.keys() == second.keys()
    means = [[each[seed].mean for seed in sorted(each)] for each in both]
    estimate = statistics.fmean(means[0]) - statistics.fmean(means[1])
    least = min(map(len, both))
    if least < 2:
        error, degrees, form = None, 0.0, "unknown"
    elif paired:
        apart = [one - other for one, other in zip(*means, strict=True)]
        error, degrees, form = statistics.stdev(apart) / math.sqrt(least), least - 1.0, "paired"
    else:
        error, degrees = _welch([(statistics.variance(each), len(each)) for each in means])
        form = "Welch"
    return Difference(estimate, error, degrees, form, _between_students(first, second))


def _welch(parts: Sequence[tuple[float, int]]) -> tuple[float, float]:
    """Return standard error and degrees of freedom of a sum or difference of means, each of variance and number."""
    of_means = [variance / num for variance, num in parts]
    below = sum(each**2 / (num - 1) for each, (_, num) in zip(of_means, parts, strict=True))
    degrees = sum(of_means)**2 / below if below else min(num for _, num in parts) - 1.0
    return math.sqrt(sum(of_means)), degrees


def _between_students(first: Sets, second: Sets) -> float | None:
    if all(each.num < 2 for sets in (first, second) for each in sets.values()):
        return None
    return math.sqrt(sum(statistics.fmean(each.std**2 for each in sets.values()) for sets in (first, second)))


@dataclass(frozen=True)
class Ratio:
    """First over second, of things that are counted, or measured in rounds of one kind: no set is drawn."""

    estimate: float
    ends: tuple[float, float] | None
    """Lowest and highest; both the estimate of what is counted, None of a single measurement."""
    form: str
    """`counted`, `range over rounds` or `one measurement`."""
    between_students: None = None

    def interval(self, level: float = LEVEL) -> tuple[float, float] | None:
        """Return the whole range, whatever the level; None where it is unknown."""
        return self.ends

    @property
    def unknown(self) -> str:
        """Why there is no interval."""
        return ONE_MEASUREMENT


def counted(first: float, second: float) -> Ratio:
    """Return the ratio of two counts."""
    return Ratio(first / second, (first / second,) * 2, "counted")


def measured_once(first: float, second: float) -> Ratio:
    """Return the ratio of two measurements that were made once each."""
    return Ratio(first / second, None, ONE_MEASUREMENT)


def over_rounds(first: tuple[float, float, float], second: tuple[float, float, float]) -> Ratio:
    """Return the ratio of two measurements in rounds.

    Args:
        first: median, lowest and highest over its rounds.
        second: likewise.
    """
    return Ratio(first[0] / second[0], (first[1] / second[2], first[2] / second[1]), "range over rounds")
