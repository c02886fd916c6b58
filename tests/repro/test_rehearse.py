"""`repro rehearse`: every kind takes real steps and says what they took; what does not fit is cured."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from repblend import rehearsal
from repblend.costs import DISTILL, REHEARSAL, Counts, Rehearsal, Rehearsed, kinds_of
from repblend.encoders.libraries import random_where_absent
from repblend.encoders.registry import load_image_encoder, load_text_encoder
from repblend.params import Params
from repblend.ufc import rehearsal as ufc_rehearsal
from repblend.ufc.params import UfcParams
from repro import rehearse
from repro.pipeline import KINDS
from repro.profiles import Profile, compose, profile_of
from tests.tiny import ROOT, tiny_content

COUNTS = Counts(12, 60, 6, 30, 8, 40)
CELLS = {"repblend-8": {}, "lors-8": {}, "mtt-vl-8": {}}
UFC = ("image of a teacher's step, convnet-small", "image of a compensator's step, convnet-small",
       "image of a student's step, convnet-small", "image scored, convnet-small", "image labelled")


def content(**changes: Any) -> dict[str, Any]:
    """Every kind of work, with few and small steps."""
    found = tiny_content()
    found["grid"] |= {"budgets": [8], "encoder_distilled": ["lors", "mtt-vl"], "distilled": ["repblend"]}
    found["experts"] |= {"batch_size": 4, "text_mode": "train", "views": "fresh"}
    found["encoder_experts"] |= {"batch_size": 4, "views": "fresh"}
    found["distill"]["common"] |= {"segments": 1, "inner_steps": 2, "batch_size": 4, "max_start": 1}
    found["distill"]["methods"] = {"repblend": {}, "lors": {"loss": "wbce"}, "mtt-vl": {"loss": "infonce"}}
    found["distill"]["cells"] = CELLS
    return found | changes


def taken(kind: str, params: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch) -> Rehearsed:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(rehearsal, "stop_with_the_runner", lambda: None)
    request = {"kind": kind, "params": params, "counts": asdict(COUNTS), "steps": 2, "seconds": 60.0,
               "result": str(folder / "found.json")}
    arguments = (ufc_rehearsal.rehearse, UfcParams) if kind in UFC else ()
    assert rehearsal.main(json.dumps(request), *arguments) == 0
    return Rehearsed.read(folder / "found.json")


def stages(params: Any, kind: str = "multimodal") -> list[str]:
    return [f"{stage}@{cell}" if cell else stage for stage, cell in KINDS[kind].pipeline.cells(params)]


PARAMS = Params.model_validate(content())


@pytest.mark.parametrize("kind", kinds_of(stages(PARAMS), PARAMS, COUNTS))
def test_every_kind_takes_its_steps(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = taken(kind, content(), tmp_path, monkeypatch)
    assert found.steps in (1, 2) and found.rows > 0 and found.seconds > 0 and found.memory_mib > 100
    assert found.kind == kind and found.weights == "real"
    assert (found.bytes_written > 0) == any(word in kind for word in ("encoded", "expert's", "inner step"))
    assert not list((tmp_path / "checkpoints").iterdir())


@pytest.mark.parametrize("kind", UFC)
def test_every_kind_of_the_unimodal_pipeline_does(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params = compose(ROOT, "ufc-digits")[1]
    assert kind in kinds_of(stages(UfcParams.model_validate(params), "ufc"), UfcParams.model_validate(params), None)
    found = taken(kind, params, tmp_path, monkeypatch)
    assert found.steps == 2 and found.rows > 1 and found.seconds > 0


def test_absent_weights_are_the_same_random_ones_of_the_exact_architecture(tmp_path: Path,
                                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="fetch the weights"):
        load_image_encoder("nf_regnet_b1", 64)
    with random_where_absent() as drawn:
        first, second = (load_image_encoder("nf_regnet_b1", 64).parameters() for _ in range(2))
        texts = load_text_encoder("distilbert-base-uncased")
    assert torch.equal(first, second) and len(first) == 9_262_984 and first.std() > 0
    assert drawn == {"nf_regnet_b1", "distilbert-base-uncased"}
    assert texts.encode(["two words", "three words here"]).shape == (2, 768)


# Findings and cures.


@pytest.fixture
def profile(tmp_path: Path) -> Profile:
    workspace = tmp_path / "profiles/flickr30k"
    workspace.mkdir(parents=True)
    (workspace / "params.yaml").write_text(json.dumps(compose(ROOT, "flickr30k", ["compute.device=cpu"])[1]))
    return Profile("flickr30k", KINDS["multimodal"], workspace)


def found(kind: str) -> Rehearsed:
    return Rehearsed(kind=kind, what="a step", rows=1, steps=1, seconds=1.0, memory_mib=1.0)


def test_what_does_not_fit_is_lowered_until_it_does_and_said(profile: Profile, monkeypatch: pytest.MonkeyPatch,
                                                             capsys: pytest.CaptureFixture) -> None:
    tried = []

    def process(_: Any, kind: str, params: dict, *__: Any) -> tuple[int, Rehearsed | None, int]:
        read = Params.model_validate(params)
        tried.append((read.distill.settings("repblend-100").encoder_graph, read.compute.encoder_chunk))
        return (0, found(kind), 1) if read.compute.encoder_chunk < 20 else (rehearse.KILLED, None, 3 * 2**30)

    monkeypatch.setattr(rehearse, "_in_a_process", process)
    result = rehearse.rehearse(profile, 1, 1.0, 1.0, ["heads"])
    assert tried == [("keep", 50), ("recompute", 50), ("recompute", 25), ("recompute", 12)]
    (heads,) = result.found
    assert heads.cure == {"distill.common.encoder_graph": "recompute", "compute.encoder_chunk": 12}
    assert heads.finding.count("out of memory at 3.0 GiB") == 3 and "cured by" in heads.finding
    assert "changes no result" in capsys.readouterr().out
    assert Rehearsal.read(profile.workspace / REHEARSAL) == result


def test_a_cells_own_batch_is_lowered_too(profile: Profile) -> None:
    key = "distill.common.batch_size"
    changed = Params.model_validate(rehearse._changed(profile.params().model_dump(), {key: 10}))
    assert {changed.distill.settings(cell).batch_size for cell in ("lors-100", "lors-500", "mtt-vl-100")} == {10}
    assert rehearse._lowered(DISTILL["constant-memory"], profile.params().model_dump(), {}) == {key: 10}


def test_a_process_that_takes_too_much_is_stopped_and_kinds_that_were_found_stay(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rehearse, "ATTEMPTS", 1)
    monkeypatch.setenv("PYTHONPATH", f"{ROOT / 'src'}:{ROOT}")
    quickstart = profile_of(ROOT, "quickstart")
    (tmp_path / "params.yaml").write_text(json.dumps(content()))
    here = Profile("tiny", quickstart.kind, tmp_path)
    rehearse.rehearse(here, 1, 30.0, 2**34, ["student scored"])
    result = rehearse.rehearse(here, 1, 30.0, 2**27, ["caption"])  # less than importing torch takes
    scored, captions = result.found
    assert scored.seconds > 0 and captions.seconds is None
    assert captions.finding.startswith("out of memory at 0.")
