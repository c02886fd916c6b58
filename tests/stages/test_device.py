"""`compute.device`: every stage moves what it computes with, checked with a pretended GPU; no GPU is an error."""

import contextlib
import os
from pathlib import Path

import pytest
import torch

from repblend.evaluation.recall import MEAN_RECALL
from repblend.experts.trajectories import TrajectoryStore
from repblend.grid import Cell
from repblend.matching.blending import draw_noise
from repblend.matching.gradient import GRADIENTS, NORMALISERS
from repblend.matching.heads import heads_gradient
from repblend.matching.similarity import FullSimilarity, IdentitySimilarity, Similarity
from repblend.matching.student import SyntheticData, on
from repblend.matching.synthetic_set import SyntheticSet
from repblend.params import Params
from repblend.runtime.context import Paths
from repblend.runtime.harness import prepare_gpu, running
from repblend.runtime.provenance import read_runs
from repblend.stages import bounds, distill, encode, encoder_experts, evaluate, experts, prepare
from repblend.stages.pipeline import Context
from repblend.store import read_json
from repblend.tensors import read_tensors
from tests.matching.test_gradient import HEADS, RATES, Case
from tests.matching.test_heads import PERTURBATIONS, two_segments
from tests.pretend_gpu import pretend_gpu
from tests.stages.test_switches import SETTINGS
from tests.tiny import tiny_content

CELLS = (Cell("repblend", 50), Cell("lors", 50))
"""Heads, and a whole encoder."""


def context(stage: str, folder: Path, device: str, cell: Cell | None = None) -> Context:
    """Tiny, with dropout everywhere and text features drawn anew."""
    content = tiny_content()
    content["compute"]["device"] = device
    content["data"] |= {"num_val": 8, "num_test": 16, "max_train": 8}
    content["evaluate"] |= {"num_seeds": 2, "protocol": "last"}
    for name in ("full_data", "encoder_students", "distilled"):
        content["evaluate"][name] = {"epochs": 1, "scored_intervals": 1}
    content["heads"]["dropout"] = content["encoder_experts"]["head_dropout"] = 0.1
    content["experts"] |= {"num": 1, "min_steps": 0,
                           "epochs": 1, "batch_size": 4, "snapshots_every": 1, "text_mode": "train"}
    content["encoder_experts"] |= {"num": 2, "min_steps": 0, "epochs": 1, "batch_size": 6, "snapshots_every": 1}
    content["distill"]["common"] |= SETTINGS | {
        "iterations": 1, "choose": "last", "dropout_masks": "different", "checkpoint_every": 1}
    content["distill"]["cells"] = {str(cell): {} for cell in CELLS}
    content["distill"]["methods"] = {name: {"loss": "wbce"} for name in content["distill"]["methods"]}
    return Context(stage, cell, Params.model_validate(content), Paths(folder))


def run_all(folder: Path, device: str) -> Path:
    encode.run(context("encode", folder, device))
    experts.run(context("experts", folder, device))
    encoder_experts.run(context("encoder-experts", folder, device))
    for cell in CELLS:
        distill.run(context("distill", folder, device, cell))
    for cell in CELLS:
        evaluate.run(context("evaluate", folder, device, cell))
    bounds.run(context("bounds", folder, device))
    return folder


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Everything on the CPU, and everything on a pretended GPU."""
    cpu, gpu = (tmp_path_factory.mktemp(name) for name in ("cpu", "gpu"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("repblend.methods.Method.num_pairs", lambda method, budget: 6)
        patch.setattr(torch.cuda, "get_device_name", lambda: "Pretended")
        for folder in (cpu, gpu):
            prepare.run(context("prepare", folder, "cpu"))
        run_all(cpu, "cpu")
        with pretend_gpu():
            run_all(gpu, "cuda")
    return cpu, gpu


def test_what_is_trained_on_a_gpu_is_what_the_cpu_trains(both: tuple[Path, Path]) -> None:
    for name in ("experts", "encoder-experts"):
        cpu, gpu = (TrajectoryStore(folder / name).last(0) for folder in both)
        torch.testing.assert_close(gpu, cpu, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_what_is_distilled_on_a_gpu_is_what_the_cpu_distils(both: tuple[Path, Path], cell: Cell) -> None:
    cpu, gpu = (SyntheticSet.read(Paths(folder).set(cell)) for folder in both)
    for found, expected in ((gpu.images, cpu.images), (gpu.texts, cpu.texts)):
        # A gradient near zero may have the other sign, and Adam's first step is as long all the same.
        assert (found - expected).norm() < 1e-3 * expected.norm()
    losses = [read_json(Paths(folder).record("distill", cell))["course"]["curves"]["matching_loss"] for folder in both]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


@pytest.mark.parametrize("perturb", ["blending", "noise"])
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("name", sorted(GRADIENTS))
def test_every_gradient_is_taken_where_the_set_is(name: str, full: bool, perturb: str) -> None:
    case = Case("wbce", full, dropout="different")
    if perturb == "noise":
        draws = torch.Generator().manual_seed(0)
        case.steps = [step._replace(perturbation=draw_noise(4, draws, 0.5, 5, 3)) for step in case.steps]
    expected = case.gradient(name)
    with pretend_gpu() as marks:
        data = SyntheticData(case.data.images.to("cuda"), case.data.texts.to("cuda"), case.data.similarity.to("cuda"))
        found = GRADIENTS[name](data, on("cuda", RATES), case.segment.to("cuda"),
                                [step.to("cuda") for step in case.steps], HEADS.student, case.objective,
                                NORMALISERS["separate"])
        assert all(value in marks for value in [*found.data.values(), *found.rates, *found.losses])
    for value, truth in zip(found.data.values(), expected.data.values(), strict=True):
        torch.testing.assert_close(value, truth)


@pytest.mark.parametrize("perturb", PERTURBATIONS)
def test_the_gradient_of_heads_is_taken_where_the_set_is(perturb: str) -> None:
    case = Case("wbce", dropout="different")
    segments, students = two_segments(case, perturb)
    settings = ((HEADS.img, HEADS.txt), case.objective, NORMALISERS["separate"])
    expected = heads_gradient(case.data, RATES, segments, students, *settings)
    with pretend_gpu() as marks:
        data = SyntheticData(case.data.images.to("cuda"), case.data.texts.to("cuda"), case.data.similarity.to("cuda"))
        found = heads_gradient(data, on("cuda", RATES), [segment.to("cuda") for segment in segments],
                               [[step.to("cuda") for step in steps] for steps in students], *settings)
        assert all(value in marks for value in [*found.data.values(), *found.rates, *found.losses])
    for value, truth in zip(found.data.values(), expected.data.values(), strict=True):
        torch.testing.assert_close(value, truth)


@pytest.mark.parametrize("similarity", [IdentitySimilarity(6), FullSimilarity(torch.eye(6))])
def test_a_similarity_goes_where_it_is_sent(similarity: Similarity) -> None:
    with pretend_gpu() as marks:
        moved, rows = similarity.to("cuda"), torch.tensor([0, 2]).to("cuda")
        for found in (moved.matrix(), moved.batch(rows), moved.rows(rows).matrix()):
            assert found in marks
        assert similarity.matrix() not in marks


def test_metrics_say_where_and_features_are_the_same(both: tuple[Path, Path]) -> None:
    cpu, gpu = (read_json(Paths(folder).record("evaluate", "repblend-50")) for folder in both)
    assert (cpu["provenance"]["device"], gpu["provenance"]["device"]) == ("cpu", "cuda (Pretended)")
    assert gpu["provenance"]["parameters"]["compute"]["device"] == "cuda"
    for protocol in ("held-out", "faithful", "last"):
        found, expected = (each["protocols"][protocol]["mean"][MEAN_RECALL] for each in (gpu, cpu))
        assert found == pytest.approx(expected, abs=3)
    features = [read_tensors(folder / "features/val.safetensors")[0]["images"] for folder in both]
    torch.testing.assert_close(*features)


@pytest.mark.parametrize("name", ["repblend-50", "lors-50", "full-data", "full-data+encoder-students"])
def test_whatever_is_scored_has_the_protocol_that_counts(both: tuple[Path, Path], name: str) -> None:
    found = read_json(Paths(both[0]).record("evaluate", name))
    assert found["protocol"] == "last" and found["protocols"]["last"]["seeds"][0]["epoch"] == found["scored_epochs"][-1]


def test_the_pretended_gpu_refuses_what_a_gpu_refuses() -> None:
    with pretend_gpu() as marks:
        here, there = torch.ones(3), torch.ones(3).to("cuda")
        assert there in marks and there[1:] in marks and here not in marks and there.cpu() not in marks
        assert there.device.type == "cuda" and torch.eye(2, device=there.device) in marks
        for mix in (lambda: here + there, lambda: here @ there, lambda: torch.stack([here, there]),
                    lambda: here[there.long()], lambda: torch.func.vmap(torch.dot)(here[:, None], there[:, None])):
            with pytest.raises(RuntimeError, match="same device"):
                mix()
        with pytest.raises(TypeError, match="numpy"):
            there.numpy()
        assert there[torch.tensor([0, 2])] in marks and there * torch.tensor(2.0) in marks
        leaf = there.clone().requires_grad_()
        (slope,) = torch.autograd.grad((leaf * leaf).sum(), leaf)
        assert slope in marks


def test_a_stage_that_was_stopped_before_is_noted_as_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("repblend.runtime.harness.stop_with_the_runner", lambda: None)
    monkeypatch.setattr("repblend.runtime.harness.compute_deterministically", lambda threads: None)
    seen = []
    for fails in (False, True, True, False, False):
        with contextlib.suppress(ValueError), running(context("encode", tmp_path, "cpu")):
            if fails:
                raise ValueError("stopped")
        seen.append(read_runs(tmp_path / "runs.jsonl")[0].resumed)
    assert seen == [False, False, False, True, False]


def test_no_gpu_where_one_is_asked_for_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("repblend.runtime.harness.stop_with_the_runner", lambda: None)
    with pytest.raises(ValueError, match=r"compute\.device is 'cuda', but PyTorch finds no GPU"), \
            running(context("encode", tmp_path, "cuda")):
        pass


def test_a_gpu_is_deterministic_and_precise_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark
    try:
        for arithmetic, products, convolutions in (("tf32", True, True), ("tf32-convolutions", False, True),
                                                   ("float32", False, False), ("bf16", False, False)):
            prepare_gpu(arithmetic)
            assert torch.backends.cuda.matmul.allow_tf32 is products, arithmetic
            assert torch.backends.cudnn.allow_tf32 is convolutions, arithmetic
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8" and not torch.backends.cudnn.benchmark
    finally:
        (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32,
         torch.backends.cudnn.benchmark) = before
