"""Which iteration a distillation's journal chooses."""

import pytest

from repblend.matching.journal import CRITERIA, Journal

VALIDATED = {0: (5.0, 9.0), 20: (8.0, 2.0), 40: (8.0, 9.5), 60: (1.0, 3.0)}
"""Iteration -> mean recall on validation and on test."""


@pytest.mark.parametrize(("choose", "expected"), [("best-validation", 20), ("best-test", 40), ("last", 60)])
def test_the_chosen_iteration_is_the_last_one_that_was_called_best(choose: str, expected: int) -> None:
    journal, best = Journal(criterion=CRITERIA[choose]), None
    for iteration, (val, test) in VALIDATED.items():
        if journal.observe(iteration, {"val_mean_recall": val, "test_mean_recall": test}):
            best = iteration
    assert (best, journal.chosen_iteration) == (expected, expected)
    again = Journal(**journal.to_json(), criterion=CRITERIA[choose])
    assert again.chosen_iteration == expected
