"""JSON files of this project's own that somebody else changed: one error that names the file, whoever reads it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from repblend.costs import counts_of
from repblend.data.features import fill
from repblend.encoders.hub import checkpoint_of, record_of, with_record
from repblend.runtime.provenance import read_runs
from repblend.tensors import TensorFile, TensorSpec
from repblend.ufc.data import InitialImages
from repblend.ufc.integration import read_image_set
from repro.compare import Results
from repro.fetch.datasets import RECORD, Origin, fetch
from repro.pipeline import KINDS, MULTIMODAL
from tests.tiny import ROOT

CHECKPOINT = checkpoint_of("timm:someone/something")
assert CHECKPOINT
PARAMS = KINDS[MULTIMODAL].pipeline.read(ROOT / "params.yaml")


def resume(folder: Path) -> None:
    with TensorFile(folder / "t.safetensors", {"features": TensorSpec("float32", (1, 1))}) as file:
        fill(file, "features", folder / "journal.json", lambda first: iter(()))


READERS: dict[str, Callable[[Path], object]] = {
    "records/prepare.json": lambda folder: counts_of(folder, PARAMS),
    "journal.json": resume,
    str(record_of(CHECKPOINT)): lambda folder: with_record(CHECKPOINT, folder),
    "runs.jsonl": lambda folder: read_runs(folder / "runs.jsonl"),
    "manifest.json": InitialImages,
    "set/manifest.json": lambda folder: read_image_set(folder / "set"),
    RECORD: lambda folder: fetch(Origin(), folder),
    "metrics/held-out/random-50.json": Results.in_folder,
}
"""File in a folder -> what reads it. Records of stages are read by `Record.read`, which has its own tests."""


@pytest.mark.parametrize("content", ["3", "null", "[1]", '{"a": {"b": -1}}', '{"num_classes": "3", "files": 3}',
                                     '{"num_classes": 1e400}', "[" * 100_000, "{", "\0", "\xff"])
@pytest.mark.parametrize("name", READERS)
def test_a_file_of_another_form_is_named(tmp_path: Path, name: str, content: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(ValueError) as caught:
        READERS[name](tmp_path)
    assert str(caught.value).startswith(str(path)), caught.value


def test_what_is_absent_is_no_error_where_it_may_be(tmp_path: Path) -> None:
    assert read_runs(tmp_path / "runs.jsonl") == [] and with_record(CHECKPOINT, tmp_path) == CHECKPOINT
    fetch(Origin(), tmp_path)
    assert json.dumps([*tmp_path.iterdir()]) == "[]"


def test_no_command_of_a_terminal_is_a_name_of_a_stage(tmp_path: Path) -> None:
    line = json.loads((ROOT / "runs.jsonl").read_text().splitlines()[0])
    for stage in ("distill@repblend-100", "encode"):
        (tmp_path / "runs.jsonl").write_text(json.dumps(line | {"stage": stage}))
        assert [run.stage for run in read_runs(tmp_path / "runs.jsonl")] == [stage]
    for stage in ("\x1b[2J", "encode@", "a@b@c", "", "a\nb"):
        (tmp_path / "runs.jsonl").write_text(json.dumps(line | {"stage": stage}))
        with pytest.raises(ValueError, match="line 1"):
            read_runs(tmp_path / "runs.jsonl")
