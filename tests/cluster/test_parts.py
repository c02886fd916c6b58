"""Single parts of running by jobs, without a cluster: settings, commands of containers, ends of commands."""

import subprocess
import sys
from pathlib import Path

import pytest
from docker.types import DeviceRequest

from repro.cluster.containers import apptainer_command, docker_request, run_in_apptainer
from repro.cluster.inside import DONE, FAILED, KILLED, judged
from repro.cluster.node import Task
from repro.cluster.settings import EXAMPLE, FILE, Cluster, read_cluster
from repro.engines.base import On, Request
from repro.engines.spec import device_requests

ROOT = Path(__file__).parents[2]
STUB = """#!/bin/sh
echo "$@" >> {log}
case "$*" in *contents.json) cat {contents};; *) exit {code};; esac
"""


def test_the_example_is_read_and_a_wrong_key_is_named(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text((ROOT / EXAMPLE).read_text())
    assert read_cluster(tmp_path, On.SLURM).model_fields_set == set(Cluster.model_fields)
    (tmp_path / FILE).write_text("partitoin: gpu\nmax_jobs: 0\noptions: {qos: \"a\\nb\"}\n")
    with pytest.raises(ValueError, match=r"cluster\.yaml: \d parameter\(s\) to mend") as error:
        read_cluster(tmp_path, On.SLURM)
    assert all(key in str(error.value) for key in ("partitoin", "max_jobs", "options"))


def test_slurm_needs_settings_and_the_gpus_of_a_machine_do_not(tmp_path: Path) -> None:
    assert read_cluster(tmp_path, On.GPUS) == Cluster()
    with pytest.raises(ValueError, match=r"Copy cluster.example.yaml to cluster.yaml"):
        read_cluster(tmp_path, On.SLURM)


def test_nothing_of_it_is_imported_without_on() -> None:
    code = ("import sys; import repro.cli, repro.run; "
            "assert 'submitit' not in sys.modules and 'repro.cluster.engines' not in sys.modules")
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(("code", "meaning"), [(0, DONE), (1, FAILED), (2, FAILED), (127, FAILED), (3, KILLED),
                                               (-9, KILLED), (137, KILLED), (143, KILLED)])
def test_a_signal_is_no_error_of_the_stage(code: int, meaning: int) -> None:
    assert judged(code) == meaning


def some_task(root: Path, **changes: object) -> Task:
    return Task(**{"root": str(root), "workspace": "profiles/small", "stage": "distill@repblend-8", "part": None,
                   "attempt": 1, "snapshot": str(root / "snapshot"), "expects": None, "on_gpu": True,
                   "image": "/shared/image.sif", **changes})


def test_apptainer_sees_the_checkout_the_cache_and_the_shared_workspace(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Apptainer itself is not to be had here: a stub notes its command line."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    task = some_task(tmp_path)
    workspace, contents = task.checkout / "profiles/small", task.checkout / "docker/contents.json"
    for folder in (workspace, contents.parent, tmp_path / "bin"):
        folder.mkdir(parents=True)
    contents.write_text('{"debian": {}, "distributions": {}, "python": "3.11"}')
    log, stub = tmp_path / "log", tmp_path / "bin/apptainer"
    stub.write_text(STUB.format(log=log, contents=contents, code=75))
    stub.chmod(0o755)
    monkeypatch.setenv("PATH", f"{stub.parent}:/usr/bin:/bin")
    inputs = {Path("data/mine"): Path("/data/mine"), Path("/far/set"): Path("/far/set")}
    assert run_in_apptainer(task, workspace, ("job", task.stage), inputs) == 75

    looked, ran = log.read_text().splitlines()
    assert looked == "exec --containall /shared/image.sif cat /opt/repblend/contents.json"
    shared, inside = tmp_path / "profiles/small", "/workspace/profiles/small"
    cache = (tmp_path / ".dvc/cache").resolve()
    for words in (f"exec --containall --nv --pwd {inside} ", f"--bind {task.checkout}:/workspace ",
                  f"--bind {cache}:{cache} ", f"--bind {shared}/checkpoints:{inside}/checkpoints ",
                  f"--bind {shared}/logs:{inside}/logs ", "--bind /data/mine:/workspace/data/mine:ro ",
                  "--bind /far/set:/far/set:ro ", "--env CUDA_VISIBLE_DEVICES=3 ", "--env HF_HUB_OFFLINE=1 ",
                  "--env PYTHONPATH=/workspace/src:/workspace "):
        assert words in ran
    assert ran.endswith(" /shared/image.sif python -m repro.guarded_dvc job distill@repblend-8")
    assert "--nv" not in apptainer_command(some_task(tmp_path, on_gpu=False), "", (), {})

    contents.write_text('{"debian": {"bash": "5"}, "distributions": {}, "python": "3.11"}')
    stub.write_text(STUB.format(log=log, contents="/dev/null; echo '{\"debian\": {}, \"distributions\": {}, "
                                                  "\"python\": \"3.11\"}'", code=0))
    with pytest.raises(ValueError, match=r"image.sif is not made of what .*\(Debian's bash 5 -> absent\)"):
        run_in_apptainer(task, workspace, ("job", task.stage), inputs)
    stub.unlink()
    with pytest.raises(ValueError, match="apptainer: no such command on this node"):
        run_in_apptainer(task, workspace, ("job", task.stage), inputs)


def test_a_jobs_container_gets_its_gpu_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    request = docker_request(some_task(tmp_path))
    assert device_requests(request, {"Runtimes": {"nvidia": {}}}) == (
        DeviceRequest(device_ids=["3"], capabilities=[["gpu"]]),)
    assert device_requests(request, {"DiscoveredDevices": [{"ID": "nvidia.com/gpu=0"}]}) == (
        DeviceRequest(driver="cdi", device_ids=["nvidia.com/gpu=3"]),)
    with pytest.raises(ValueError, match="neither the 'nvidia' runtime nor CDI"):
        device_requests(request, {})
    assert device_requests(docker_request(some_task(tmp_path, on_gpu=False)), {"Runtimes": {"nvidia": {}}}) == ()
    assert device_requests(Request(), {"Runtimes": {"nvidia": {}}}) == (
        DeviceRequest(count=-1, capabilities=[["gpu"]]),)
