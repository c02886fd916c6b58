"""Malformed metrics stop the report with the file and the key."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from repblend.report import pairs
from repblend.report.metrics import Metrics
from repblend.report.tables import all_tables
from tests.report.synthetic import BUDGETS, TRAINED, read, write

Edit = Callable[[Any], object]
EVALUATION, DISTILLATION, SPECIMENS = (f"{stage}/repblend-100" for stage in ("evaluate", "distill", "specimens"))
PROTOCOL = "protocols.held-out"
WRONG: list[tuple[str, Edit, str]] = [
    (EVALUATION, lambda c: c["protocols"]["held-out"]["mean"].update(ir_at_1=math.nan), f"{PROTOCOL}.mean.ir_at_1"),
    (EVALUATION, lambda c: c["protocols"]["held-out"]["std"].update(tr_at_5=math.inf), f"{PROTOCOL}.std.tr_at_5"),
    (EVALUATION, lambda c: c["protocols"]["held-out"]["seeds"][3].pop("epoch"), f"{PROTOCOL}.seeds.3.epoch"),
    (EVALUATION, lambda c: c["protocols"]["held-out"]["seeds"][3].update(ir_at_1="7.0"), f"{PROTOCOL}.seeds.3.ir_at_1"),
    (EVALUATION, lambda c: c["protocols"]["held-out"]["mean"].update(tr_at_10=101.0), f"{PROTOCOL}.mean.tr_at_10"),
    (EVALUATION, lambda c: c["protocols"]["held-out"]["mean"].update(ir_at_10=50.0), "mean.ir_at_10 is 50.0"),
    (EVALUATION, lambda c: c["protocols"]["held-out"]["std"].update(ir_at_10=9.0), "std.ir_at_10 is 9.0"),
    (EVALUATION, lambda c: c["protocols"].pop("faithful"), "protocols.faithful"),
    (EVALUATION, lambda c: c.update(unit="fraction"), "unit"),
    (EVALUATION, lambda c: c["cell"].update(budget=50), "cell"),
    (EVALUATION, lambda c: c.pop("provenance"), "provenance"),
    ("evaluate/chance", lambda c: c["expected"].update(tr_at_1=None), "expected.tr_at_1"),
    (DISTILLATION, lambda c: c["curves"]["lr_img"].pop(), "lr_img has 159 entries, iteration has 160"),
    (DISTILLATION, lambda c: c["curves"]["matching_loss"].__setitem__(5, math.nan), "curves.matching_loss.5"),
    (DISTILLATION, lambda c: c["checkpoints"].pop("modality_gap"), "checkpoints.modality_gap"),
    (DISTILLATION, lambda c: c.update(chosen_iteration=7), "chosen_iteration is 7"),
    (SPECIMENS, lambda c: c["pairs"][2].update(distilled_png="!"), "pairs.2.distilled_png"),
    (SPECIMENS, lambda c: c["similarity"][4].pop(), "row 4 has 98 entries"),
]


def read_everything(metrics: Metrics) -> None:
    all_tables(metrics)
    metrics.distillation("repblend-100")
    metrics.specimens("repblend-100")
    metrics.sources()


@pytest.mark.parametrize(("name", "edit", "key"), WRONG, ids=[key for _, _, key in WRONG])
def test_a_wrong_value_names_the_file_and_the_key(workspace: Path, name: str, edit: Edit, key: str) -> None:
    content = read(workspace, name)
    edit(content)
    write(workspace, name, content)
    with pytest.raises(ValueError) as caught:
        read_everything(Metrics.of(workspace))
    assert f"metrics/{name}.json" in str(caught.value)
    assert key in str(caught.value)
    assert "Delete the file and run `repro run`" in str(caught.value)


def test_a_truncated_file_names_the_file_and_the_line(workspace: Path) -> None:
    path = workspace / "metrics" / "evaluate" / "random-50.json"
    path.write_text(path.read_text()[:100])
    with pytest.raises(ValueError, match=r"evaluate/random-50.json, line 1: expected JSON"):
        read_everything(Metrics.of(workspace))


def test_sources_are_in_the_order_of_the_pipeline_and_leave_run_records_out(workspace: Path) -> None:
    write(workspace, "runs/prepare", {"started": "2026-01-01"})
    files = list(Metrics.of(workspace).sources())
    assert files[:4] == [f"metrics/{name}.json" for name in ("prepare", "encode", "experts", "encoder-experts")]
    stages = [file.split("/")[1] for file in files[4:]]
    assert list(dict.fromkeys(stages)) == ["select", "distill", "specimens", "evaluate"]
    assert stages.count("evaluate") == len(BUDGETS) * len(TRAINED) + 3


def test_an_imported_set_is_drawn_without_what_it_started_from(workspace: Path, tmp_path: Path,
                                                               monkeypatch: pytest.MonkeyPatch) -> None:
    cell = f"repblend-{max(Metrics.of(workspace).grid.budgets)}"
    course, looks = (read(workspace, f"{stage}/{cell}") for stage in ("distill", "specimens"))
    imported = {"imported": {"sha256": "0" * 64, "files": {"distilled_3000.pt": "0" * 64}}}
    write(workspace, f"distill/{cell}", {key: course[key] for key in ("cell", "num_pairs", "provenance")} | imported)
    for pair in looks["pairs"]:
        del pair["initial_png"], pair["initial_caption"]
    write(workspace, f"specimens/{cell}", looks | imported)
    written: list[str] = []
    monkeypatch.setattr(pairs, "_write", lambda panel, line, words, shade="black": written.append(words))
    monkeypatch.setattr(pairs, "save", lambda figure, folder, name: None)
    metrics = Metrics.of(workspace)
    pairs.specimens(metrics, tmp_path / "figures")
    assert metrics.distillation(cell) is None and metrics.specimens(cell)["pairs"] == looks["pairs"]
    assert written.count("not known: imported") == len(looks["pairs"]) and "0.90  cupcake" in written
