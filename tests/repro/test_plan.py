"""`repro plan`: costs against counted models, sizes against recorded outputs, times against measured ones."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig, BertModel, DistilBertConfig, DistilBertModel

from repblend.encoders.hub import snapshot
from repblend.encoders.pins import CHECKPOINTS
from repblend.params import Params, read_params, read_yaml, validated
from repblend.stages.context import Cell
from repblend.store import read_json, write_json
from repblend.ufc.params import UfcParams
from repro.compose import compose
from repro.plan import grid_of, main
from repro.plan_downloads import missing
from repro.plan_encoders import IMAGE_COSTS, TEXT_COSTS
from repro.plan_state import PlannedStage, State, planned_stages
from repro.plan_table import Row, duration, plan_text, size
from repro.plan_times import Estimate, Grid, estimate
from repro.plan_work import Counts, Workload, output_bytes

ROOT = Path(__file__).parents[2]
TIMM = {**{f"efficientnet_lite{number}": f"tf_efficientnet_lite{number}" for number in range(3)},
        "vit_tiny_patch16_224_pooled": "vit_tiny_patch16_224",
        "dino_vit_b16": "vit_base_patch16_224", "dinov2_vit_b14": "vit_base_patch14_dinov2"}
TEXT_MODELS = {
    "all-MiniLM-L6-v2": (BertModel, BertConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=12,
                                               intermediate_size=1536)),
    "bert-base-uncased": (BertModel, BertConfig()), "bge-base-en-v1.5": (BertModel, BertConfig()),
    "distilbert-base-uncased": (DistilBertModel, DistilBertConfig()),
}
COUNTS = Counts(29_000, 145_000, 1_014, 5_070, 1_000, 5_000)


@pytest.fixture(scope="module")
def grid() -> Grid:
    return Grid.of(ROOT, read_params(ROOT / "params.yaml"),
                   Counts.of(read_json(ROOT / "metrics/prepare.json")["counts"]))


def counted(model: torch.nn.Module, inputs: torch.Tensor) -> tuple[float, torch.Size]:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        outputs = model.eval()(inputs)
    return counter.get_total_flops() / 2, getattr(outputs, "last_hidden_state", outputs).shape


@pytest.mark.parametrize("name", IMAGE_COSTS)
def test_the_cost_of_an_image_encoder_is_what_its_model_computes(name: str) -> None:
    cost = IMAGE_COSTS[name]
    pooled = {} if name == "vit_tiny_patch16_224" else {"num_classes": 0}
    resized = {"img_size": cost.size} if name.startswith("dinov2") else {}
    with torch.device("meta"):
        model = timm.create_model(TIMM.get(name, name), pretrained=False, **pooled, **resized)
        macs, shape = counted(model, torch.zeros(1, 3, cost.size, cost.size))
    assert macs == pytest.approx(cost.macs, rel=1e-3)
    assert (shape[-1], sum(weight.numel() for weight in model.parameters())) == (cost.feature_dim, cost.num_parameters)


@pytest.mark.parametrize("name", TEXT_COSTS)
def test_the_cost_of_a_text_encoder_is_what_its_model_computes(name: str) -> None:
    architecture, config = TEXT_MODELS[name]
    with torch.device("meta"):
        macs, shape = counted(architecture(config), torch.zeros(1, 16, dtype=torch.long))
    assert (macs / 16, shape[-1]) == (pytest.approx(TEXT_COSTS[name].macs_per_token, rel=1e-3),
                                      TEXT_COSTS[name].feature_dim)


@pytest.fixture(scope="module")
def recorded_bytes() -> dict[str, int]:
    return {out["path"]: out["size"] for entry in read_yaml(ROOT / "dvc.lock")["stages"].values()
            for out in entry["outs"]}


@pytest.mark.parametrize(("stage", "cell", "output"), [
    ("encode", None, "features"), ("experts", None, "experts"), ("encoder-experts", None, "encoder-experts"),
    ("select", "random-100", "sets/random-100.safetensors"),
    ("distill", "repblend-200", "sets/repblend-200.safetensors")])
def test_counted_bytes_are_those_that_were_written(stage: str, cell: str | None, output: str, grid: Grid,
                                                     recorded_bytes: dict[str, int]) -> None:
    expected = output_bytes(stage, Cell.parse(cell) if cell else None, grid.load)
    assert recorded_bytes[output] == pytest.approx(expected, rel=0.02)  # the rest: headers, indices, similarity


def test_expert_trajectories_of_the_paper_have_their_published_size() -> None:
    """0.726 GiB per trajectory of heads, 1.633 GiB per trajectory of the image encoder (PAPER.md section 5.4)."""
    params = read_params(ROOT / "params.yaml")
    published = {"num": 1, "epochs": 10, "batch_size": 128, "snapshots_every": "epoch"}
    params = params.model_copy(update={
        "encode": params.encode.model_copy(update={"image_encoder": "nfnet_l0", "text_encoder": "bert-base-uncased"}),
        "heads": params.heads.model_copy(update={"width": 2304}),
        "experts": params.experts.model_copy(update=published),
        "encoder_experts": params.encoder_experts.model_copy(update=published)})
    load = Workload(params, COUNTS)
    assert output_bytes("experts", None, load) / 2**30 == pytest.approx(0.726, abs=0.001)
    assert output_bytes("encoder-experts", None, load) / 2**30 == pytest.approx(1.633, abs=0.002)


def test_extrapolated_times_are_as_right_as_the_plan_says(grid: Grid) -> None:
    """Every stage of the grid from the others: eight in ten within a factor of three, all within eight."""
    ratios = []
    for name, record in grid.records.items():
        module, _, cell = name.partition("@")
        stage = PlannedStage(name, module, cell or None, State.RUNS)
        others = replace(grid, records={other: entry for other, entry in grid.records.items() if other != name})
        found = estimate(stage, replace(grid, records={}), others)
        if found.seconds is not None:
            ratios.append(max(found.seconds / record["wall_seconds"], record["wall_seconds"] / found.seconds))
    assert len(ratios) > 80 and max(ratios) < 8
    assert sorted(ratios)[int(0.8 * len(ratios))] < 3


def test_a_stage_that_has_run_is_measured_and_not_extrapolated(grid: Grid) -> None:
    record = grid.records["distill@lors-100"]
    found = estimate(PlannedStage("distill-encoder@lors-100", "distill", "lors-100", State.RUNS), grid, grid)
    assert (found.seconds, found.basis, found.peak_mib) == (record["wall_seconds"], "measured",
                                                            record["peak_memory_mib"])


def test_what_cannot_be_known_is_said_to_be_unknown(grid: Grid) -> None:
    stage = PlannedStage("encode", "encode", None, State.RUNS)
    other = grid.params.model_copy(update={"encode": grid.params.encode.model_copy(
        update={"image_encoder": "timm:resnet18"})})
    strange = Grid(Workload(other, COUNTS), other, {})
    assert "timm:resnet18" in estimate(stage, strange, grid).basis
    assert estimate(stage, replace(strange, load=None), grid).basis == "the dataset's size is not known"
    assert estimate(stage, Grid(Workload(grid.params, COUNTS), grid.params, {}),
                    replace(grid, records={})).basis == "nothing like it has run"


def test_the_table_sums_what_runs_and_names_what_is_not_known() -> None:
    def row(name: str, state: State, seconds: float | None, written: float | None) -> Row:
        return Row(PlannedStage(name, name, None, state), Estimate(seconds, "basis", 2048.0, 7200.0, 10.17), written)

    rows = [row("a", State.DONE, 1e6, 5e9), row("b", State.RUNS, 200.0, 2e9), row("c", State.RUNS, None, 1e9)]
    lines = plan_text(rows).splitlines()
    assert [lines[1].split(), lines[3].split()] == [
        ["a", "up", "to", "date", "-", "2.0", "GiB", "5.0", "GB", "2.0", "h", "10.2", "GiB"],
        ["c", "runs", "?", "basis", "2.0", "GiB", "1.0", "GB", "2.0", "h", "10.2", "GiB"]]
    assert lines[4].split() == ["3", "stages", "2", "run", "3", "min", "and", "1", "not", "known", "2.0", "GiB", "3.0",
                                "GB"]


@pytest.mark.parametrize(("seconds", "words"), [(None, "?"), (40, "40 s"), (500, "8 min"), (7200, "2.0 h"),
                                                (1e6, "11.6 days")])
def test_durations_in_words(seconds: float | None, words: str) -> None:
    assert duration(seconds) == words


def test_sizes_in_words() -> None:
    assert (size(53.5e6), size(15.6e9)) == ("54 MB", "15.6 GB")


@pytest.fixture
def pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace: stage `second` of cell a-1 needs `first`, both have run; `third` has not."""
    (tmp_path / "source.txt").write_text("one")
    command = "python -m toy"
    (tmp_path / "toy.py").write_text("import pathlib, sys\npathlib.Path(sys.argv[1]).write_text('made')\n")
    (tmp_path / "dvc.yaml").write_text(f"""
stages:
  first: {{cmd: {command} out1, deps: [source.txt], outs: [out1]}}
  second: {{cmd: {command} out2 a-1, deps: [out1], outs: [out2]}}
  third: {{cmd: {command} out3, deps: [out2], outs: [out3]}}
""")
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    for arguments in (["init", "--no-scm", "--quiet"], ["repro", "--quiet", "second"]):
        subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=tmp_path, check=True)
    return tmp_path


def states(root: Path, *targets: str) -> dict[str, str]:
    return {stage.name: str(stage.state) for stage in planned_stages(root, targets)}


def test_a_plan_tells_what_is_done_cached_and_to_run(pipeline: Path) -> None:
    assert states(pipeline) == {"first": "up to date", "second": "up to date", "third": "runs"}
    assert states(pipeline, "second") == {"first": "up to date", "second": "up to date"}
    (pipeline / "out2").unlink()
    assert states(pipeline, "second") == {"first": "up to date", "second": "in the cache"}
    (pipeline / "source.txt").write_text("two, and longer")
    assert states(pipeline, "second") == {"first": "runs", "second": "runs"}


def test_the_cell_and_the_module_of_a_stage_are_those_of_its_command(pipeline: Path) -> None:
    (_, second) = planned_stages(pipeline, ["second"])
    assert (second.module, second.cell, second.record) == ("out2", Cell("a", 1), "out2@a-1")


def test_planning_writes_nothing(pipeline: Path) -> None:
    def content() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in pipeline.rglob("*")
                if path.is_file() and "tmp" not in path.relative_to(pipeline).parts}

    (pipeline / "source.txt").write_text("two, and longer")
    before = content()
    states(pipeline)
    assert content() == before


def test_a_stage_that_is_not_there_is_an_error_that_names_those_that_are(pipeline: Path) -> None:
    with pytest.raises(ValueError, match="no stage fourth; expected some of first, second, third"):
        planned_stages(pipeline, ["fourth"])


@pytest.fixture(scope="module")
def flickr30k() -> Params:
    return validated(Params, compose(ROOT, "flickr30k")[1], "flickr30k")


def test_a_dataset_that_is_not_prepared_has_the_size_that_it_has_to_have(flickr30k: Params, tmp_path: Path) -> None:
    assert grid_of(tmp_path, flickr30k).load.counts == COUNTS
    unstated = flickr30k.model_copy(update={"data": flickr30k.data.model_copy(update={"expected": {}})})
    assert grid_of(tmp_path, unstated).load is None


def test_a_plan_says_what_has_to_be_fetched_until_it_is_here(flickr30k: Params, tmp_path: Path) -> None:
    before = missing(flickr30k, tmp_path)
    assert [line.split(":")[0] for line in before] == [
        "checkpoint nfnet_l0", "checkpoint bert-base-uncased", "checkpoint nf_resnet50", "checkpoint nf_regnet_b1",
        "dataset flickr30k"]
    assert before[1].endswith("441 MB, `repro checkpoints fetch bert-base-uncased`")
    bert = CHECKPOINTS["bert-base-uncased"]
    for file in bert.files:
        path = snapshot(bert, tmp_path) / file.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    write_json(tmp_path / "data/flickr30k/manifest.json", {})
    assert missing(flickr30k, tmp_path) == [before[0], before[2], before[3]]


def test_published_times_are_for_the_papers_own_encoders_only(flickr30k: Params, grid: Grid) -> None:
    stage = PlannedStage("distill-encoder@lors-100", "distill", "lors-100", State.RUNS)
    found = estimate(stage, Grid(None, flickr30k, {}), grid)
    assert (found.published_gpu_seconds, found.published_gpu_gib) == (pytest.approx(11.5 * 3000), 21.78)
    assert estimate(stage, grid, grid).published_gpu_seconds is None
    experts = estimate(PlannedStage("experts", "experts", None, State.RUNS), Grid(None, flickr30k, {}), grid)
    assert experts.published_gpu_seconds == pytest.approx(20 * 40 * 60)


def test_times_of_a_processor_are_marked_in_the_plan_of_a_gpu(flickr30k: Params, grid: Grid) -> None:
    stage = PlannedStage("encode", "encode", None, State.RUNS)
    on_gpu = estimate(stage, Grid(Workload(flickr30k, COUNTS), flickr30k, {}), grid)
    here = flickr30k.model_copy(update={"compute": flickr30k.compute.model_copy(update={"device": "cpu"})})
    on_cpu = estimate(stage, Grid(Workload(here, COUNTS), here, {}), grid)
    assert (on_gpu.seconds, on_gpu.basis, on_cpu.basis) == (on_cpu.seconds, "extrapolated, CPU", "extrapolated")
    marked, plain = (plan_text([Row(stage, found, None)]) for found in (on_gpu, on_cpu))
    assert "in all, CPU" in marked.splitlines()[2] and "do not say how long a run takes" in marked
    assert "CPU" not in plain


def test_the_plan_of_a_pipeline_of_classes_names_its_data_and_sums_nothing_unknown(
        tmp_path: Path, grid: Grid) -> None:
    params = validated(UfcParams, compose(ROOT, "ufc-cifar100")[1], "ufc-cifar100")
    (line,) = missing(params, tmp_path)
    assert line.startswith(f"dataset cifar100: no folder {tmp_path}/data/cifar100. `python -m repblend.ufc fetch")
    (tmp_path / "data/cifar100").mkdir(parents=True)
    assert missing(params, tmp_path) == []
    stage = PlannedStage("initial", "initial", None, State.RUNS)
    sums = plan_text([Row(stage, estimate(stage, grid_of(tmp_path, params), grid), None)]).splitlines()[2]
    assert sums.split()[:8] == ["1", "stages", "1", "run", "?", "and", "1", "not"]


def test_what_dvc_cannot_load_is_an_error_in_one_line(pipeline: Path) -> None:
    (pipeline / "other").mkdir()
    (pipeline / "other/dvc.yaml").write_text("stages: {a: {matrix: {x: '${no.such}'}, cmd: x}}\n")
    with pytest.raises(ValueError, match=r"DVC stopped \(.*other/dvc\.yaml.*no\.such"):
        planned_stages(pipeline, [])


def test_a_pipeline_of_another_kind_has_only_what_was_measured(tmp_path: Path, grid: Grid) -> None:
    write_json(tmp_path / "metrics/runs/label@static-3.json",
               {"stage": "label@static-3", "wall_seconds": 2.5, "peak_memory_mib": 512.0})
    other = grid_of(tmp_path, object())
    ran, never = (estimate(PlannedStage(name, *name.split("@"), State.RUNS), other, grid)
                  for name in ("label@static-3", "label@static-7"))
    assert (ran.seconds, ran.basis, ran.peak_mib) == (2.5, "measured", 512.0)
    assert (never.seconds, never.basis) == (None, "nothing like it has run")


def test_the_plan_of_the_quickstart_is_its_stages(capsys: pytest.CaptureFixture,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert main(["evaluate-distilled@repblend-50"], "quickstart") == 0
    printed = capsys.readouterr().out
    names = [line.split()[0] for line in printed.splitlines()[3:9]]
    assert names == ["prepare", "encode", "experts", "distill@repblend-50", "evaluate-distilled@repblend-50", "5"]


def test_an_unknown_stage_is_an_error_in_one_line(capsys: pytest.CaptureFixture,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert main(["no-such-stage"], "quickstart") == 1
    assert "it has no stage no-such-stage" in capsys.readouterr().err
