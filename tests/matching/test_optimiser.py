"""The outer optimiser, its memory across a restart, and the space of the inner learning rates."""

import itertools
import math
from collections.abc import Sequence

import pytest
import torch

from repblend.matching.optimiser import (
    PARTS,
    RATE_SPACES,
    Learned,
    LinearRates,
    LogRates,
    Momenta,
    OuterRates,
    RateSpace,
    adam,
    part_of,
    sgd,
)
from repblend.matching.similarity import IdentitySimilarity, LowRankSimilarity
from repblend.matching.student import PerModality
from repblend.schedules import SCHEDULES, warmed_up

RATES = OuterRates(images=0.1, texts=0.2, similarity=0.3, rates=0.4)
MOMENTA = Momenta(synthetic=0.5, rates=0.25, similarity=0.75)


def some_learned(space: RateSpace = LinearRates, parts: Sequence[str] = PARTS) -> Learned:
    draws = torch.Generator().manual_seed(0)
    return Learned(torch.randn(3, 3, 2, 2, generator=draws), torch.randn(3, 4, generator=draws),
                   LowRankSimilarity.identity(3, 2, 1.0, draws), PerModality(torch.tensor(0.1), torch.tensor(0.2)),
                   space, parts)


def set_gradients(learned: Learned, seed: int) -> dict[str, torch.Tensor]:
    draws = torch.Generator().manual_seed(seed)
    data = {name: torch.randn(value.shape, generator=draws) for name, value in learned.tensors.items()
            if not name.startswith("lr_")}
    wanted = {name: value for name, value in data.items() if name not in learned.constant}
    rates = PerModality(*torch.randn(2, generator=draws))
    learned.set_gradients(wanted, rates)
    return data | {"lr_img": rates.img, "lr_txt": rates.txt}


def test_sgd_follows_the_published_momentum_rule() -> None:
    learned = some_learned()
    before = {name: value.clone() for name, value in learned.tensors.items()}
    optimiser = sgd(learned, RATES, MOMENTA)
    first = set_gradients(learned, 1)
    optimiser.step()
    second = set_gradients(learned, 2)
    optimiser.step()
    for name, value in learned.tensors.items():
        rate, momentum = {"images": (0.1, 0.5), "texts": (0.2, 0.5), "lr_img": (0.4, 0.25), "lr_txt": (0.4, 0.25)}.get(
            name, (0.3, 0.75))
        expected = before[name] - rate * first[name] - rate * (momentum * first[name] + second[name])
        torch.testing.assert_close(value, expected, msg=name)


@pytest.mark.parametrize("make", [lambda learned: sgd(learned, RATES, MOMENTA), lambda learned: adam(learned, RATES)],
                         ids=["sgd", "adam"])
def test_a_restored_optimiser_continues_bit_for_bit(make: object) -> None:
    straight, restarted = some_learned(), some_learned()
    optimiser, interrupted = make(straight), make(restarted)
    for seed in (1, 2):
        for learned, each in ((straight, optimiser), (restarted, interrupted)):
            set_gradients(learned, seed)
            each.step()
    memory = {name: value.clone() for name, value in interrupted.tensors().items()}
    fresh = make(restarted)
    fresh.restore(memory)
    for learned, each in ((straight, optimiser), (restarted, fresh)):
        set_gradients(learned, 3)
        each.step()
    assert all(torch.equal(value, restarted.tensors[name]) for name, value in straight.tensors.items())


@pytest.mark.parametrize("space", RATE_SPACES)
def test_rates_survive_their_space_and_clamp_from_below(space: str) -> None:
    learned = some_learned(RATE_SPACES[space])
    torch.testing.assert_close(learned.rates, PerModality(torch.tensor(0.1), torch.tensor(0.2)))
    learned.clamp_rates(0.15)
    torch.testing.assert_close(learned.rates, PerModality(torch.tensor(0.15), torch.tensor(0.2)))


@pytest.mark.parametrize("parts", [each for number in (1, 2, 3) for each in itertools.combinations(PARTS, number)],
                         ids="+".join)
@pytest.mark.parametrize("make", [lambda learned: sgd(learned, RATES, MOMENTA), lambda learned: adam(learned, RATES)],
                         ids=["sgd", "adam"])
def test_what_is_not_learned_keeps_its_bits_and_gets_no_gradient(make: object, parts: tuple[str, ...]) -> None:
    some, whole = some_learned(LogRates, parts), some_learned(LogRates)
    before = {name: value.clone() for name, value in some.tensors.items()}
    optimisers = make(some), make(whole)
    for seed in range(3):
        for learned, optimiser in zip((some, whole), optimisers, strict=True):
            set_gradients(learned, seed)
            optimiser.step()
            learned.clamp_rates(1e-3)
    for name, value in some.tensors.items():
        learned = part_of(name) in parts
        assert (name in some.constant) != learned
        assert torch.equal(value, before[name]) != learned
        assert not learned or torch.equal(value, whole.tensors[name]), name
    of_memory = {name.split("/")[1] for name in optimisers[0].tensors()}
    assert of_memory == {name for name in some.tensors if part_of(name) in parts}


def test_constant_rates_are_not_clamped() -> None:
    learned = some_learned(LogRates, ["texts"])
    before = {name: value.clone() for name, value in learned.tensors.items()}
    learned.clamp_rates(0.15)
    assert all(torch.equal(value, before[name]) for name, value in learned.tensors.items())


def test_log_rates_follow_the_chain_rule() -> None:
    learned = some_learned(LogRates)
    learned.set_gradients({}, PerModality(torch.tensor(3.0), torch.tensor(-1.0)))
    assert learned.tensors["lr_img"].grad.item() == pytest.approx(0.3)
    assert learned.tensors["lr_txt"].grad.item() == pytest.approx(-0.2)


def test_a_similarity_without_parameters_has_no_memory() -> None:
    learned = Learned(torch.zeros(2, 3, 1, 1), torch.zeros(2, 4), IdentitySimilarity(2),
                      PerModality(torch.tensor(0.1), torch.tensor(0.1)), LinearRates)
    optimiser = adam(learned, RATES)
    set_gradients(learned, 1)
    optimiser.step()
    assert {name.split("/")[1] for name in optimiser.tensors()} == {"images", "texts", "lr_img", "lr_txt"}


@pytest.mark.parametrize("momenta", [MOMENTA, Momenta(0.0, 0.0, 0.0), None], ids=["sgd", "no momentum", "adam"])
def test_updates_are_those_of_the_classes_bit_for_bit(momenta: Momenta | None) -> None:
    ours, theirs = some_learned(), some_learned()
    rate_of = {"images": 0.1, "texts": 0.2, "lr_img": 0.4, "lr_txt": 0.4}
    momentum_of = dict(zip(("images", "texts", "lr_img", "lr_txt"), (0.5, 0.5, 0.25, 0.25), strict=True))
    groups = [{"params": [value], "lr": rate_of.get(name, 0.3)} | (
        {"momentum": momentum_of.get(name, 0.75) if momenta == MOMENTA else 0.0} if momenta else {})
        for name, value in theirs.tensors.items()]
    optimiser = sgd(ours, RATES, momenta) if momenta else adam(ours, RATES)
    reference = torch.optim.SGD(groups) if momenta else torch.optim.Adam(groups)
    for seed in range(4):
        for learned, each in ((ours, optimiser), (theirs, reference)):
            set_gradients(learned, seed)
            each.step()
    assert all(torch.equal(value, theirs.tensors[name]) for name, value in ours.tensors.items())


def test_schedules() -> None:
    assert [SCHEDULES["constant"](t, 4) for t in range(4)] == [1.0] * 4
    assert [SCHEDULES["cosine"](t, 4) for t in range(4)] == pytest.approx(
        [1.0, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2])


def test_warm_up_rises_to_the_schedule() -> None:
    assert [warmed_up(0.5, t, 4) for t in range(6)] == pytest.approx([0.125, 0.25, 0.375, 0.5, 0.5, 0.5])
    assert warmed_up(0.5, 0, 0) == 0.5
