"""Tables and figures of what not every run has, against the records they are made from."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest

from repblend.report.drawing import draw_plot
from repblend.report.efficiency import efficiency_table
from repblend.report.figures import learning_curves
from repblend.report.first import recall_plot
from repblend.report.grid_records import GridRecords
from repblend.report.markup import table_html
from repblend.report.pictures import spheres, viewpoint
from repblend.report.published import cross_architecture_table, larger_encoders_table, quoted_zero_shot_table
from repblend.report.results import results_table
from repblend.report.studies import (
    ablation,
    ablation_table,
    architectures_table,
    measures_table,
    noise,
    noise_table,
    sensitivity,
    sensitivity_table,
    zero_shot_table,
)
from tests.report.synthetic import (
    COMPARED,
    MEASURES,
    METHODS,
    RECALLS,
    path_of,
    read,
    transfer,
    wider_records,
    write,
    write_wider,
)

Rows = list[dict[str, str]]
ORDER = ["Random", "Herding", "K-Center", "Forgetting", "MTT-VL", "TESLA-VL", "LoRS", "RepBlend without SM",
         "RepBlend without RB", "RepBlend"]

METHOD_OF = {"RepBlend": "repblend", "LoRS": "lors", "TESLA-VL": "tesla-vl"}


@pytest.fixture
def wide(workspace: Path) -> Path:
    return write_wider(workspace)


def parsed(text: str) -> Rows:
    return list(csv.DictReader(io.StringIO(text)))


def cell(rows: Rows, **wanted: str) -> dict[str, str]:
    """The only row with these cells."""
    (found,) = (row for row in rows if all(row[name] == value for name, value in wanted.items()))
    return found


def test_all_methods_stand_in_the_order_of_the_paper(workspace: Path) -> None:
    rows = parsed(results_table(wider_records(workspace), "held-out").to_csv())
    of_budget = [row["method"] for row in rows if row["pairs"] == "100"]
    assert of_budget == [*ORDER[:4], "Random", *ORDER[4:]]  # once more, for students that train the encoder
    assert all(row["status"] == "run" for row in rows)


@pytest.mark.parametrize("protocol", ["held-out", "faithful"])
def test_other_architectures_have_a_row_each_with_the_stored_numbers(wide: Path, protocol: str) -> None:
    rows = parsed(architectures_table(GridRecords.of(wide), protocol).to_csv())
    assert len(rows) == len(COMPARED) * len(METHODS) * 2
    row = cell(rows, pairs="100", method="RepBlend", image_encoder="regnet_small")
    stored = read(wide, "transfer/repblend-100")["architectures"]["regnet_small"]["protocols"][protocol]
    for name in (*RECALLS, "mean_recall"):
        assert (float(row[name]), float(row[f"{name}_std"])) == (stored["mean"][name], stored["std"][name])
    assert row["record"] == "records/transfer/repblend-100/record.json"


def test_a_cell_that_was_not_transferred_says_so_for_every_architecture(wide: Path) -> None:
    path_of(wide, "transfer/random-100").unlink()
    rows = parsed(architectures_table(GridRecords.of(wide), "held-out").to_csv())
    missing = [row for row in rows if row["status"] == "not run"]
    assert [(row["pairs"], row["method"], row["image_encoder"]) for row in missing] == [
        ("100", "Random", "resnet_small"), ("100", "Random", "regnet_small")]
    assert {row["mean_recall"] for row in missing} == {""}


def test_tasks_show_accuracy_or_mean_recall_beside_chance(wide: Path) -> None:
    rows = parsed(zero_shot_table(GridRecords.of(wide)).to_csv())
    stored = read(wide, "transfer/repblend-100")["zero_shot"]
    words = cell(rows, task="ten-words", method="RepBlend", pairs="100")
    assert float(words["held_out"]) == stored["ten-words"]["protocols"]["held-out"]["mean"]["accuracy"]
    assert (words["metric"], words["chance"], words["faithful"]) == ("top-1 accuracy", "12.5", "–")
    icons = cell(rows, task="icons", method="RepBlend", pairs="100")
    assert float(icons["faithful"]) == stored["icons"]["protocols"]["faithful"]["mean"]["mean_recall"]


def test_unknown_values_are_unknown_and_ours_not_run(wide: Path) -> None:
    records = GridRecords.of(wide)
    larger = parsed(larger_encoders_table(records).to_csv())
    assert [row["ir_at_1"] for row in larger] == ["unknown", ""] * 3
    assert [row["status"] for row in larger] == ["published", "not run"] * 3
    assert "| published | unknown |" in larger_encoders_table(records).to_markdown()
    zero_shot = parsed(quoted_zero_shot_table(records).to_csv())
    assert cell(zero_shot, task="TextCaps", metric="IR@1")["published"] == "3.1"
    assert sum(row["published"] == "unknown" for row in zero_shot) == 6
    assert {(row["ours"], row["status"]) for row in zero_shot} == {("", "not run")}


def test_another_papers_numbers_stand_in_for_table_4_under_its_name(wide: Path) -> None:
    rows = parsed(cross_architecture_table(GridRecords.of(wide)).to_csv())
    assert {row["nf_resnet50"] for row in rows if row["from"] == "published"} == {"unknown"}
    mdm = cell(rows, **{"from": "published by MDM"}, dataset="Flickr30K", pairs="100")
    assert (mdm["method"], mdm["nf_resnet50"], mdm["nf_regnet_b1"]) == ("LoRS", "6.5", "7.1")
    assert {row["nf_resnet50"] for row in rows if row["from"] == "ours"} == {""}


def test_ours_stands_in_table_4_where_that_data_set_and_encoder_were_run(wide: Path) -> None:
    write(wide, "prepare", read(wide, "prepare") | {"name": "coco"})
    content = transfer(np.random.default_rng(0), "repblend", 100)
    content["architectures"]["nf_resnet50"] = content["architectures"].pop("resnet_small")
    write(wide, "transfer/repblend-100", content)
    rows = [row for row in parsed(cross_architecture_table(GridRecords.of(wide)).to_csv()) if row["from"] == "ours"]
    run = cell(rows, status="run")
    assert (run["dataset"], run["pairs"], run["method"], run["nf_regnet_b1"]) == ("COCO", "100", "RepBlend", "")
    stored = content["architectures"]["nf_resnet50"]["protocols"]["faithful"]["mean"]["mean_recall"]
    assert float(run["nf_resnet50"]) == stored


def test_efficiency_has_published_and_ours_with_a_row_of_ratios_each(wide: Path) -> None:
    table = efficiency_table(GridRecords.of(wide))
    names = ["LoRS", "LoRS, gradient as released", "RepBlend", "LoRS / RepBlend"]
    assert [row.cells[:2] for row in table.rows] == [("published", names[0]), *(("published", name)
                                                     for name in names[2:]), *(("ours", name) for name in names)]
    rows = parsed(table.to_csv())
    published = cell(rows, **{"from": "published"}, method="LoRS / RepBlend", quantity="time_per_iteration")
    assert float(published["value"]) == pytest.approx(11.5 / 1.71)
    assert published["status"] == "published"
    ours = cell(rows, **{"from": "ours"}, method="LoRS / RepBlend", quantity="peak_memory")
    assert float(ours["value"]) == pytest.approx(4.0)
    assert ours["record"] == "benchmarks/efficiency.json"
    slowest = cell(rows, **{"from": "ours"}, method="RepBlend", quantity="time_per_iteration_max")
    assert float(slowest["value"]) == pytest.approx(2.4)
    assert "| published | LoRS | *11.5 s* | *21.78 GB* | *1.63 GB* | *70 min* |" in table.to_markdown()
    assert "| ours | LoRS | 8.000 s | 2,400 MiB | 7.6 MiB | 80.0 s |" in table.to_markdown()
    assert 'class="number derived published">6.7 ×' in table_html(table)
    assert 'class="number derived">4.0 ×' in table_html(table)


def test_efficiency_without_the_benchmark_has_the_published_rows_alone(workspace: Path) -> None:
    rows = parsed(efficiency_table(GridRecords.of(workspace)).to_csv())
    assert {row["value"] for row in rows if row["from"] == "ours"} == {""}
    assert {row["status"] for row in rows if row["from"] == "ours"} == {"not run"}
    assert len([row for row in rows if row["from"] == "published" and row["value"]]) == 12


def test_measures_of_collapse_are_the_stored_ones(wide: Path) -> None:
    row = cell(parsed(measures_table(GridRecords.of(wide)).to_csv()), pairs="100", method="RepBlend")
    stored = read(wide, "embed/repblend-100")["measures"]
    for name in MEASURES:
        assert (float(row[name]), float(row[f"{name}_std"])) == (stored[name]["mean"], stored[name]["std"])


def test_the_viewpoint_is_a_rotation_with_images_right_of_texts() -> None:
    draw = np.random.default_rng(3)
    images, texts = draw.normal(size=(5, 3)) + 1, draw.normal(size=(7, 3))
    for first, second in ((images, texts), (texts, images), (images, images)):
        view = viewpoint(first, second)
        np.testing.assert_allclose(view @ view.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(view) == pytest.approx(1.0)
        seen = view @ (first.mean(0) - second.mean(0))
        assert seen[0] >= 0
        np.testing.assert_allclose(seen[1:], 0, atol=1e-12)


def test_the_ablation_goes_from_lors_to_both_parts(workspace: Path) -> None:
    rows = [row for row in parsed(ablation_table(wider_records(workspace)).to_csv()) if row["pairs"] == "100"]
    assert [(row["rb"], row["sm"]) for row in rows] == [("no", "no"), ("yes", "no"), ("no", "yes"), ("yes", "yes")]
    stored = read(workspace, "evaluate/repblend-without-matching-100")["protocols"]["held-out"]
    assert float(rows[1]["held_out"]) == stored["mean"]["mean_recall"]


def test_sensitivity_names_what_each_variant_changes(workspace: Path) -> None:
    rows = parsed(sensitivity_table(wider_records(workspace)).to_csv())
    assert [(row["family"], row["setting"]) for row in rows] == [
        ("rank", "similarity_rank 10 (as it is)"), ("rank", "similarity_rank 2"), ("rank", "similarity_rank 40"),
        ("noise", "as it is"), ("noise", "noise_level 0.1"), ("noise", "noise_level 1.0")]
    assert rows[1]["record"] == "records/evaluate/repblend+rank-2-50/record.json"
    stored = read(workspace, "evaluate/repblend+rank-2-50")["protocols"]["held-out"]["mean"]["mean_recall"]
    assert float(rows[1]["mean_recall"]) == stored


def test_a_variant_that_was_not_run_is_named_and_says_so(workspace: Path) -> None:
    records = wider_records(workspace)
    for stage in ("distill", "evaluate"):
        path_of(workspace, f"{stage}/repblend+rank-40-50").unlink()
    row = parsed(sensitivity_table(records).to_csv())[2]
    assert (row["setting"], row["status"], row["mean_recall"]) == ("rank-40", "not run", "")


def test_a_variant_with_nothing_to_compare_with_is_named(workspace: Path) -> None:
    records = wider_records(workspace)
    path_of(workspace, "distill/repblend-with-noise+low-50").unlink()
    assert [row["setting"] for row in parsed(sensitivity_table(records).to_csv())][-2:] == ["low", "high"]


def test_noise_is_set_beside_blending_and_nothing_after_the_last_iteration(workspace: Path) -> None:
    rows = parsed(noise_table(wider_records(workspace)).to_csv())
    assert [row["perturbation"] for row in rows] == ["none", "noise 0.1", "noise 1", "blending"]
    stored = read(workspace, "distill/repblend-with-noise+high-50")["course"]["checkpoints"]
    assert float(rows[2]["modality_gap"]) == stored["modality_gap"][-1] != stored["modality_gap"][0]
    assert rows[2]["record"] == "records/distill/repblend-with-noise+high-50/record.json"


def test_figures_of_the_wider_grid_are_drawn(workspace: Path, tmp_path: Path) -> None:
    records = wider_records(write_wider(workspace))
    for draw in (ablation, sensitivity, noise, spheres, learning_curves):
        draw(records, tmp_path)
    draw_plot(recall_plot(records), tmp_path)
    assert len(list(tmp_path.glob("*.svg"))) == 6
    assert b"rank" in (tmp_path / "sensitivity.svg").read_bytes()


WRONG = [
    ("transfer/repblend-100", ("zero_shot", "ten-words", "chance"), 120.0, "zero_shot.ten-words.chance"),
    ("transfer/repblend-100", ("zero_shot", "ten-words", "protocols", "held-out", "mean", "accuracy"), 3.0,
     "mean.accuracy is 3.0"),
    ("transfer/repblend-100", ("architectures", "regnet_small", "protocols", "faithful"), None, "protocols.faithful"),
    ("embed/repblend-100", ("measures", "modality_gap", "mean"), 9.0, "mean is 9.0"),
    ("embed/repblend-100", ("sphere", "images", 3), [1.0, 1.0, 0.0], "images.3 has length 1.414"),
    ("embed/repblend-100", ("cell", "budget"), 50, "cell"),
]


@pytest.mark.parametrize(("name", "where", "value", "message"), WRONG, ids=[each[-1] for each in WRONG])
def test_a_wrong_value_names_the_file_and_the_key(wide: Path, name: str, where: tuple[str | int, ...], value: object,
                                                  message: str) -> None:
    content = read(wide, name)
    part = content
    for key in where[:-1]:
        part = part[key]
    part[where[-1]] = value
    write(wide, name, content)
    with pytest.raises(ValueError) as caught:
        zero_shot_table(GridRecords.of(wide))
        measures_table(GridRecords.of(wide))
    assert f"records/{name}/record.json" in str(caught.value)
    assert message in str(caught.value)


def test_a_wrong_benchmark_says_to_restore_it(wide: Path) -> None:
    path = wide / "benchmarks" / "efficiency.json"
    content = json.loads(path.read_text())
    content["methods"]["lors"]["peak_memory_mib"] = -1.0
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"methods\.lors\.peak_memory_mib(.|\n)*git restore benchmarks"):
        efficiency_table(GridRecords.of(wide))
