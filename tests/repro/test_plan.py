"""`repro plan`: states against what DVC then does, times against runs, sizes against recorded outputs and models."""

import contextlib
import hashlib
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from dvc.cli import main as dvc_main
from torch.utils.flop_counter import FlopCounterMode

from repblend import costs
from repblend.costs import (
    DISTILL,
    PUBLISHED,
    SIZES,
    Counts,
    Rehearsal,
    Rehearsed,
    counts_of,
    estimated_seconds,
    kinds_of,
    setting_of,
)
from repblend.encoders.hub import CHECKPOINTS, snapshot
from repblend.encoders.registry import IMAGE_ENCODERS, TEXT_ENCODERS
from repblend.params import Params
from repblend.params.reading import read_yaml, validated
from repblend.records.base import Machine, Run
from repblend.store import write_json
from repblend.ufc.params import UfcParams
from repro.decision import OWN, VALIDATIONS, page, seconds_by_purpose, subsets_text
from repro.estimates import (
    Estimate,
    Known,
    PlannedStage,
    Ran,
    State,
    missing,
    output_bytes,
    parameters_sha256,
    planned_stages,
    runs_of,
)
from repro.pipeline import yaml_text
from repro.plan import Priced, disk_in_words, duration, main, seconds_of, stages_text, summary_text
from repro.profiles import compose
from tests.report.synthetic import provenance

ROOT = Path(__file__).parents[2]
TIMM = {"vit_tiny_patch16_224_pooled": "vit_tiny_patch16_224", "dino_vit_b16": "vit_base_patch16_224",
        "dinov2_vit_b14": "vit_base_patch14_dinov2",
        **{f"efficientnet_lite{size}": f"tf_efficientnet_lite{size}" for size in range(3)}}
FLICKR = Counts(29_000, 145_000, 1_014, 5_070, 1_000, 5_000)
COCO = Counts(113_287, 566_747, 5_000, 25_010, 5_000, 25_010)
EMOJI = Counts(1_145, 1_695, 200, 300, 300, 450)


def stage(run: str, state: State = State.RUNS) -> PlannedStage:
    return PlannedStage(run, run, state)


def run(name: str, seconds: float, mib: float = 2048.0) -> Run:
    machine = Machine(processor="a processor", cores=2, system="Linux")
    return Run(stage=name, commit=None, dirty=False, image_digest=None, started="2026-01-01", wall_seconds=seconds,
               peak_memory_mib=mib, machine=machine, python="3.11")


def composed(name: str, *changes: str) -> Params:
    return validated(Params, compose(ROOT, name, changes)[1], name)


@pytest.fixture(scope="module")
def openmoji() -> Params:
    return composed("openmoji")


@pytest.fixture(scope="module")
def flickr30k() -> Params:
    return composed("flickr30k")


def ran(params: Params, *runs: Run, counts: Counts | None = EMOJI) -> Ran:
    return Ran({each.stage: each for each in runs}, params, counts)


# What a run would do.


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace: stage `second` of cell a-1 needs `first`, both have run; `third` has not."""
    folder = tmp_path_factory.mktemp("toy")
    (folder / "source.txt").write_text("one")
    (folder / "toy.py").write_text("import pathlib, sys\npathlib.Path(sys.argv[1]).write_text('made')\n")
    (folder / "dvc.yaml").write_text("""
stages:
  settings: {cmd: mkdir -p settings && cp source.txt settings/first.json, deps: [source.txt], outs: [settings]}
  first: {cmd: python -m toy out1, deps: [settings/first.json], outs: [out1]}
  second: {cmd: python -m toy out2 a-1, deps: [out1], outs: [out2]}
  third: {cmd: python -m toy out3, deps: [out2], outs: [out3]}
""")
    with pytest.MonkeyPatch.context() as patch, contextlib.chdir(folder):
        patch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
        for arguments in (["init", "--no-scm", "--quiet"], ["repro", "--quiet", "second"]):
            assert dvc_main(arguments) == 0
    return folder


@pytest.fixture
def pipeline(toy: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(toy, tmp_path / "toy"))


def states(root: Path, *targets: str, settings: str = "one") -> dict[str, str]:
    files = {root / "settings/first.json": hashlib.md5(settings.encode()).hexdigest()}
    return {stage.name: str(stage.state) for stage in planned_stages(root, targets, files)}


def test_a_plan_tells_what_is_done_cached_and_to_run(pipeline: Path) -> None:
    assert states(pipeline) == {"first": "up to date", "second": "up to date", "third": "runs"}
    assert states(pipeline, "second") == {"first": "up to date", "second": "up to date"}
    (pipeline / "out2").unlink()
    assert states(pipeline, "second") == {"first": "up to date", "second": "in the cache"}


def test_what_decides_is_what_settings_will_say_and_not_that_they_are_written_again(pipeline: Path) -> None:
    (pipeline / "source.txt").write_text("two, and longer")
    assert states(pipeline, "second") == {"first": "up to date", "second": "up to date"}
    assert states(pipeline, "second", settings="two, and longer") == {"first": "runs", "second": "runs"}


def test_the_cell_and_the_module_of_a_stage_are_those_of_its_command(pipeline: Path) -> None:
    (first, second) = planned_stages(pipeline, ["second"], {})
    assert (second.module, second.run) == ("out2", "out2@a-1")
    assert (first.needs, second.needs) == ((), ("first",))


def test_planning_writes_nothing(pipeline: Path) -> None:
    def content() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in pipeline.rglob("*")
                if path.is_file() and "tmp" not in path.relative_to(pipeline).parts}

    (pipeline / "source.txt").write_text("two, and longer")
    before = content()
    states(pipeline, settings="two, and longer")
    assert content() == before


def test_a_stage_that_is_not_there_is_an_error_that_names_those_that_are(pipeline: Path) -> None:
    with pytest.raises(ValueError, match="no stage fourth; expected some of settings, first, second, third"):
        planned_stages(pipeline, ["fourth"], {})


def test_what_dvc_cannot_load_is_an_error_in_one_line_unless_it_is_another_workspaces(pipeline: Path) -> None:
    broken = "stages: {a: {matrix: {x: '${no.such}'}, cmd: x}}\n"
    (pipeline / "other").mkdir()
    (pipeline / "other/dvc.yaml").write_text(broken)
    assert "first" in states(pipeline)
    (pipeline / "dvc.yaml").write_text(broken)
    with pytest.raises(ValueError, match=r"DVC stopped \(.*dvc\.yaml.*no\.such"):
        planned_stages(pipeline, [], {})


# How long it takes.


def known(params: Params | UfcParams, counts: Counts | None, *of: Ran, rehearsals: Sequence[Rehearsal] = ()) -> Known:
    return Known(params, counts, of, rehearsals)


def found(kind: str, seconds: float | None, rows: int = 10, **more: float) -> Rehearsed:
    return Rehearsed(kind=kind, what="a step", rows=rows, steps=3, seconds=seconds, memory_mib=1024.0, **more)


def rehearsal(params: Params, *kinds: Rehearsed) -> Rehearsal:
    machine = Machine(processor="a processor", cores=2, system="Linux")
    return Rehearsal(setting=setting_of(params), device="a GPU", machine=machine, torch="2", found=[*kinds])


@pytest.mark.parametrize(("name", "change", "factor"), [
    ("distill@mtt-vl-100", "distill.methods.mtt-vl.iterations=48", 2), ("experts", "experts.num=5", 0.5),
    ("encoder-experts", "encoder_experts.num=1", 0.2), ("select@herding-100", "select.warm_up.epochs=10", 2),
    ("select@forgetting-100", "select.forgetting_epochs=20", 2), ("evaluate@repblend-100", "evaluate.num_seeds=10", 2),
    ("encode", "seed=1", 1)])
def test_times_are_scaled_by_rows(name: str, change: str, factor: float, openmoji: Params) -> None:
    estimate = known(composed("openmoji", change), EMOJI, ran(openmoji, run(name, 100.0))).estimate(stage(name))
    assert estimate.basis == "scaled" and estimate.seconds == pytest.approx(100.0 * factor, rel=0.15)


@pytest.mark.parametrize("change", ["distill.common.temperature=0.1", "seed=3"])
def test_a_run_with_other_parameters_is_no_measurement_though_the_counts_are_the_same(openmoji: Params, change: str
                                                                                      ) -> None:
    name = "distill@repblend-100"
    runs = ran(openmoji, run(name, 100.0), run("distill@repblend-200", 1.0))
    assert known(openmoji, EMOJI, runs).estimate(stage(name)) == Estimate(100.0, "measured", 2.0)
    found = known(composed("openmoji", change), EMOJI, runs).estimate(stage(name))
    assert found == Estimate(pytest.approx(100.0), "scaled")


def test_a_cell_that_never_ran_takes_what_the_likest_took(openmoji: Params) -> None:
    runs = known(openmoji, EMOJI, ran(
        openmoji, run("evaluate@repblend-50", 10.0), run("evaluate@repblend-100", 21.0),
        run("evaluate@lors-200", 500.0), run("evaluate@random-200", 900.0)))
    fewer_pairs = runs.estimate(stage("evaluate@repblend+rank-2-50")).seconds  # but scored as often
    assert fewer_pairs == pytest.approx(16.8, abs=0.1)
    assert runs.estimate(stage("evaluate@tesla-vl-200")).seconds == pytest.approx(500.0)
    assert runs.estimate(stage("transfer@repblend-200")).basis == "estimated"


def test_runs_of_another_setting_do_not_count(openmoji: Params) -> None:
    runs = ran(openmoji, run("distill@repblend-100", 30.0))
    assert known(composed("quickstart"), EMOJI, runs).estimate(stage("distill@repblend-100")).basis == "measured"
    other = composed("quickstart", "data.image_size=32")
    assert known(other, EMOJI, runs).estimate(stage("distill@repblend-100")).basis == "estimated"


def test_a_run_with_other_encoders_is_scaled_by_their_multiply_adds(openmoji: Params) -> None:
    runs = known(openmoji, EMOJI, ran(openmoji, run("encode", 30.0), run("encode@lite1", 36.0)))
    assert runs.estimate(stage("encode@lite1")) == Estimate(36.0, "measured", 2.0)
    own = replace(runs, params=openmoji.with_pair("lite2"))
    found = own.estimate(stage("encode@lite2"))
    assert found.basis == "scaled" and 30.0 * 1.2 < found.seconds < 30.0 * 1.6


def test_a_rehearsal_comes_before_what_is_published_and_only_one_of_this_setting(flickr30k: Params) -> None:
    pair = DISTILL["heads"]
    gpu = rehearsal(flickr30k, found(pair, 0.5, 160, gpu_memory_mib=8192.0))
    asked = stage("distill@repblend-100")
    told = known(flickr30k, FLICKR, rehearsals=[gpu]).estimate(asked)
    assert told.basis == "rehearsed" and told.seconds == pytest.approx(0.5 * 3000, rel=0.02)
    assert (told.memory_gib, told.gpu_gib) == (1.0, 8.0)
    on_cpu = rehearsal(composed("flickr30k", "compute.device=cpu"), found(pair, 60.0, 160))
    assert known(flickr30k, FLICKR, rehearsals=[on_cpu]).estimate(asked).basis == "published"
    failed = rehearsal(flickr30k, found(pair, None))
    assert known(flickr30k, FLICKR, rehearsals=[failed]).estimate(asked).basis == "published"


def test_the_other_pipeline_is_measured_and_scaled_too() -> None:
    params = validated(UfcParams, compose(ROOT, "ufc-digits")[1], "ufc-digits")
    runs = Ran({"label@ufc-3": run("label@ufc-3", 2.5, 512.0)}, params, None)
    assert known(params, None, runs).estimate(stage("label@ufc-3")) == Estimate(2.5, "measured", 0.5)
    twice = replace(runs, runs={name: run(name, 2.5, 512.0).model_copy(update={"beside": 2})
                                for name in ("label@ufc-3", "label@ufc-10")})  # at the same time
    assert known(params, None, twice).estimate(stage("label@ufc-3")) == Estimate(1.25, "measured", 0.5)
    other = validated(UfcParams, compose(ROOT, "ufc-digits", ["seed=7"])[1], "ufc-digits")
    assert known(other, None, runs).estimate(stage("label@ufc-3")) == Estimate(2.5, "scaled")


def test_published_times_are_scaled_by_captions_and_batches_and_never_a_processors(flickr30k: Params) -> None:
    def hours(name: str, params: Params = flickr30k, counts: Counts = FLICKR) -> float:
        return known(params, counts).estimate(stage(name)).seconds / 3600

    assert hours("experts") == pytest.approx(20 * 40 / 60, rel=0.01)
    assert hours("experts", composed("coco"), COCO) == pytest.approx(20 * 40 / 60 * 566_747 / 145_000, rel=0.01)
    assert hours("distill@repblend-100") == pytest.approx(1.71 * 3000 / 3600, rel=0.02)
    validations = composed("flickr30k", "distill.common.validate_every=3000",
                           *(f"distill.methods.{name}.validate_every=3000" for name in ("lors", "tesla-vl", "mtt-vl")))
    assert hours("distill@lors-100", validations) == pytest.approx(11.5 * 3000 / 3600, rel=0.05)
    assert hours("distill@lors-500") / hours("distill@tesla-vl-500") == 1
    told = known(flickr30k, FLICKR).estimate(stage("distill@lors-500"))
    assert told.seconds > 2 * 11.5 * 3000 and told.gpu_gib == 2 * 21.78  # batches of 40
    on_cpu = known(composed("flickr30k", "compute.device=cpu"), FLICKR).estimate(stage("experts"))
    assert on_cpu.basis == "estimated"


def test_whole_runs_come_to_what_an_audit_of_the_released_scripts_counted(flickr30k: Params) -> None:
    """About 310 GPU hours of Flickr30K, whose students and scores were counted as whole steps of experts and thirds of
    them; RepBlend alone 18, with imported experts 4.3.
    """
    from repblend.stages.pipeline import Context

    plans = known(flickr30k, FLICKR)
    rows = [Priced(stage(name), plans.estimate(stage(name)), None) for name in (
        f"{name}@{cell}" if cell else name for name, cell in Context.pipeline.cells(flickr30k)) if "+own" not in name]
    assert seconds_of(rows) / 3600 == pytest.approx(305, abs=6)
    assert "RepBlend 17.7 h (with imported experts 4.4 h)" in subsets_text(rows, duration)
    by_part = {part: seconds_of(row for row in rows if row.part == part) / 3600 for part in ("MTT-VL", "experts")}
    assert by_part["MTT-VL"] == pytest.approx(103, abs=3) and by_part["experts"] == pytest.approx(13.3, abs=0.1)
    purposes = seconds_by_purpose(rows)
    assert sum(purposes.values()) == pytest.approx(seconds_of(rows)) and OWN not in purposes
    assert purposes[VALIDATIONS] / 3600 == pytest.approx(45, abs=5)


def test_a_suite_is_one_page_whose_numbers_add_up(flickr30k: Params) -> None:
    names = ("encode", "experts", "encoder-experts", "distill@repblend-100", "distill@lors-500", "distill@lors+own-500")
    plans = {name: [Priced(stage(each), known(params, counts).estimate(stage(each)), 1e9) for each in names]
             for name, params, counts in (("flickr30k", flickr30k, FLICKR), ("coco", composed("coco"), COCO))}
    text = page(plans, lambda seconds: f"{seconds / 3600:.2f}h", lambda size: f"{size / 1e9:.0f}GB")
    cells: dict[str, list[str]] = {}
    for name, *line in (line.split("  ") for line in text.splitlines() if line):
        cells.setdefault(name, [cell.strip() for cell in line if cell.strip()])
    assert cells["GPU hours"][:3] == ["flickr30k", "coco", "all"]
    for name in ("experts", "RepBlend", "LoRS"):
        one, other, both = (float(cell.removesuffix("h")) for cell in cells[name][:3])
        assert one + other == pytest.approx(both, abs=0.02)
    assert cells["variants and +own settings"][2] != "-"
    assert cells["outputs"] == ["6GB", "6GB", "12GB"]
    assert cells["with DVC's cache, and experts being put together"] == ["13GB", "13GB", "25GB"]
    assert cells["GPU memory"] == ["44 GiB", "33 GiB", "44 GiB"]


def test_other_encoders_than_the_published_ones_are_bounded_by_their_multiply_adds() -> None:
    params = composed("cc3m")
    told = known(params, counts_of(Path("/nowhere"), params)).estimate(stage("distill@lors-100"))
    assert 3 < told.by_multiply_adds / told.seconds < 4.5  # 17.6 and 4.25 thousand million an image
    assert known(composed("flickr30k"), FLICKR).estimate(stage("distill@lors-100")).by_multiply_adds is None


@pytest.mark.parametrize("name", ["flickr30k", "coco", "cc3m", "ufc-cifar10", "ufc-cifar100", "ufc-tiny-imagenet",
                                  "ufc-imagenet", "openmoji", "ufc-digits", "ufc-glyphs"])
def test_no_profile_is_unknown(name: str, tmp_path: Path) -> None:
    """But for stages that take minutes whatever the scale."""
    kind, content = compose(ROOT, name)
    params: Any = validated(kind.params, content, name)
    plans = known(params, counts_of(tmp_path, params))
    estimates = {each: plans.estimate(stage(f"{each}@{cell}" if cell else each)).seconds
                 for each, cell in kind.pipeline.cells(params)}
    small = {"prepare", "settings", "report", "embed", "initial", "integrate", "regions", "select", "teacher"}
    assert {each for each, seconds in estimates.items() if not seconds} <= small
    if name != "ufc-imagenet":  # whose teachers come trained
        assert estimates.get("teacher", 1.0)


def test_every_row_has_a_time_and_no_published_time_is_without_rows(flickr30k: Params) -> None:
    from repblend.stages.pipeline import Context

    stages = [f"{name}@{cell}" if cell else name for name, cell in Context.pipeline.cells(flickr30k)]
    kinds = kinds_of(stages, flickr30k, FLICKR)
    assert set(PUBLISHED) <= set(kinds) and all(estimated_seconds(kind, flickr30k, FLICKR) > 0 for kind in kinds)


def test_what_ran_is_read_with_the_parameters_of_that_run(tmp_path: Path, openmoji: Params) -> None:
    assert runs_of(tmp_path) is None
    (tmp_path / "runs.jsonl").write_text(run("encode", 3.0).model_dump_json() + "\n")
    recorded: dict[str, Any] = compose(ROOT, "openmoji")[1]
    (tmp_path / "dvc.lock").write_text(yaml_text({"stages": {"settings": {"params": {"params.yaml": recorded}}}}))
    found = runs_of(tmp_path)
    assert (found.params, found.runs["encode"].wall_seconds, found.counts) == (openmoji, 3.0, SIZES["openmoji"])
    (tmp_path / "runs.jsonl").write_text(run("encode", 3.0).model_copy(update={"resumed": True}).model_dump_json())
    assert runs_of(tmp_path) is None
    partial = run("experts", 3.0).model_copy(update={"parameters_sha256": "0" * 64})
    (tmp_path / "runs.jsonl").write_text(partial.model_dump_json() + "\n" + run("encode", 3.0).model_copy(update={
        "parameters_sha256": parameters_sha256(openmoji, "encode")}).model_dump_json() + "\n")
    assert list(runs_of(tmp_path).runs) == ["encode"]
    (tmp_path / "dvc.lock").write_text("stages: {}\n")
    assert runs_of(tmp_path) is None


def test_a_data_set_that_is_not_prepared_has_the_size_that_it_has_to_have(flickr30k: Params, tmp_path: Path) -> None:
    assert counts_of(tmp_path, flickr30k) == FLICKR
    assert counts_of(tmp_path, composed("flickr30k", "~data.expected")) is None
    write_json(tmp_path / "records/prepare.json", {
        "name": "flickr30k", "packages": {}, "sha256": {}, "provenance": provenance("prepare", None),
        "counts": {split: {"images": 1, "captions": 2} for split in ("train", "val", "test")}})
    assert counts_of(tmp_path, flickr30k) == Counts(1, 2, 1, 2, 1, 2)


# What it writes and fetches.


@pytest.mark.parametrize("name", costs.IMAGE_ENCODERS)
def test_widths_parameters_and_multiply_adds_are_those_of_the_encoders(name: str) -> None:
    pooled = {} if name == "vit_tiny_patch16_224" else {"num_classes": 0}
    resized = {"img_size": 224} if name.startswith("dinov2") else {}
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        model = timm.create_model(TIMM.get(name, name), pretrained=False, **pooled, **resized).eval()
        model(torch.empty(1, 3, 224, 224))
    width, parameters, multiply_adds = costs.IMAGE_ENCODERS[name]
    assert (width, parameters) == (IMAGE_ENCODERS[name].feature_dim, sum(each.numel() for each in model.parameters()))
    assert counter.get_total_flops() / 2e9 == pytest.approx(multiply_adds, abs=0.001)


def test_all_text_encoders_are_known() -> None:
    assert costs.TEXT_ENCODERS.keys() == TEXT_ENCODERS.keys()


@pytest.mark.parametrize(("name", "output"), [
    ("encode", "features"), ("experts", "experts"), ("encoder-experts", "encoder-experts"),
    ("select@random-100", "sets/random-100.safetensors"), ("distill@repblend-200", "sets/repblend-200.safetensors")])
def test_counted_bytes_are_those_that_were_written(name: str, output: str, openmoji: Params) -> None:
    workspace = ROOT / "profiles/openmoji"
    if not (workspace / "dvc.lock").exists() or not (workspace / "records/prepare.json").exists():
        pytest.skip("openmoji's outputs are not here")
    counts = counts_of(workspace, openmoji)
    written = {out["path"]: out["size"] for entry in read_yaml(workspace / "dvc.lock")["stages"].values()
               for out in entry["outs"]}
    expected = output_bytes(stage(name), openmoji, counts)
    assert written[output] == pytest.approx(expected, rel=0.02)  # the rest: headers, indices, similarity


def test_expert_trajectories_of_the_paper_have_their_published_size() -> None:
    """0.726 GiB per trajectory of heads, 1.633 GiB per trajectory of the image encoder (the paper's Section 5.4)."""
    params = composed("flickr30k", "experts.num=1", "encoder_experts.num=1")
    heads, encoder = (output_bytes(stage(name), params, FLICKR) for name in ("experts", "encoder-experts"))
    assert heads / 2**30 == pytest.approx(0.726, abs=0.001)
    assert encoder / 2**30 == pytest.approx(1.633, abs=0.002)


def test_sizes_that_follow_from_nothing_known_are_left_out(openmoji: Params) -> None:
    strange = composed("openmoji", "encode.image_encoder=timm:resnet18")
    assert output_bytes(stage("encode"), strange, EMOJI) is output_bytes(stage("encode"), openmoji, None) is None
    assert output_bytes(stage("evaluate@lors-100"), openmoji, EMOJI) is None


def test_a_plan_says_what_has_to_be_fetched_until_it_is_here(flickr30k: Params, tmp_path: Path) -> None:
    before = missing(flickr30k, tmp_path)
    assert [line.split(":")[0] for line in before] == [
        "checkpoint nfnet_l0", "checkpoint bert-base-uncased", "checkpoint nf_resnet50", "checkpoint nf_regnet_b1",
        "data set flickr30k"]
    assert before[1].endswith("441 MB, `repro checkpoints fetch bert-base-uncased`")
    bert = CHECKPOINTS["bert-base-uncased"]
    for file in bert.files:
        path = snapshot(bert, tmp_path) / file.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    write_json(tmp_path / "data/flickr30k/manifest.json", {})
    assert missing(flickr30k, tmp_path) == [before[0], before[2], before[3]]


def test_labelled_images_have_no_manifest(tmp_path: Path) -> None:
    params = validated(UfcParams, compose(ROOT, "ufc-cifar100")[1], "ufc-cifar100")
    (line,) = missing(params, tmp_path)
    assert line.startswith(f"data set cifar100: not in {tmp_path}/data/cifar100")
    (tmp_path / "data/cifar100").mkdir(parents=True)
    assert missing(params, tmp_path) == []


# The text.


def test_tables_sum_what_runs() -> None:
    rows = [Priced(stage("experts", State.DONE), Estimate(1e6, "measured", 2.0), 5e9),
            Priced(stage("distill@lors-100"), Estimate(7200.0, "scaled", None, 21.8), 2e9),
            Priced(stage("prepare"), Estimate(), 1e9)]
    lines = [line.split() for line in stages_text(rows).splitlines()]
    assert lines[1:] == [
        ["experts", "up", "to", "date", "-", "2.0", "GiB", "5.0", "GB"],
        ["distill@lors-100", "runs", "2.0", "h", "scaled", "21.8", "GiB", "2.0", "GB"],
        ["prepare", "runs", "-", "1.0", "GB"],
        ["3", "stages", "2", "run", "2.0", "h", "scaled", "2.0", "GiB", "21.8", "GiB", "3.0", "GB"]]
    assert [line.split()[0] for line in summary_text(rows).splitlines()] == ["part", "experts", "LoRS", "data", "all"]
    assert disk_in_words(rows).startswith("21.0 GB (8.0 GB of outputs")


@pytest.mark.parametrize(("seconds", "words"), [(None, "?"), (40, "40 s"), (500, "8 min"), (7200, "2.0 h"),
                                                (1e6, "278 h")])
def test_durations_in_words(seconds: float | None, words: str) -> None:
    assert duration(seconds) == words


def test_the_plan_of_the_quickstart_is_its_stages(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
                                                  ) -> None:
    monkeypatch.chdir(ROOT)
    assert main(["evaluate-distilled@repblend-50"], "quickstart") == 0
    told = capsys.readouterr().out
    assert told.startswith(f"Profile quickstart, in {ROOT}, on device cpu\n")
    assert [line.split()[0] for line in told.splitlines()[3:8]] == [
        "prepare", "encode", "experts", "distill@repblend-50", "evaluate-distilled@repblend-50"]
    assert main([], "ufc-glyphs") == 0 and "\nstudents " in capsys.readouterr().out
    assert main(["no-such-stage"], "quickstart") == 1
    assert "it has no stage no-such-stage; expected some of settings, prepare" in capsys.readouterr().err
