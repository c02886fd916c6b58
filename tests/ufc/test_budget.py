"""Budgets: the published accounting, and indexing against a loop over the release's own terms."""

import math

import pytest

from repblend.ufc.integration import Budget, Slot

# C, M, ipc, n0, training images per class, stored, allowed: as published.
PUBLISHED = [(10, 4, 10, 7, 35, 98, 100), (10, 4, 50, 35, 175, 490, 500), (100, 4, 10, 9, 45, 936, 1000),
             (100, 4, 50, 48, 240, 4992, 5000), (100, 4, 100, 96, 480, 9984, 10000),
             (200, 4, 10, 9, 45, 1836, 2000), (200, 4, 50, 49, 245, 9996, 10000),
             (1000, 3, 10, 9, 36, 9027, 10000), (1000, 3, 50, 49, 196, 49147, 50000)]


@pytest.mark.parametrize("row", PUBLISHED, ids=str)
def test_published_budgets(row: tuple[int, ...]) -> None:
    num_classes, architectures, ipc, *expected = row
    budget = Budget(ipc, num_classes, architectures)
    assert [budget.num_real, budget.num_slots, budget.num_stored, budget.num_allowed] == expected


def test_no_larger_number_of_images_would_fit() -> None:
    for num_classes in (2, 7, 10, 100):
        for architectures in (1, 3, 4):
            for ipc in (3, 10, 50, 99):
                budget = Budget(ipc, num_classes, architectures)
                assert budget.num_stored <= budget.num_allowed
                assert budget.num_real == math.floor(ipc / (architectures / num_classes + 1))
                assert (budget.num_real + 1) * (num_classes + architectures) >= budget.num_allowed


def test_a_whole_quotient_may_give_one_image_less_as_released() -> None:
    assert Budget(33, 10, 1).num_real == 29


def test_slots_are_real_images_first_then_architecture_by_architecture() -> None:
    budget = Budget(3, 10, 3)
    expected = [(None, image) for image in range(2)]
    expected += [(architecture, image) for architecture in range(3) for image in range(2)]
    assert budget.slots() == [Slot(number, *pair) for number, pair in enumerate(expected)]


def test_a_budget_for_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="larger budget"):
        Budget(1, 10, 4)
    with pytest.raises(ValueError, match="positive"):
        Budget(0, 10, 4)
