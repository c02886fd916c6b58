"""Intervals of means and differences over sets: against closed forms, printed quantiles, resampling and drawn sets."""

import math
import statistics

import numpy as np
import pytest
from scipy.stats import bootstrap, ttest_ind, ttest_rel

from repblend.report.intervals import (
    NO_SPREAD,
    ONE_MEASUREMENT,
    ONE_SET,
    OverSets,
    SetResult,
    counted,
    difference,
    measured_once,
    over_rounds,
    quantile_of_t,
)


def sets(*means: float, std: float = 0.0, num: int = 5, first: int = 0) -> dict[int, SetResult]:
    return {first + seed: SetResult(mean, std, num) for seed, mean in enumerate(means)}


def test_two_sets_have_the_interval_of_the_closed_form() -> None:
    found = OverSets.of([SetResult(20.0, 3.0, 5), SetResult(24.0, 4.0, 5)])
    assert found.mean == 22.0 and found.between_sets == pytest.approx(math.sqrt(8))
    assert found.between_students == pytest.approx(math.sqrt(12.5))
    # With one degree of freedom t is Cauchy's distribution: the quantile is tan(pi (p - 1/2)).
    assert found.half_width == pytest.approx(math.tan(math.pi * 0.475) * 2.0)


def test_quantiles_are_those_of_the_printed_tables() -> None:
    for degrees, printed in ((2, 4.303), (4, 2.776), (30, 2.042)):
        assert quantile_of_t(0.975, degrees) == pytest.approx(printed, abs=5e-4)


def test_a_difference_of_two_paired_sets_has_the_interval_of_the_closed_form() -> None:
    found = difference(sets(20.0, 24.0), sets(17.0, 19.0))  # differences 3 and 5: mean 4, standard error 1
    assert (found.form, found.estimate, found.degrees) == ("paired", 4.0, 1.0)
    half = math.tan(math.pi * 0.475)
    assert found.interval() == pytest.approx((4 - half, 4 + half))
    assert found.interval(0.5) == pytest.approx((3, 5))  # Cauchy's quartiles


@pytest.mark.parametrize("shift", [0, 7])
def test_a_difference_is_students_paired_one_or_welchs(shift: int) -> None:
    draw = np.random.default_rng(5)
    one, other = draw.normal(20, 2, 4), draw.normal(18, 1, 4)
    found = difference(sets(*one), sets(*other, first=shift))
    truth = (ttest_ind(one, other, equal_var=False) if shift else ttest_rel(one, other)).confidence_interval(0.95)
    assert found.form == ("Welch" if shift else "paired")
    assert found.interval() == pytest.approx((truth.low, truth.high))


def test_sets_of_two_common_seeds_are_paired_and_others_do_not_count() -> None:
    one, other = sets(20.0, 21.0, 25.0), sets(18.0, 18.5) | sets(3.0, first=9)
    truth = ttest_rel([20.0, 21.0], [18.0, 18.5]).confidence_interval(0.95)
    found = difference(one, other)
    assert (found.form, found.degrees, found.estimate) == ("paired", 1.0, 2.25)
    assert found.interval() == pytest.approx((truth.low, truth.high))
    assert difference(other, one).estimate == -2.25


def test_unequal_numbers_of_sets_of_other_seeds_are_welchs() -> None:
    one, other = [20.0, 21.0, 25.0], [18.0, 18.5]
    truth = ttest_ind(one, other, equal_var=False).confidence_interval(0.95)
    assert difference(sets(*one), sets(*other, first=5)).interval() == pytest.approx((truth.low, truth.high))


def test_one_set_has_no_interval_and_the_deviation_between_students_is_none() -> None:
    found = difference(sets(20.0, std=3.0), sets(10.0, 11.0, std=4.0))
    assert found.interval() is None and found.unknown == ONE_SET
    assert found.estimate == 10.0, "against the set of the same seed"
    assert difference(sets(20.0), sets(10.0, 11.0, first=3)).estimate == 9.5, "against all, where none is"
    assert found.between_students == pytest.approx(5.0)  # of one student each: sqrt(3^2 + 4^2)
    assert difference(sets(1.0, num=1), sets(2.0, num=1)).between_students is None


@pytest.mark.parametrize("first", [0, 4])
def test_sets_without_any_spread_decide_nothing(first: int) -> None:
    found = difference(sets(4.0, 4.0), sets(3.0, 3.0, first=first))
    assert (found.estimate, found.interval(), found.unknown) == (1.0, None, NO_SPREAD)


@pytest.mark.parametrize(("shift", "share_of_sets", "in_common"), [
    (0, 0.5, 0.0), (0, 0.5, 0.8), (9, 0.0, 0.0), (9, 0.9, 0.0)])
def test_nineteen_of_twenty_intervals_hold_the_difference_whosever_the_spread_is(
        shift: int, share_of_sets: float, in_common: float) -> None:
    draw, trials, num_sets, students = np.random.default_rng(12), 3000, 3, 5
    seeds = draw.normal(scale=math.sqrt(in_common * share_of_sets), size=(trials, 1, num_sets))
    own = draw.normal(scale=math.sqrt((1 - in_common) * share_of_sets), size=(trials, 2, num_sets))
    noise = draw.normal(scale=math.sqrt((1 - share_of_sets) / students), size=(trials, 2, num_sets))
    means = own + noise + (0 if shift else seeds)
    held = [low <= 0 <= high for low, high in (
        difference(sets(*first), sets(*second, first=shift)).interval() or (1, -1) for first, second in means)]
    standard_error = math.sqrt(0.95 * 0.05 / trials)
    # Paired intervals are exact; Welch's degrees of freedom err to the safe side with three sets.
    assert -4 * standard_error < np.mean(held) - 0.95 < (0.03 if shift else 4 * standard_error)


@pytest.mark.parametrize("share_of_sets", [0.0, 0.5, 0.95])
def test_nineteen_of_twenty_intervals_hold_the_mean_whosever_the_spread_is(share_of_sets: float) -> None:
    draw, trials, num_sets, students = np.random.default_rng(11), 4000, 3, 5
    of_sets = draw.normal(scale=math.sqrt(share_of_sets), size=(trials, num_sets, 1))
    values = of_sets + draw.normal(scale=math.sqrt(1 - share_of_sets), size=(trials, num_sets, students))
    held = 0
    for each in values:
        found = OverSets.of([SetResult(*pair) for pair in zip(
            each.mean(axis=1).tolist(), each.std(axis=1, ddof=1).tolist(), strict=True)])
        held += abs(found.mean) <= found.half_width
    standard_error = math.sqrt(0.95 * 0.05 / trials)
    assert abs(held / trials - 0.95) < 4 * standard_error


def test_the_error_is_that_of_a_hierarchical_bootstrap_but_for_its_known_bias() -> None:
    draw, num_sets, students = np.random.default_rng(3), 12, 40
    values = [draw.normal(size=(num_sets, 1)) + draw.normal(size=(num_sets, students)) for _ in range(2)]
    found = difference(*(sets(*each.mean(axis=1), first=first)
                         for first, each in zip((0, 100), values, strict=True)))

    def apart(*chosen: np.ndarray) -> float:
        means = [np.mean([draw.choice(each[place], students).mean() for place in places])
                 for each, places in zip(values, chosen, strict=True)]
        return float(means[0] - means[1])

    resampled = bootstrap([np.arange(num_sets)] * 2, apart, n_resamples=1500, vectorized=False, method="percentile",
                          rng=np.random.default_rng(4))
    # In expectation its variance of a mean over M sets is (1 - 1/M) s^2 / M, and once more the students' share.
    expected = sum((1 - 1 / num_sets) * statistics.variance(row.mean() for row in each) / num_sets
                   + float(np.mean(each.var(axis=1) / students)) / num_sets for each in values)
    assert float(resampled.standard_error) == pytest.approx(math.sqrt(expected), rel=0.08)
    assert found.error == pytest.approx(math.sqrt(expected), rel=0.08)


def test_ratios_are_exact_of_counts_a_range_of_rounds_and_unknown_of_one_measurement() -> None:
    assert counted(9, 3).interval() == (3.0, 3.0)
    rounds = over_rounds((2.0, 1.5, 3.0), (0.5, 0.4, 0.6))
    assert rounds.estimate == 4.0 and rounds.interval() == pytest.approx((2.5, 7.5)) == rounds.interval(0.5)
    once = measured_once(6.0, 2.0)
    assert (once.estimate, once.interval(), once.unknown) == (3.0, None, ONE_MEASUREMENT)
