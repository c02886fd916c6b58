"""On a GPU, and with a pretended one in its place: every stage of both pipelines gives the same bytes twice, after a
`kill -9` too, and agrees with the processor. `make test-gpu`; without a GPU the tests of the real one are skipped.

Tolerances, on a GPU and in float32: features to 1e-4 of their largest value; what was trained or distilled on them to
1e-3 of its norm: a gradient near zero may have the other sign, and Adam's first step is as long all the same. The
pretended GPU computes on the processor and has to agree exactly.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from repblend.store import sha256
from repblend.tensors import read_tensors
from tests.gpu import work

ROOT = Path(__file__).parents[2]
HAS_GPU = torch.cuda.is_available()
pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module", params=[
    pytest.param("real", marks=pytest.mark.skipif(not HAS_GPU, reason="PyTorch finds no GPU here")),
    pytest.param("pretended", marks=pytest.mark.skipif(HAS_GPU, reason="there is a real GPU"))])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module", autouse=True)
def _few_pairs() -> Iterator[None]:
    """A set of six pairs under the name of a budget of 8: there are only 12 images."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("repblend.methods.Method.num_pairs", lambda method, budget: work.PAIRS)
        if not HAS_GPU:
            patch.setattr(torch.cuda, "get_device_name", lambda: "Pretended")
        yield


def made(folder: Path, device: str, first: int = 0, last: int | None = None) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        work.run(folder, device, first, last)
    return folder


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        work.prepare(folder)
    return folder


def copy_of(folder: Path, to: Path) -> Path:
    return Path(shutil.copytree(folder, to, dirs_exist_ok=True))


@pytest.fixture(scope="module")
def on_cpu(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(copy_of(prepared, tmp_path_factory.mktemp("cpu")), "cpu")


@pytest.fixture(scope="module")
def on_gpu(kind: str, prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(copy_of(prepared, tmp_path_factory.mktemp("gpu")), "cuda")


def hashes(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): sha256(path) for name in work.OUTPUTS
            for path in sorted((folder / name).rglob("*")) if path.is_file()}


def test_every_stage_gives_the_same_bytes_twice(on_gpu: Path, prepared: Path, tmp_path: Path) -> None:
    found, again = hashes(on_gpu), hashes(made(copy_of(prepared, tmp_path), "cuda"))
    assert {name for name in found if found[name] != again[name]} == set() and found.keys() == again.keys()
    stages = {f"records/{module.__name__.rpartition('.')[2].replace('_', '-')}" for module, _ in work.STAGES}
    assert all(any(name.startswith(stage) for name in found) for stage in stages - {"records/bounds"})


def test_the_processor_agrees(kind: str, on_cpu: Path, on_gpu: Path) -> None:
    compared = 0
    for path in sorted(on_cpu.rglob("*.safetensors")):
        name = path.relative_to(on_cpu)
        if name.parts[0] not in work.OUTPUTS or "aside" in name.name:
            continue
        found, expected = (read_tensors(folder / name)[0] for folder in (on_gpu, on_cpu))
        for key, values in expected.items():
            if values.is_floating_point() and values.numel():
                compared += 1
                _agree(f"{name}: {key}", found[key], values, kind, is_feature=name.parts[0] == "features")
    assert compared > 50


def _agree(name: str, found: torch.Tensor, expected: torch.Tensor, kind: str, is_feature: bool) -> None:
    difference = found - expected
    if kind == "pretended":
        assert not difference.any(), name
    elif is_feature:
        assert difference.abs().max() <= 1e-4 * expected.abs().max(), name
    else:
        assert difference.norm() <= 1e-3 * expected.norm() + 1e-6, name


def test_a_distillation_that_is_killed_goes_on_to_the_same_bytes(kind: str, on_gpu: Path, prepared: Path,
                                                                 tmp_path: Path) -> None:
    folder = copy_of(on_gpu, tmp_path)
    shutil.rmtree(folder / "sets")
    first = next(number for number, (module, _) in enumerate(work.STAGES) if module is work.distill)
    command = [sys.executable, "-m", "tests.gpu.work", "cuda", str(first), str(first + 2)]
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL)
    checkpoint, until = folder / "checkpoints/distill", time.monotonic() + 120
    while process.poll() is None and not list(checkpoint.rglob("*.safetensors")) and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it was over before it could be killed"
    assert list(checkpoint.rglob("*.safetensors"))
    made(folder, "cuda", first, first + len(work.CELLS))
    again, before = hashes(folder), hashes(on_gpu)
    assert {name for name in again if again[name] != before[name]} == set()
