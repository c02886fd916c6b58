"""Malformed records stop the report with the file and the key; what lies beside a record is checked as well."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from repblend.report import pictures
from repblend.report.grid_records import GridRecords
from repblend.report.sections import TABLES
from tests.report.synthetic import BUDGETS, TRAINED, path_of, read, write

Edit = Callable[[Any], object]
EVALUATION, DISTILLATION = "evaluate/repblend-100", "distill/repblend-100"
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
    (DISTILLATION, lambda c: c["course"]["curves"]["lr_img"].pop(), "lr_img has 159 entries, iteration has 160"),
    (DISTILLATION, lambda c: c["course"]["curves"]["matching_loss"].__setitem__(5, math.nan), "curves.matching_loss.5"),
    (DISTILLATION, lambda c: c["course"]["checkpoints"].pop("modality_gap"), "checkpoints.modality_gap"),
    (DISTILLATION, lambda c: c["course"].update(chosen_iteration=7), "chosen_iteration is 7"),
]


def read_everything(records: GridRecords) -> None:
    for build in TABLES.values():
        build(records)
    records.sources()


@pytest.mark.parametrize(("name", "edit", "key"), WRONG, ids=[key for _, _, key in WRONG])
def test_a_wrong_value_names_the_file_and_the_key(workspace: Path, name: str, edit: Edit, key: str) -> None:
    content = read(workspace, name)
    edit(content)
    write(workspace, name, content)
    with pytest.raises(ValueError) as caught:
        read_everything(GridRecords.of(workspace))
    assert f"records/{name}/record.json" in str(caught.value)
    assert key in str(caught.value)
    assert "Delete the file and run `repro run`" in str(caught.value)


def test_a_truncated_file_names_the_file_and_the_line(workspace: Path) -> None:
    path = path_of(workspace, "evaluate/random-50")
    path.write_text(path.read_text()[:100])
    with pytest.raises(ValueError, match=r"evaluate/random-50/record.json, line 1: expected JSON"):
        read_everything(GridRecords.of(workspace))


def test_a_damaged_picture_or_similarity_is_named(workspace: Path, tmp_path: Path) -> None:
    folder = path_of(workspace, f"distill/repblend-{max(BUDGETS)}").parent
    (folder / "pair-24-distilled.png").write_bytes(b"!")
    with pytest.raises(ValueError, match=r"pair-24-distilled\.png: expected a PNG image"):
        pictures.specimens(GridRecords.of(workspace), tmp_path)
    np.save(folder / "similarity.npy", np.eye(3))
    with pytest.raises(ValueError, match=rf"similarity\.npy: expected .*{max(BUDGETS) - 1} x .*, found shape 3 x 3"):
        pictures.similarity(GridRecords.of(workspace), tmp_path)
    (folder / "similarity.npy").write_bytes(b"!")
    with pytest.raises(ValueError, match=r"similarity\.npy: expected a NumPy array"):
        pictures.similarity(GridRecords.of(workspace), tmp_path)


def test_sources_are_in_the_order_of_the_pipeline(workspace: Path) -> None:
    stages = [file.removesuffix(".json").split("/")[1] for file in GridRecords.of(workspace).sources()]
    order = ["prepare", "encode", "experts", "encoder-experts", "select", "distill", "evaluate"]
    assert list(dict.fromkeys(stages)) == order and stages == sorted(stages, key=order.index)
    evaluated = sorted((workspace / "records/evaluate").glob("*/record.json"))
    assert stages.count("evaluate") == len(evaluated) > len(BUDGETS) * len(TRAINED)


def test_an_imported_set_is_drawn_without_what_it_started_from(workspace: Path, tmp_path: Path,
                                                               monkeypatch: pytest.MonkeyPatch) -> None:
    cell = f"repblend-{max(BUDGETS)}"
    known = read(workspace, f"distill/{cell}")
    imported = {"sha256": "0" * 64, "files": {"distilled_3000.pt": "0" * 64}}
    specimens = [pair | {"initial_caption": None} for pair in known["specimens"]]
    write(workspace, f"distill/{cell}", known | {"imported": imported, "course": None, "specimens": specimens})
    for path in path_of(workspace, f"distill/{cell}").parent.glob("*-initial.png"):
        path.unlink()
    written: list[str] = []
    monkeypatch.setattr(pictures, "_write", lambda panel, line, words, shade="black": written.append(words))
    monkeypatch.setattr(pictures, "save", lambda figure, folder, name: None)
    records = GridRecords.of(workspace)
    pictures.specimens(records, tmp_path / "figures")
    assert records.course(cell) is None and len(records.distillation(cell).specimens) == len(specimens)
    assert written.count("not known: imported") == len(specimens) and "0.90 cupcake" in written
