"""Settings that depend on how many pairs there are, worked out for a data set from those of another profile.

`derive` changes the content of a `params.yaml` and says of every value how it came about: `repro new` writes that as a
comment above it. The rules keep what was tuned there: how many steps an expert or student takes, how far a matched
segment reaches, which share of the set a budget is at most. Nothing here is tuned for the new set; `repro tune` is.
"""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from repblend.costs import Counts
from repblend.params import LEAST_PAIRS, Params
from repblend.params.experts import Experts
from repblend.store import JSON

SHARES, MOST_HELD_OUT, LEAST_HELD_OUT = {"num_val": 0.12, "num_test": 0.18}, 1000, 20
"""Of all images, those of the embedded set; as many as published splits of Flickr30K have at most, and at least so many
that a recall among the first ten says something."""
MOST_OF_A_SMALL_SET = 4
"""Each held-out split takes at most one image of so many."""
SMALLEST_BUDGET = 4
MOST_TIMES_THE_PASSES = 20
"""A smaller set is passed more often for the same number of steps, but no more than this many times as often."""
SPARE_SNAPSHOTS = 3
"""Behind the last one that is matched: the embedded experts have 10 where 7 are needed."""
SMALLEST_TRAINING_SET = 2 * SMALLEST_BUDGET


@dataclass(frozen=True)
class Derived:
    """A value, and why."""

    key: str
    """`experts.epochs`."""
    value: Any
    reason: str
    """For a comment: no more than a line."""


def held_out(images: int) -> dict[str, Derived]:
    """Return how many of all images validate and test where the rows name no split.

    Raises:
        ValueError: too few would be left.
    """
    found = {}
    for key, share in SHARES.items():
        number = min(max(round(share * images), LEAST_HELD_OUT), MOST_HELD_OUT, images // MOST_OF_A_SMALL_SET)
        found[key] = Derived(f"data.{key}", number, f"{share:.0%} of {images:,} images, between {LEAST_HELD_OUT} and "
                             f"{MOST_HELD_OUT:,}, and at most every fourth")
    left = images - sum(each.value for each in found.values())
    if left < SMALLEST_TRAINING_SET or min(each.value for each in found.values()) < 1:
        raise ValueError(f"{images} images leave {max(0, left)} for training; expected {SMALLEST_TRAINING_SET} at "
                         "least. Bring more, a few hundred for results that mean something")
    return found


def derive(content: JSON, like: str, known: Counts | None, images: int, pairs: int) -> list[Derived]:
    """Change the settings of a profile to those of another training set, in place; return what was worked out.

    Args:
        content: a valid `params.yaml`.
        like: the profile's name, for reasons.
        known: the counts of the profile's own data set; None where nobody knows them.
        images: training images.
        pairs: pairs of a training image and one of its captions.

    Raises:
        ValueError: the training set is too small for any budget.
    """
    if images < SMALLEST_TRAINING_SET:
        raise ValueError(f"{images} training images: expected {SMALLEST_TRAINING_SET} at least, twice the smallest set "
                         "that is distilled. Bring more images, or hold out fewer")
    derived = [*_budgets(content, like, images), *_sizes_of_sets(content, like)]
    reference = known.train_captions if known else None
    for section in ("experts", "encoder_experts"):
        derived += _experts(content, section, like, pairs)
    derived += _passes(content, "select.warm_up", content["select"]["warm_up"]["batch_size"], like, reference, pairs)
    derived += _passes(content, "evaluate.full_data", content["evaluate"]["batch_size"], like, reference, pairs)
    derived += _views(content, like, pairs)
    return derived


# Budgets, and what is named after them.


def _budgets(content: JSON, like: str, images: int) -> Iterator[Derived]:
    """Keep the budgets while the largest takes at most half of the images; else lower all alike. Cells follow."""
    grid, half = content["grid"], images // 2
    budgets = grid["budgets"]
    if max(budgets) <= half:
        yield Derived("grid.budgets", budgets, f"as {like}: at most half of the {images:,} training images")
        return
    others = {key: grid[key] for key in ("compared_budgets", "regime_budgets", "pair_budgets", "seed_budgets",
                                         "regime_seed_budgets") if grid[key]}
    lowered = {budget: _round(budget * half / max(budgets)) for budget in
               {*budgets, *itertools.chain(*others.values()), grid["variants_budget"]}}
    yield _put(content, "grid.budgets", _distinct(lowered[budget] for budget in budgets), f"{like}'s {budgets}, "
               f"lowered alike until the largest is half of the {images:,} training images")
    for key, values in others.items():
        yield _put(content, f"grid.{key}", _distinct(lowered[each] for each in values), "of grid.budgets")
    yield _put(content, "grid.variants_budget", lowered[grid["variants_budget"]], "of grid.budgets")
    for section, key in ((content["distill"], "cells"), (grid, "caveats")):
        if key in section:
            section[key] = {_renamed(cell, lowered): value for cell, value in section[key].items()}


def _round(budget: float) -> int:
    """Round down to a number that reads well, of two digits at most."""
    step = next(step for least, step in ((100, 10), (20, 5), (0, 1)) if budget >= least)
    return max(SMALLEST_BUDGET, LEAST_PAIRS, int(budget) // step * step)


def _distinct(values: Any) -> list[int]:
    return list(dict.fromkeys(values))


def _renamed(cell: str, lowered: Mapping[int, int]) -> str:
    method, _, budget = cell.rpartition("-")
    return f"{method}-{lowered[int(budget)]}" if budget.isdecimal() and int(budget) in lowered else cell


def _sizes_of_sets(content: JSON, like: str) -> Iterator[Derived]:
    """What no set may be smaller than: inner batches fit the largest, the similarity's rank half of the smallest."""
    budgets, common = content["grid"]["budgets"], content["distill"]["common"]
    for key, most, of_what in (("batch_size", max(budgets), "the largest budget"),
                               ("similarity_rank", max(1, min(budgets) // 2), "half of the smallest budget")):
        if common[key] > most:
            yield _put(content, f"distill.common.{key}", most, f"{of_what}: {like}'s {common[key]} is more")


# Training: as many steps as there.


def _experts(content: JSON, section: str, like: str, pairs: int) -> Iterator[Derived]:
    """Experts as long as their last matched snapshot asks for, with some to spare; at least one pass.

    Where a snapshot is taken after every epoch there are as many as epochs, whatever the set.
    """
    settings = content[section]
    size = _batch(settings["batch_size"], pairs)
    yield from _changed(content, f"{section}.batch_size", size, f"half of the {pairs:,} pairs, so that a pass has two "
                        f"steps: {like}'s is {settings['batch_size']}")
    params = Params.model_validate(content)
    needed = params.needed_snapshots().get(section)
    if needed is None or settings.get("import_from"):
        return
    per_pass = getattr(params, section).steps_per_epoch(pairs)
    if settings["snapshots_every"] == "epoch":
        yield from _changed(content, f"{section}.epochs", max(settings["epochs"], needed),
                            f"a snapshot after each, and distill asks for snapshot {needed}")
        return
    snapshots, every = needed + SPARE_SNAPSHOTS, settings["snapshots_every"]
    epochs = max(1, -(-snapshots * every // per_pass))
    yield _put(content, f"{section}.epochs", epochs, f"{per_pass:,} steps each on {pairs:,} pairs: at least the "
               f"{snapshots * every} steps of {snapshots} snapshots")
    yield _put(content, f"{section}.snapshots_every", max(every, epochs * per_pass // snapshots),
               f"of {epochs * per_pass:,} steps: {snapshots} snapshots, of which distill asks for snapshot {needed}")


def _passes(content: JSON, section: str, batch_size: int, like: str, reference: int | None, pairs: int,
            ) -> Iterator[Derived]:
    """As many steps as on the profile's own set, if its size is known."""
    settings = _section(content, section)
    if "batch_size" in settings:
        batch_size = _batch(settings["batch_size"], pairs)
        yield from _changed(content, f"{section}.batch_size", batch_size, f"half of the {pairs:,} pairs at most: "
                            f"{like}'s is {settings['batch_size']}")
    if reference is None:
        return
    epochs, steps = settings["epochs"], settings["epochs"] * _steps(reference, batch_size)
    passes = min(-(-steps // _steps(pairs, batch_size)), MOST_TIMES_THE_PASSES * epochs)
    yield from _changed(content, f"{section}.epochs", passes, f"{steps:,} steps, as {like} takes in {epochs} passes, "
                        f"of which a pass over {pairs:,} pairs has {_steps(pairs, batch_size):,}")
    if settings.get("scored_intervals", 0) > passes:
        yield from _changed(content, f"{section}.scored_intervals", passes, "no more than epochs")


def _views(content: JSON, like: str, pairs: int) -> Iterator[Derived]:
    """An expert that passes over the pairs a few times sees a few views of each image; more would only be encoded."""
    experts, views = Experts.model_validate(content["experts"]), content["encode"]["views"]["num"]
    passes = experts.epochs_of(pairs)
    if experts.views == "cached" and views > max(2, passes):
        yield from _changed(content, "encode.views.num", max(2, passes), f"an expert passes {passes} times over the "
                            f"pairs, so it sees no more views of an image; {like} has {views}")


def _batch(batch_size: int, pairs: int) -> int:
    return min(batch_size, max(2, pairs // 2))


def _steps(pairs: int, batch_size: int) -> int:
    return max(1, pairs // batch_size)


def _changed(content: JSON, key: str, value: Any, reason: str) -> Iterator[Derived]:
    """Put a value, and say why, if it is another one than there."""
    section, _, name = key.rpartition(".")
    if _section(content, section)[name] != value:
        yield _put(content, key, value, reason)


def _section(content: JSON, key: str) -> JSON:
    for name in key.split("."):
        content = content[name]
    return content


def _put(content: JSON, key: str, value: Any, reason: str) -> Derived:
    section, _, name = key.rpartition(".")
    _section(content, section)[name] = value
    return Derived(key, value, reason)
