"""The paper's numbers: read strictly, kept apart from ours, compared only on the same data set."""

import csv
import io
import math
from pathlib import Path

import pytest

from repblend.report.grid_records import GridRecords
from repblend.report.markup import table_html
from repblend.report.published import FILES, FOLDER, comparison_table, read_published
from tests.report.synthetic import ROOT, read, write

WRONG = [
    ("flickr30k", "11.5", "eleven", "row", "mean: expected a number, found 'eleven'"),
    ("flickr30k", "11.5", "nan", "row", "mean: expected a number, found 'nan'"),
    ("flickr30k", "100,repblend,ir_at_1,", "many,repblend,ir_at_1,", "row", "budget: expected a whole number"),
    ("coco", "budget,method", "budget,colour", "row 1", "unknown or missing: colour, method"),
    ("coco", ",T\n", ",X\n", "row 2", "evidence: expected one of T, C, S, D, M, found 'X'"),
    ("coco", "100,herding,ir_at_1", "100,random,ir_at_1", "row 8", "an earlier row is about the same"),
    ("coco", "100,herding,ir_at_1", "100,herd,ir_at_1", "row 8", "method: expected one of"),
    ("efficiency", "11.5,s", "11.5", "row 2", "expected 6 cells, found 5"),
    ("collapse", "caption,", "guess,", "row 2", "reading: expected one of"),
]


def parsed(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


@pytest.mark.parametrize(("name", "right", "wrong", "row", "message"), WRONG, ids=[each[-1] for each in WRONG])
def test_a_wrong_cell_names_the_file_and_the_row(workspace: Path, name: str, right: str, wrong: str, row: str,
                                                 message: str) -> None:
    path = workspace / FOLDER / f"{name}.csv"
    path.write_text(path.read_text().replace(right, wrong, 1))
    with pytest.raises(ValueError) as caught:
        read_published(workspace, name)
    assert f"{name}.csv, {row}" in str(caught.value)
    assert message in str(caught.value)
    assert "git restore paper/published" in str(caught.value)


def test_a_missing_file_says_how_to_restore_it(workspace: Path) -> None:
    (workspace / FOLDER / "coco.csv").unlink()
    with pytest.raises(ValueError, match=r"coco\.csv: no such file\. Restore it"):
        comparison_table(GridRecords.of(workspace), "coco")


def test_every_file_is_declared_and_every_row_has_source_and_evidence() -> None:
    assert {path.stem for path in (ROOT / FOLDER).glob("*.csv")} == set(FILES)
    for name in FILES:
        assert all(entry["source"] and entry["evidence"] in "TCSDM" for entry in read_published(ROOT, name))


def test_the_published_means_are_those_that_the_paper_implies() -> None:
    """Known means of the six recalls: 33.6, 36.6, 43.0 on Flickr30K and 15.2, 19.4, 19.8 on COCO."""
    for name, expected in (("flickr30k", [33.6, 36.6, 43.0]), ("coco", [15.2, 19.4, 19.8])):
        entries = read_published(ROOT, name)
        means = [sum(entry["mean"] for entry in entries if entry["method"] == "repblend" and entry["budget"] == budget)
                 / 6 for budget in (100, 200, 500)]
        assert [round(float(mean), 1) for mean in means] == expected
        assert len(entries) == 3 * 8 * 6 + 6


@pytest.mark.parametrize("dataset", ["flickr30k", "coco"])
def test_records_of_another_data_set_fill_nothing(workspace: Path, dataset: str) -> None:
    table = comparison_table(GridRecords.of(workspace), dataset)
    rows = parsed(table.to_csv())
    assert len(rows) == 156  # two rows of ours beside the full training set
    assert {(row["ours"], row["ours_std"], row["difference_in_std"], row["status"]) for row in rows} == {
        ("", "", "", "not run")}
    ours = [row for row in table.rows if row.cells[2] == "ours"]
    assert len(ours) == 26 and all(set(row.cells[3:]) == {None} for row in ours)
    assert not [row for row in table.rows if row.cells[2] == "difference"]


def test_records_of_the_same_data_set_stand_beside_the_published_ones(workspace: Path) -> None:
    write(workspace, "prepare", read(workspace, "prepare") | {"name": "flickr30k"})
    rows = parsed(comparison_table(GridRecords.of(workspace), "flickr30k").to_csv())
    row = next(row for row in rows if (row["pairs"], row["method"], row["recall"]) == ("100", "RepBlend", "tr_at_5"))
    stored = read(workspace, "evaluate/repblend-100")["protocols"]["faithful"]
    mean, std = stored["mean"]["tr_at_5"], stored["std"]["tr_at_5"]
    assert (row["published"], row["published_std"]) == ("41.7", "0.9")
    assert (float(row["ours"]), float(row["ours_std"])) == (mean, std)
    assert math.isclose(float(row["difference_in_std"]), (mean - 41.7) / math.sqrt(std**2 + 0.9**2))
    assert row["record"] == "records/evaluate/repblend-100/record.json"
    assert "with an-image-encoder and a-text-encoder" in (
        comparison_table(GridRecords.of(workspace), "flickr30k").caption)
    random = next(row for row in rows if (row["pairs"], row["method"]) == ("100", "Random"))
    assert random["ours"] and not random["published_std"] and not random["difference_in_std"]
    assert all(row["status"] == "not run" for row in rows if row["pairs"] == "500")


def test_published_and_ours_look_different_in_every_format(workspace: Path) -> None:
    write(workspace, "prepare", read(workspace, "prepare") | {"name": "flickr30k"})
    table = comparison_table(GridRecords.of(workspace), "flickr30k")
    stored = read(workspace, "evaluate/repblend-100")["protocols"]["faithful"]
    ours = f"{stored['mean']['ir_at_1']:.1f} ± {stored['std']['ir_at_1']:.1f}"
    assert "| RepBlend | published | *11.5 (0.4)* |" in table.to_markdown()
    assert f"| RepBlend | ours | {ours} |" in table.to_markdown()
    assert r"RepBlend & published & \textit{11.5 (0.4)} &" in table.to_latex()
    html = table_html(table)
    assert 'class="number published" title="paper/published/flickr30k.csv, row ' in html
    there = '"><a href="#records-evaluate-repblend-100">'
    assert f"repblend-100/record.json: protocols.faithful.mean.ir_at_1{there}{ours}</a></td>" in html
    assert html.count('class="number published"') == 156
