"""What becomes of a claim: made-up sets with known answers, what is said of them, and hostile words in every form."""

import csv
import io
import json
from decimal import Decimal
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from repblend.escape import visible
from repblend.report.claims import Entry, PublishedEffect, read_entries
from repblend.report.evidence import claims
from repblend.report.grid_records import GridRecords
from repblend.report.intervals import ONE_MEASUREMENT, ONE_SET, SetResult, measured_once, over_rounds
from repblend.report.markup import table_html
from repblend.report.screen import verdicts_html
from repblend.report.verdicts import (
    FAILS,
    HOLDS,
    NOT_RUN,
    UNDECIDED,
    Claim,
    Trial,
    claims_table,
    claims_text,
    counted_trial,
    counted_words,
    ratio_trial,
    trial,
)
from tests.report.synthetic import ROOT, evaluation, path_of, read, write, write_wider
from tests.test_escape import HOSTILE

ENTRY = next(entry for entry in read_entries(ROOT) if entry.name == "blending-helps")


def compared(*differences: float, budget: int = 50) -> Trial:
    """Two methods with as many sets as differences, seed by seed; none: not run."""
    sets = [{seed: (SetResult(20 + place * each, 1.5, 5), f"records/evaluate/{name}+seed-{seed}-{budget}/record.json")
             for seed, each in enumerate(differences)} for name, place in (("first", 1), ("second", 0))]
    return trial(f"{budget} pairs", "second", *sets)


CLEAR, NEAR = (4.9, 5.0, 5.1), (4.0, 5.0, 6.0)
"""Of mean five: standard errors 0.058 and 0.58, so that with two degrees of freedom (t = 4.303) both exclude zero."""
OPEN = (-5.0, 5.0, 6.0)


def below(differences: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(-each for each in differences)


@pytest.mark.parametrize(("differences", "verdict"), [
    (CLEAR, HOLDS), (NEAR, HOLDS), (OPEN, UNDECIDED), (below(CLEAR), FAILS), ((), NOT_RUN),
    ((5.0,), f"{UNDECIDED} ({ONE_SET})"), ((-50.0,), f"{UNDECIDED} ({ONE_SET})")])
def test_a_comparison_is_decided_by_its_interval_over_sets(differences: tuple[float, ...], verdict: str) -> None:
    assert compared(*differences).said == verdict


@pytest.mark.parametrize(("comparisons", "verdict"), [
    ([CLEAR, NEAR], HOLDS), ([CLEAR, OPEN], UNDECIDED), ([CLEAR, below(CLEAR)], FAILS), ([OPEN, OPEN], UNDECIDED),
    # What has no interval decides nothing; it does not let a claim hold that it goes against.
    ([CLEAR, (1.0,)], f"{HOLDS} (1 of 2 comparisons)"), ([CLEAR, ()], f"{HOLDS} (1 of 2 comparisons)"),
    ([CLEAR, (-9.0,)], UNDECIDED), ([CLEAR, (0.0,)], UNDECIDED), ([below(CLEAR), (9.0,)], FAILS),
    ([(1.0,), (2.0,)], f"{UNDECIDED} ({ONE_SET})"), ([(), ()], NOT_RUN), ([], NOT_RUN)])
def test_a_claim_holds_where_every_comparison_with_an_interval_does(comparisons: list[tuple[float, ...]],
                                                                    verdict: str) -> None:
    assert Claim(ENTRY, tuple(compared(*each) for each in comparisons), ()).said == verdict


def test_does_not_hold_is_corrected_for_the_number_of_comparisons() -> None:
    # Mean -5, standard error 1: at 95 % [-9.3, -0.7]; for three comparisons, at 98.3 %, t is 7.65, and zero is inside.
    root = 3 ** 0.5
    shaky = (-5 - root, -5.0, -5 + root)
    assert compared(*shaky).verdict == FAILS
    assert Claim(ENTRY, (compared(*shaky),), ()).verdict == FAILS
    among = Claim(ENTRY, (compared(*shaky), compared(*CLEAR), compared(*CLEAR)), ())
    assert among.verdict == UNDECIDED and "not as corrected for their number" in among.why


def test_it_is_said_what_does_not_decide() -> None:
    assert Claim(ENTRY, (compared(*CLEAR), compared(-1.0)), ()).why.split("; ") == [
        "1 of 2 comparisons without an interval", "1 of these on the other side"]
    claim = Claim(ENTRY, (compared(*OPEN), compared(2.0), compared()), ())
    assert claim.why.split("; ") == [
        "1 of 3 comparisons not run", "1 of 3 comparisons without an interval",
        "in 1 of 3 comparisons the interval holds the value of no difference"]
    assert Claim(ENTRY, (compared(*CLEAR),), ()).why == ""


def test_the_deviation_between_students_is_called_that_and_no_interval() -> None:
    assert compared(5.0).shown == "+5.0 (students ± 2.1)"  # sqrt(2) times 1.5
    assert compared(*CLEAR).shown == "+5.0 [+4.8, +5.2]"
    row = next(csv.DictReader(io.StringIO(claims_table([Claim(ENTRY, (compared(5.0),), ())]).to_csv())))
    assert (row["low"], row["high"], row["sets"], row["by"]) == ("unknown", "unknown", "1 : 1", "unknown")


def test_costs_are_decided_by_counts_and_rounds_and_not_by_one_measurement() -> None:
    assert counted_trial("w", "a", (8, "f"), (4, "g")).verdict == HOLDS
    assert counted_trial("w", "a", (4, "f"), (8, "g")).verdict == FAILS
    assert counted_trial("w", "a", (4, "f"), (4, "g")).verdict == UNDECIDED
    assert counted_trial("w", "a", (4, "f"), None).verdict == NOT_RUN
    apart, mixed = (over_rounds((2.0, 1.9, 2.1), (1.0, low, high)) for low, high in ((0.9, 1.1), (0.9, 2.0)))
    assert ratio_trial("w", "a", 2.0, 1.0, apart, ["f"]).verdict == HOLDS
    assert ratio_trial("w", "a", 2.0, 1.0, mixed, ["f"]).verdict == UNDECIDED
    once = ratio_trial("w", "a", 9.0, 1.0, measured_once(9.0, 1.0), ["f"])
    assert once.said == f"{UNDECIDED} ({ONE_MEASUREMENT})" and once.shown == "9.0×"


# On a workspace's records.


def test_what_the_records_say_is_what_the_claims_say(workspace: Path) -> None:
    write_wider(workspace)
    found = {claim.entry.name: claim for claim in claims(GridRecords.of(workspace))}
    means = [[read(workspace, f"evaluate/{method}{name}")["protocols"]["held-out"]["mean"]["mean_recall"]
              for name in ("-50", "+seed-1-50", "+seed-2-50")] for method in ("repblend", "lors")]
    of_fifty, of_hundred = found["repblend-over-lors"].trials
    assert of_fifty.effect and of_fifty.effect.estimate == pytest.approx((sum(means[0]) - sum(means[1])) / 3)
    assert of_fifty.sets == (3, 3) and of_fifty.effect.form == "paired" and len(of_fifty.files) == 6
    assert of_hundred.said == "undecided (one set)" and of_hundred.sets == (1, 1)
    bytes_, time = found["smaller-trajectories"], found["faster-iterations"]
    assert bytes_.said == "undecided" and bytes_.files == ("records/encoder-experts.json", "records/experts.json")
    costs = json.loads((workspace / "benchmarks/efficiency.json").read_text())["methods"]
    seconds = [costs[name]["seconds_per_iteration"] for name in ("lors", "repblend")]
    assert time.trials[0].interval == pytest.approx((seconds[0]["min"] / seconds[1]["max"],
                                                     seconds[0]["max"] / seconds[1]["min"]))
    collapse = found["lors-collapses-more-than-repblend"].trials[0]
    stored = [read(workspace, f"embed/{name}-100")["measures"]["intra_modal_similarity_img"]
              for name in ("lors", "repblend")]
    assert collapse.effect and collapse.effect.estimate == pytest.approx(stored[0]["mean"] - stored[1]["mean"])
    start = next(each for each in found["lors-collapses"].trials if each.where == "50 pairs, modality gap")
    course = read(workspace, "distill/lors-50")["course"]["checkpoints"]["modality_gap"]
    assert start.effect and start.effect.estimate == pytest.approx(course[-1] - course[0])
    assert {claim.verdict for name, claim in found.items() if name.startswith("other-encoders")} == {NOT_RUN}
    assert found["repblend-transfers"].run and found["other-tasks"].run and found["symmetric-progress"].run


def test_a_missing_set_leaves_the_pairs_of_the_others(workspace: Path) -> None:
    path_of(workspace, "evaluate/lors+seed-2-50").unlink()
    found = next(claim for claim in claims(GridRecords.of(workspace)) if claim.entry.name == "repblend-over-lors")
    assert found.trials[0].sets == (2, 2) and found.trials[0].effect and found.trials[0].effect.form == "paired"


def test_sets_of_other_parameters_are_none_of_the_claims(workspace: Path) -> None:
    """The grid has seeds 1 and 2; a set of a third is left over from earlier."""
    write(workspace, "evaluate/lors+seed-3-50", evaluation(np.random.default_rng(1), "lors+seed-3", 50, 90.0))
    found = next(claim for claim in claims(GridRecords.of(workspace)) if claim.entry.name == "repblend-over-lors")
    assert found.trials[0].sets == (3, 3)


# In words and on the page.


def test_the_words_name_published_effect_ours_verdict_and_files() -> None:
    published = read_entries(ROOT)[0]
    claim = Claim(published, (compared(*CLEAR), compared(5.0, budget=100)),
                  (PublishedEffect("coco", (Decimal(2),), "T", False),))
    said = claims_text([claim])
    assert said.startswith(f"HOLDS (1 OF 2 COMPARISONS): {published.claim}\n  repblend-over-lors; ")
    assert "published: +2.0 (coco.csv, evidence T)" in said and "+5.0 [+4.8, +5.2]" in said
    assert "first+seed-0-50/record.json, records/evaluate/first+seed-1-50/record.json and 4 more" in said
    assert counted_words([claim]) == "1 claims: 1 holds, 0 does not hold, 0 undecided, 0 not run"
    assert json.loads(json.dumps(claim.to_json()))["comparisons"][1]["verdict"] == "undecided (one set)"


class Elements(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}


def test_hostile_words_are_no_markup_anywhere() -> None:
    sets = {0: (SetResult(3.0), f"records/{HOSTILE}")}
    entry = Entry.model_validate(ENTRY.model_dump() | {
        "claim": HOSTILE, "stands": HOSTILE[:200], "published": {"unknown": HOSTILE}})
    claim = Claim(entry, (trial(HOSTILE, HOSTILE, sets, sets),), ())
    absent = Claim(entry, (), ())
    page = Elements()
    page.feed(verdicts_html([claim, absent], table_html(claims_table([claim]))))
    assert "script" not in page.tags and "img" not in page.tags and not page.attributes & {"onerror", "src"}
    assert visible(HOSTILE).startswith("=cmd")
    table = claims_table([claim])
    assert all(cell[:1] not in "=@+-" or len(cell) < 2 or cell[1:2].isdigit()
               for row in csv.reader(io.StringIO(table.to_csv())) for cell in row)
    assert "\\input" not in table.to_latex() and "<script>" not in table.to_markdown().replace("\\<", "")
    assert all(line.isprintable() for line in claims_text([claim]).splitlines())
