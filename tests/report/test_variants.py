"""What carries a set, and what blending does in two regimes: tables, figures and words against the records."""

import csv
import io
import shutil
from pathlib import Path

import numpy as np
import pytest

from repblend.report.blending import COLLAPSE, SOURCE, arms, blending_table, blending_words
from repblend.report.carried import carried, carried_sets, carried_table
from repblend.report.figures import blending
from repblend.report.grid_records import GridRecords
from repblend.report.markup import part
from repblend.report.published import FOLDER, read_published
from tests.report.synthetic import ROOT, WHOLE_GRID, distillation, evaluation, path_of, read, write, write_grid

LEARNED = {"repblend+only-texts": ["texts"], "repblend+fixed-pairs": ["similarity", "rates"],
           "repblend": ["images", "texts", "similarity", "rates"]}
LEVELS = {"random": 10.0, "repblend+only-texts": 20.0, "repblend+fixed-pairs": 15.0, "repblend": 30.0}
REGIMES = ("repblend+published", "repblend-without-blending+published")
OWN = {"repblend-50": 20.0, "repblend-without-blending-50": 26.0, "repblend+published-50": 20.0,
       "repblend-without-blending+published-50": 10.0}


def mean_of(root: Path, cell: str) -> float:
    return read(root, f"evaluate/{cell}")["protocols"]["held-out"]["mean"]["mean_recall"]


@pytest.fixture
def run(workspace: Path) -> Path:
    """A workspace whose variants and regimes were run."""
    draw = np.random.default_rng(3)
    for method, level in LEVELS.items():
        write(workspace, f"evaluate/{method}-50", evaluation(draw, method, 50, level))
    for method, parts in LEARNED.items():
        content = distillation(draw, method, 50)
        content["provenance"]["parameters"]["distill"] = {"learned": parts}
        write(workspace, f"distill/{method}-50", content)
    for cell, level in OWN.items():
        method = cell.rpartition("-")[0]
        content = distillation(draw, method, 50)
        if "without" not in method:
            content["course"]["checkpoints"]["modality_gap"][-1] -= 0.2
        write(workspace, f"distill/{cell}", content)
        write(workspace, f"evaluate/{cell}", evaluation(draw, method, 50, level))
    return workspace


def rows_of(table: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(table)))


def test_the_share_of_the_gain_is_that_of_the_stored_means(run: Path) -> None:
    rows = rows_of(carried_table(GridRecords.of(run)).to_csv())
    assert [row["learned"] for row in rows] == ["nothing: random pairs", "texts", "similarity, rates",
                                                "everything: RepBlend"]
    nothing, whole = mean_of(run, "random-50"), mean_of(run, "repblend-50")
    for row, method in zip(rows, LEVELS, strict=True):
        found = mean_of(run, f"{method}-50")
        assert float(row["mean_recall"]) == found
        assert float(row["share_of_gain"]) == pytest.approx(100 * (found - nothing) / (whole - nothing))
        assert row["record"] == f"records/evaluate/{method}-50/record.json"
    assert (float(rows[0]["share_of_gain"]), float(rows[-1]["share_of_gain"])) == (0, 100)


def test_without_a_gain_there_is_no_share_of_it(run: Path) -> None:
    write(run, "evaluate/repblend-50", evaluation(np.random.default_rng(1), "repblend", 50, 5.0))
    assert {row["share_of_gain"] for row in rows_of(carried_table(GridRecords.of(run)).to_csv())} == {"–"}


def test_variants_that_were_not_run_say_so_under_their_names(workspace: Path) -> None:
    rows = rows_of(carried_table(GridRecords.of(workspace)).to_csv())
    assert [(row["learned"], row["status"]) for row in rows[1:3]] == [("only texts", "not run"),
                                                                      ("fixed pairs", "not run")]
    assert [each.cell for each in carried_sets(GridRecords.of(workspace))] == [f"{name}-50" for name in LEVELS]


@pytest.mark.parametrize("draw", [carried, blending])
def test_figures_have_the_same_bytes_twice_and_show_what_was_not_run(run: Path, tmp_path: Path, draw: object) -> None:
    records = GridRecords.of(run)
    for folder in ("once", "twice"):
        (tmp_path / folder).mkdir()
        draw(records, tmp_path / folder)
    once, twice = ({file.name: file.read_bytes() for file in (tmp_path / folder).iterdir()}
                   for folder in ("once", "twice"))
    assert once == twice and len(once) == 3
    for cell in ("repblend+only-texts-50", *OWN):
        path_of(run, f"evaluate/{cell}").unlink()
        path_of(run, f"distill/{cell}").unlink()
    draw(GridRecords.of(run), tmp_path / "once")
    assert {file.name: file.read_bytes() for file in (tmp_path / "once").iterdir()} != twice


def test_both_arms_stand_in_every_regime_with_what_blending_changes(run: Path) -> None:
    rows = rows_of(blending_table(GridRecords.of(run)).to_csv())
    assert [(row["regime"], row["blending"]) for row in rows[:6]] == [
        (regime, arm) for regime in ("this project's", "published")
        for arm in ("without", "with", "what blending changes")]
    for start, cells in ((0, [*OWN][1::-1]), (3, [*OWN][:1:-1])):
        for row, cell in zip(rows[start:], cells, strict=False):
            course = read(run, f"distill/{cell}")["course"]["checkpoints"]
            assert float(row["mean_recall"]) == mean_of(run, cell)
            assert [float(row[name]) for name in COLLAPSE] == [course[name][-1] for name in COLLAPSE]
        changes = rows[start + 2]
        assert float(changes["mean_recall"]) == pytest.approx(mean_of(run, cells[1]) - mean_of(run, cells[0]))
        assert float(changes["modality_gap"]) == pytest.approx(-0.2)


def test_what_the_released_code_gave_stands_beside_ours_with_its_source(run: Path) -> None:
    rows = rows_of(blending_table(GridRecords.of(run)).to_csv())[6:]
    stored = read_published(ROOT, "released-code")
    assert {row["source"] for row in stored} == {SOURCE} and {row["evidence"] for row in stored} == {"M"}
    assert [float(row["mean_recall"]) for row in rows] == [float(row["mean"]) for row in stored]
    assert {row["status"] for row in rows} == {"released code"}
    assert all(row["record"].startswith(f"{FOLDER}/released-code.csv, row ") for row in rows)


def test_on_another_data_set_the_released_code_was_not_run(run: Path) -> None:
    write(run, "prepare", read(run, "prepare") | {"name": "flickr30k"})
    assert len(rows_of(blending_table(GridRecords.of(run)).to_csv())) == 6
    assert blending_words(GridRecords.of(run))["released"] == []


def test_the_words_follow_from_the_numbers(run: Path) -> None:
    for place, arm in enumerate(("repblend-without-blending", "repblend")):  # by two points, give or take a tenth
        for seed, means in enumerate((20.0, 22.0, 21.0)):
            name = f"{arm}+seed-{seed}" if seed else arm
            level = means + (2 + seed / 10) * place
            write(run, f"evaluate/{name}-50", evaluation(np.random.default_rng(1), name, 50, level))
    found = blending_words(GridRecords.of(run))
    assert (found["num"], found["helps"], found["hurts"], found["undecided"], found["no_interval"]) == (2, 1, 0, 1, 1)
    (gap,) = (each for each in found["lowered"] if each.title == "modality gap")
    assert (gap.times, gap.of, round(gap.least, 3), round(gap.most, 3)) == (2, 2, -0.2, -0.2)
    said = str(part("blending", "words.html.j2", run={"blending": found}))
    assert "helps recall in 1 of 2 comparisons, lowers it in 0, and 1 is undecided" in said
    assert "Of 1 there is one set of an arm, and so no interval." in said
    assert "modality gap -0.200 to -0.200 (lower in 2 of 2)" in said
    assert "18.9 (1.7) against 20.0 (1.4) (100 pairs, first seed, iteration 160)" in said


def test_nothing_is_said_of_what_was_not_run(workspace: Path) -> None:
    for path in (workspace / "records").glob("*/repblend*"):
        shutil.rmtree(path)
    found = blending_words(GridRecords.of(workspace))
    assert found["num"] == 0 and found["lowered"] == []
    assert "Blending helps" not in str(part("blending", "words.html.j2", run={"blending": found}))


def test_a_regime_without_one_of_the_arms_is_not_compared(workspace: Path) -> None:
    write_grid(workspace, WHOLE_GRID | {"regimes": ["repblend+published"]})
    assert {each.regime for each in arms(GridRecords.of(workspace))} == {"this project's"}
