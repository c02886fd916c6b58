"""Numbers in paper/FINDINGS.md of searches for settings, and of the released code on this data."""

import csv
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from repblend.report.published import read_published
from repblend.titles import title
from repro.tune import STUDIES, finished
from tests.docs.documents import ROOT
from tests.docs.recorded import OPENMOJI, Bound, bind

FELL_APART = 16.0
"""Percent on validation: a set of 50 pairs has about as much before anything is learned."""


def wide_search() -> Iterator[Bound]:
    """Yield what paper/FINDINGS.md says of the search that looked far from the present settings."""
    with (ROOT / "paper/studies/wide.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    arms = ("repblend", "repblend-without-blending")
    found = [[row for row in rows if (row["method"], row["pairs"]) == (arm, "50")] for arm in arms]
    best = [max(trials, key=lambda row: float(row["validation"])) for trials in found]
    words = {7: "seven", 8: "Eight", 12: "twelve"}
    failed = [sum(float(row["validation"]) < FELL_APART for row in trials) for trials in found]
    say = partial(bind, "paper/FINDINGS.md")
    yield say("does not work.** {} of RepBlend's {} trials and {} without blending stayed below {} %", words[failed[0]],
              words[len(found[0])], words[failed[1]], f"{FELL_APART:g}")
    yield say("RepBlend rose from {} to {} by shorter batches ({} pairs)", *(
        f"{float(row['validation']):.1f}" for row in (found[0][0], best[0])), best[0]["batch_size"])
    yield say("without blending from {} to {} by {} segments", *(
        f"{float(row['validation']):.1f}" for row in (found[1][0], best[1])), words[int(best[1]["segments"])])
    at_100 = {(row["method"], row["trial"]): f"{float(row['validation']):.1f}" for row in rows if row["pairs"] == "100"}
    yield say("the same settings gave {} and {}, where RepBlend's present ones give {}. So none", *(
        at_100[arm, row["trial"]] for arm, row in zip(arms, best, strict=True)), at_100["repblend", "0"])


class Trial(NamedTuple):
    """Of a study."""

    recall: float
    iterations: int
    segments: int


def trials(cell: str) -> list[Trial]:
    """Return the finished trials of a study of equal searches, in their order."""
    name = f"{cell}-300s"
    study = optuna.load_study(study_name=f"{OPENMOJI.name}/{name}", storage=JournalStorage(
        JournalFileBackend(str(OPENMOJI / STUDIES / f"{name}.jsonl"))))
    return [Trial(trial.value, trial.user_attrs["iterations"], trial.user_attrs["values"]["segments"])
            for trial in finished(study)]


def equal_search() -> Iterator[Bound]:
    """Yield what paper/FINDINGS.md says of searches with equal seconds."""
    say, of_heads = partial(bind, "paper/FINDINGS.md"), ("repblend", "repblend-without-blending")
    found = {method: trials(f"{method}-100") for method in (*of_heads, "mtt-vl", "tesla-vl", "lors",
                                                            "repblend-without-matching")}
    for method, rows in found.items():
        steps = [row.iterations for row in rows]
        yield say(f"| {title(method)} | {{}} | {{}}, {{}}, {{}} | {{}} to {{}} |", *(
            f"{row.recall:.1f}" for row in rows), str(min(steps)), str(max(steps)))
    heads, encoders = ([row for method, rows in found.items() if (method in of_heads) == wanted for row in rows]
                       for wanted in (True, False))
    assert min(row.recall for row in heads) > max(row.recall for row in encoders)
    yield say("The worst trial that matches heads ({}) is above the best that matches the encoder ({})",
              f"{min(row.recall for row in heads):.1f}", f"{max(row.recall for row in encoders):.1f}")
    with (ROOT / "paper/studies/wide.csv").open(encoding="utf-8", newline="") as file:
        short = next(row for row in csv.DictReader(file) if (row["method"], row["pairs"]) == ("repblend", "100"))
    now, *others = found["repblend"]
    above = sorted(row.recall - now.recall for row in others)
    mtt = found["mtt-vl"]
    yield say("but for MTT-VL, whose best is {} above, and RepBlend, whose others are {} to {} above with",
              *(f"{value:.1f}" for value in (max(row.recall for row in mtt) - mtt[0].recall, above[0], above[-1])))
    assert all(rows[0] == max(rows) for method, rows in found.items() if method not in ("mtt-vl", "repblend"))
    yield say("does not help RepBlend: {} iterations of its present settings give {}, {} had given {} in the search "
              "before", str(now.iterations), f"{now.recall:.1f}",
              short["iterations"], f"{float(short['validation']):.1f}")
    yield say("had no time for more than {} iterations",
              str(max(row.iterations for row in encoders if row.segments >= 4)))


def released_code() -> Iterator[Bound]:
    """Yield what paper/FINDINGS.md says that the released code gave on this data."""
    found = {(row["method"], row["seed"], row["iteration"]): str(row.number("mean", "std"))
             for row in read_published(ROOT, "released-code")}
    arms = ("repblend", "repblend-without-blending")
    yield bind("paper/FINDINGS.md", "with blending and without: {} and {} at iteration 160, {} and {} at 80; another "
               "seed {} and {}. These", *(found[arm, seed, iteration] for seed, iteration in (
                   ("first", 160), ("first", 80), ("second", None)) for arm in arms))
