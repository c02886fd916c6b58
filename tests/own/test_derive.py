"""Settings that follow from counts: whatever the size, they validate, and every check of sizes passes."""

import copy
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from repblend.costs import Counts, counts_of
from repblend.params import Params
from repro.own.derive import derive, held_out
from repro.profiles import compose

ROOT = Path(__file__).parents[2]
LIKE = ("quickstart", "openmoji", "flickr30k", "coco", "cc3m")
SIZES = (150, 500, 785, 5_000, 31_000, 150_000)


@cache
def composed(like: str) -> dict[str, Any]:
    """What a profile's parameters are; tests do not change it."""
    return compose(ROOT, like)[1]


def known(like: str) -> Counts | None:
    return counts_of(ROOT / "absent", Params.model_validate(composed(like)))


def made(like: str, images: int, captions_per_image: int = 1) -> tuple[Params, int, int]:
    """Parameters for a set of so many images before any is held out, and what is left for training."""
    content = copy.deepcopy(composed(like))
    left = images - sum(each.value for each in held_out(images).values())
    derive(content, like, known(like), left, left * captions_per_image)
    return Params.model_validate(content), left, left * captions_per_image


@pytest.mark.parametrize("like", LIKE)
@pytest.mark.parametrize("pairs", SIZES)
@pytest.mark.parametrize("captions_per_image", [1, 5])
def test_settings_of_any_size_fit_it(like: str, pairs: int, captions_per_image: int) -> None:
    params, images, captions = made(like, pairs // captions_per_image, captions_per_image)
    params.check_sizes(images, captions)
    assert max(params.grid.budgets) <= images // 2 and min(params.grid.budgets) >= 4
    for name in (*params.grid.distilled, *params.grid.encoder_distilled):
        for budget in params.grid.budgets:
            assert params.distill.settings(f"{name}-{budget}")  # the cells follow the budgets
    for cell in (*params.grid.pair_cells(params.grid.pair_distilled), *params.grid.pair_cells(
            params.grid.pair_encoder_distilled)):
        assert params.distill.settings(cell)
    for section, last in params.needed_snapshots().items():
        experts = getattr(params, section)
        assert last <= experts.num_snapshots(captions) - 1 <= max(last + 3, composed(like)[section]["epochs"])
        assert experts.batch_size <= captions // 2


def test_the_size_of_the_embedded_set_gives_what_was_tuned_for_it() -> None:
    content = copy.deepcopy(composed("quickstart"))
    embedded = known("quickstart")
    assert embedded is not None
    derive(content, "quickstart", embedded, embedded.train_images, embedded.train_captions)
    assert content == composed("quickstart")
    assert {key: each.value for key, each in held_out(1652).items()} == {"num_val": 198, "num_test": 297}


@pytest.mark.parametrize("pairs", SIZES)
def test_experts_take_as_many_steps_as_in_the_embedded_set_and_one_pass_at_least(pairs: int) -> None:
    params, _, captions = made("quickstart", pairs)
    steps = params.experts.num_steps(captions)
    assert 200 <= steps < max(200, params.experts.steps_per_epoch(captions)) + params.experts.steps_per_epoch(captions)
    assert params.experts.num_snapshots(captions) - 1 == 10


def by_hand(key: str, content: Any) -> Any:
    for name in key.split("."):
        content = content[name]
    return content


def test_values_for_150_images_by_hand() -> None:
    """20 validate (12 % are 18) and 27 test: 103 are left, of which 51 are half. The variant that starts at snapshots 0
    to 4 asks for snapshot 9: with three to spare 12, 20 steps apart, are 240 steps, 2 a pass.
    """
    content = copy.deepcopy(composed("openmoji"))
    derived = {each.key: each.value for each in derive(content, "openmoji", known("openmoji"), 103, 103)}
    assert {key: each.value for key, each in held_out(150).items()} == {"num_val": 20, "num_test": 27}
    expected = {"grid.budgets": [5, 12, 25, 50], "grid.compared_budgets": [25], "grid.variants_budget": 12,
                "grid.pair_budgets": [5, 12, 25], "grid.regime_budgets": [12, 50],
                "distill.common.similarity_rank": 2, "experts.batch_size": 51, "experts.epochs": 120,
                "experts.snapshots_every": 20, "select.warm_up.batch_size": 51, "select.warm_up.epochs": 83,
                "evaluate.full_data.epochs": 260}
    assert {key: derived[key] for key in expected} == expected
    assert {key: by_hand(key, content) for key in expected} == expected
    assert {"repblend-5", "repblend+rank-40-12", "lors-50"} <= set(content["distill"]["cells"])


def test_a_large_set_is_passed_once_and_seen_in_two_views() -> None:
    params, _, captions = made("quickstart", 150_000)
    assert captions == 148_000 and params.experts.epochs == 1 and params.experts.snapshots_every == 1156 // 10
    assert params.encode.views.num == 2 and params.evaluate.full_data.epochs == 1
    assert params.grid.budgets == [50, 100] and params.select.warm_up.epochs == 1


@pytest.mark.parametrize("images", [0, 3, 11])
def test_too_few_images_are_refused(images: int) -> None:
    with pytest.raises(ValueError, match="for training; expected 8 at least"):
        held_out(images)
    with pytest.raises(ValueError, match=f"{min(images, 7)} training images: expected 8 at least"):
        derive(copy.deepcopy(composed("quickstart")), "quickstart", None, min(images, 7), 7)
