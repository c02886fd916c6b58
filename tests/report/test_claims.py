"""`paper/claims.yaml`: what may stand there, what every entry compares, and that published effects are of its rows."""

import csv
import shutil
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from repblend.params import read_params
from repblend.report import evidence
from repblend.report.claims import (
    FILE,
    MEASURES,
    RULES,
    START,
    Entry,
    NotKnown,
    Published,
    check_methods,
    published_effects,
    read_entries,
)
from repblend.report.evidence import TRIALS, Evidence
from repblend.report.grid_records import GridRecords
from repblend.stages.pipeline import Context
from repblend.ufc.report import evidence as ufc_evidence
from repblend.ufc.report.ufc_records import UfcRecords
from repro.profiles import names
from tests.report.synthetic import ROOT

ENTRIES = read_entries(ROOT)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A folder with the claims and the published numbers."""
    shutil.copytree(ROOT / "paper" / "published", tmp_path / "paper" / "published")
    shutil.copyfile(ROOT / FILE, tmp_path / FILE)
    return tmp_path


def changed(clone: Path, change: Callable[[list[dict[str, Any]]], None]) -> str:
    """Change the entries; return what is said of them."""
    yaml = YAML(typ="safe")
    content = yaml.load((clone / FILE).read_text("utf-8"))
    change(content)
    with (clone / FILE).open("w", encoding="utf-8") as file:
        yaml.dump(content, file)
    with pytest.raises(ValueError, match=r"git restore paper/claims\.yaml") as caught:
        read_entries(clone)
    assert str(clone / FILE) in str(caught.value)
    return str(caught.value)


def put(place: int, **values: Any) -> Callable[[list[dict[str, Any]]], None]:
    return lambda content: content[place].update(values)


WRONG = [
    (put(0, colour="red"), "claim 1 (repblend-over-lors): colour: Extra inputs"),
    (lambda content: content[1].pop("rule"), "claim 2 (headline-image-retrieval): rule: Field required"),
    (put(0, claim=""), "claim 1 (repblend-over-lors): claim"),
    (put(0, measure="taste"), "claim 1 (repblend-over-lors): measure"),
    (put(0, metrics=["best"]), "metrics has 'best', which recall has not"),
    (put(0, rule="times-everywhere"), "rule 'times-everywhere' does not fit recall"),
    (put(0, rule="always"), "claim 1 (repblend-over-lors): rule"),
    (put(0, budgets=["50"]), "claim 1 (repblend-over-lors): budgets"),
    (put(0, budgets=[0]), "claim 1 (repblend-over-lors): budgets"),
    (put(0, second=["repblend"]), "second has 'repblend', which is the first"),
    (put(0, second=["lors", "lors"]), "second names something twice"),
    (put(0, second=[START]), "second has 'start', which only the measure course knows"),
    (put(0, second="lors"), "claim 1 (repblend-over-lors): second"),
    (put(0, first="a b"), "claim 1 (repblend-over-lors): first"),
    (put(0, published=[]), "published is empty"),
    (put(0, published=[{"file": "elsewhere", "first": {"method": "lors"}, "second": {"method": "mtt-vl"}}]),
     "claim 1 (repblend-over-lors): published"),
    (put(0, published=[{"file": "coco", "first": {"writer": "lors"}, "second": {"writer": "mtt-vl"}}]),
     "coco.csv has no column 'writer'"),
    (put(1, name="repblend-over-lors"), "claim 2 (repblend-over-lors): an earlier claim has the same name"),
    (lambda content: content.__setitem__(0, "words"), "claim 1"),
]


@pytest.mark.parametrize(("change", "message"), WRONG, ids=[message for _, message in WRONG])
def test_a_wrong_entry_names_the_file_the_claim_the_key_and_the_remedy(
        clone: Path, change: Callable[[list[dict[str, Any]]], None], message: str) -> None:
    assert message in changed(clone, change)


def test_every_wrong_entry_is_named_at_once(clone: Path) -> None:
    def two(content: list[dict[str, Any]]) -> None:
        content[0]["colour"] = "red"
        del content[3]["stands"]

    said = changed(clone, two)
    assert "repblend-over-lors): colour" in said and "lors-over-tesla-vl): stands" in said


@pytest.mark.parametrize("content", [None, "claims: []\n", "[}", b"\xff"])
def test_a_file_that_holds_no_list_of_claims_is_refused(clone: Path, content: str | bytes | None) -> None:
    if content is None:
        (clone / FILE).unlink()
    else:
        (clone / FILE).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=r"claims\.yaml") as caught:
        read_entries(clone)
    assert "git restore" in str(caught.value)


def test_methods_that_there_are_not_are_refused() -> None:
    wrong = ENTRIES[0].model_copy(update={"second": ["lorse"]})
    with pytest.raises(ValueError, match=r"claim repblend-over-lors: second: found 'lorse', expected one of.*restore"):
        check_methods(ROOT, [wrong], {"repblend", "lors"}.__contains__, "one of repblend, lors")


# What the entries are about.


def test_what_the_papers_claim_is_there() -> None:
    over = {(each.first, other) for each in ENTRIES for other in each.second}
    assert over >= {("repblend", "lors"), ("lors", "tesla-vl"), ("mtt-vl", "tesla-vl"), ("lors", "mtt-vl"),
                    *(("repblend", coreset) for coreset in ("random", "herding", "k-center", "forgetting")),
                    ("repblend", "repblend-without-blending"), ("repblend", "repblend-without-matching"),
                    ("repblend-without-blending", "lors"), ("repblend-without-matching", "lors"),
                    ("ufc+static", "random+hard"), ("ufc+dynamic", "ufc+static")}
    assert {each.measure for each in ENTRIES} == set(MEASURES) and {each.rule for each in ENTRIES} == set(RULES)
    assert {metric for each in ENTRIES if each.measure == "cost" for metric in each.metrics} == set(
        MEASURES["cost"].metrics)
    assert {each.measure for each in ENTRIES if each.paper == "repblend"} == set(TRIALS)
    assert {each.measure for each in ENTRIES if each.paper == "ufc"} == set(ufc_evidence.TRIALS)


def test_every_cell_of_a_claim_is_in_the_whole_grid() -> None:
    params = read_params(ROOT / "profiles" / "openmoji" / "params.yaml")
    cells = {str(cell) for _, cell in Context.pipeline.cells(params)}
    about = [each for each in ENTRIES if each.paper == "repblend" and each.measure not in ("cost", "trajectory")]
    for entry in about:
        for method in (entry.first, *entry.second):
            budgets = [50, 100] if entry.budgets == "all" else entry.budgets
            assert method == START or any(f"{method}-{budget}" in cells for budget in budgets), (entry.name, method)


def test_comparisons_are_made_of_every_cell_and_say_not_run_without_records(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "paper" / "published", tmp_path / "paper" / "published")
    shutil.copyfile(ROOT / FILE, tmp_path / FILE)
    shutil.copyfile(ROOT / "profiles" / "openmoji" / "params.yaml", tmp_path / "params.yaml")
    records = GridRecords.of(tmp_path)
    found = {claim.entry.name: claim for claim in evidence.claims(records)}
    assert {claim.verdict for claim in found.values()} == {"not run"}
    assert all(claim.trials for claim in found.values())
    where = [(each.where, each.against) for each in found["repblend-over-coresets"].trials]
    assert len(where) == 4 * len(records.grid.budgets) and where[0] == (f"{records.grid.budgets[0]} pairs", "Random")
    assert {each.where for each in found["other-encoders-lite1"].trials} == {
        f"{budget} pairs" for budget in records.grid.pair_budgets}
    of_ufc = ufc_evidence.claims(UfcRecords.of(_ufc_workspace(tmp_path)))
    assert {claim.verdict for claim in of_ufc} == {"not run"} and all(claim.trials for claim in of_ufc)


def _ufc_workspace(root: Path) -> Path:
    shutil.copyfile(ROOT / "profiles" / "ufc-glyphs" / "params.yaml", root / "params.yaml")
    return root


def test_profiles_of_claims_are_named_like_profiles() -> None:
    assert {name for each in ENTRIES for name in each.profiles} - set(names(ROOT)) <= {"ufc-glyphs"}


# Published effects.


@pytest.mark.parametrize("entry", [each for each in ENTRIES if not isinstance(each.published, NotKnown)],
                         ids=lambda entry: entry.name)
def test_a_published_effect_is_computed_from_rows_of_its_file(entry: Entry) -> None:
    """By hand: rows of the CSV as text, one method's against the other's."""
    assert isinstance(entry.published, list)
    for spec, effect in zip(entry.published, published_effects(ROOT, entry.published), strict=True):
        with (ROOT / "paper" / "published" / f"{spec.file}.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        found = []
        for key in dict.fromkeys(_about(row, spec) for row in rows):
            first = _mean(rows, spec, key, spec.first)
            others = [number for name in _names(spec) if (number := _mean(
                rows, spec, key, spec.second | {"method": name})) is not None]
            if first is not None and others:
                found.append(first / max(others) if spec.ratio else first - max(others))
        assert found and sorted(effect.values) == pytest.approx(sorted(found))
        used = {row["evidence"] for row in rows if all(row[column] == value for column, value in spec.first.items())}
        assert set(effect.evidence.split("/")) == used


def _names(spec: Published) -> list[str]:
    name = spec.second["method"]
    return [name] if isinstance(name, str) else name


def _about(row: dict[str, str], spec: Published) -> tuple[str, ...]:
    named = {*spec.first, spec.value, "recall", "mean", "std", "source", "evidence"}
    return tuple(value for column, value in row.items() if column not in named)


def _mean(rows: list[dict[str, str]], spec: Published, key: tuple[str, ...], wanted: dict[str, Any]) -> Decimal | None:
    numbers = [Decimal(row[spec.value]) for row in rows if _about(row, spec) == key
               and all(row[column] == value for column, value in wanted.items())]
    return sum(numbers, Decimal(0)) / len(numbers) if numbers else None


def test_headline_of_the_abstract_follows_from_the_rows() -> None:
    rows = Published(file="flickr30k", first={"method": "repblend", "budget": "100", "recall": "ir_at_10"},
                     second={"method": "lors", "budget": "100", "recall": "ir_at_10"})
    assert [str(each) for each in published_effects(ROOT, [rows])[0].values] == ["9.4"]


def test_rows_that_are_of_one_method_alone_are_refused(clone: Path) -> None:
    rows = Published(file="efficiency", first={"method": "lors"}, second={"method": "mtt-vl"}, value="value")
    with pytest.raises(ValueError, match=r"no rows of efficiency\.csv are about both.*git restore"):
        published_effects(clone, [rows])


def test_an_evidence_finds_sets_by_the_names_of_their_cells(workspace: Path) -> None:
    records = Evidence(GridRecords.of(workspace))
    found = records.sets("evaluate", "repblend-50", lambda name: records.recall(name, "mean_recall"))
    assert [file for _, file in found.values()] == [
        f"records/evaluate/repblend{seed}-50/record.json" for seed in ("", "+seed-1", "+seed-2")]
    assert [*records.sets("evaluate", "repblend-100", lambda name: records.recall(name, "mean_recall"))] == [0]
