"""Faults while a stage runs in a container: nothing computes on, nothing is left, and the same command goes on."""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from docker.models.containers import Container

from tests.container.conftest import short_folder, start_engine, unavailable, wait_for_engine
from tests.container.toy import PATIENCE_S, Toy, wait_until

GO_ON = "run the same command to go on"
AS_ROOT = pytest.mark.skipif(os.getuid() != 0, reason="needs root")


def kill_inside(container: Container, words: str) -> None:
    """Kill the process in a container whose command starts with some words."""
    processes = container.top(ps_args="-eo pid,args")["Processes"]
    number, = (int(pid) for pid, command in processes if command.startswith(words))
    os.kill(number, signal.SIGKILL)


def test_no_kill_leaves_anything_and_the_run_goes_on_after_all_of_them(toy: Toy, engine: docker.DockerClient) -> None:
    for words, code in (("python -m repro.guarded_dvc", 137), ("/bin/sh -c", 255), ("python -m repro.engines.guard",
                                                                                    137)):
        process, container = toy.start_slow(engine)
        kill_inside(container, words)
        assert process.wait(timeout=PATIENCE_S) == code, toy.output()
        assert GO_ON in toy.output() and toy.stands_still() and toy.containers(engine) == []
    process, container = toy.start_slow(engine)
    process.kill()
    process.wait()
    wait_until(lambda: [one.status for one in toy.containers(engine)] == ["exited"])
    assert b"that started this container is gone: stopping" in container.logs() and toy.stands_still()
    assert f"Removed what a killed run left: container {container.short_id}" in toy.finish()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_ends_the_container_even_if_it_is_asked_for_twice(number: signal.Signals, toy: Toy,
                                                                 engine: docker.DockerClient) -> None:
    process, _ = toy.start_slow(engine)
    process.send_signal(number)
    time.sleep(0.1)
    process.send_signal(number)
    assert process.wait(timeout=PATIENCE_S) == 128 + number, toy.output()
    assert f"Stopping the container ({number.name})" in toy.output() and GO_ON in toy.output()
    assert "Traceback" not in toy.output() and toy.stands_still() and toy.containers(engine) == []


def test_two_runs_at_once_are_one_run_and_a_refusal(toy: Toy, engine: docker.DockerClient) -> None:
    process, container = toy.start_slow(engine)
    other = Toy(toy.folder, output="other")
    for place in ("docker", "local"):
        refusal = other.run("run", "slow", "--engine", place, expect=1)
        assert f"is being written by another run (process {process.pid} on" in refusal
    assert [one.id for one in toy.containers(engine)] == [container.id]
    (toy.inside / "go").touch()
    assert process.wait(timeout=PATIENCE_S) == 0
    assert toy.read("records/slow.txt") == "done\n"


@AS_ROOT
def test_a_workspace_of_another_user_is_refused_with_both_named(new_toy: Toy, engine: docker.DockerClient) -> None:
    subprocess.run(["chown", "-R", "4321:4322", new_toy.folder], check=True)
    output = new_toy.run("run", "prepare", "--engine", "docker", expect=1)
    assert "The workspace belongs to user 4321:4322; a container runs as user 0:0, without privileges" in output
    assert "chown -R 0:0 FOLDER" in output and not (new_toy.folder / "records/prepare.txt").exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    folder = tmp_path / "small disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


@AS_ROOT
def test_a_full_disk_under_the_cache_is_named_and_the_run_goes_on_once_there_is_space(
        toy: Toy, small_disk: Path, engine: docker.DockerClient) -> None:
    toy.define(large="head -c 3000000 /dev/zero > records/large.txt")
    toy.dvc("config", "cache.dir", str(small_disk / "cache"))
    output = toy.run("run", "large", "--engine", "docker", expect=255)
    assert "No space left on device" in output and GO_ON in output
    subprocess.run(["mount", "-o", "remount,size=9m", small_disk], check=True)
    toy.run("run", "large", "--engine", "docker")
    assert 3_000_000 in [file.stat().st_size for file in (small_disk / "cache").rglob("*") if file.is_file()]


@AS_ROOT
def test_an_engine_that_goes_away_is_named_and_the_run_goes_on_when_it_is_back(
        toy: Toy, toy_image: docker.models.images.Image, fast_folder: str | None,
        monkeypatch: pytest.MonkeyPatch) -> None:
    if not shutil.which("dockerd"):
        unavailable("no dockerd to start one that may be killed")
    image = b"".join(toy_image.save(named=True))
    with short_folder(fast_folder) as folder:
        monkeypatch.setenv("DOCKER_HOST", f"unix://{folder}/docker.sock")
        daemon = start_engine(folder)
        try:
            engine = wait_for_engine(daemon, folder / "log")
            engine.api.load_image(image)
            for number in (signal.SIGKILL, signal.SIGTERM):
                process, _ = toy.start_slow(engine)
                end_engine(daemon, folder, number)
                assert process.wait(timeout=PATIENCE_S) == 1, toy.output()
                assert "the Docker engine stopped answering" in toy.output() and GO_ON in toy.output()
                assert "Traceback" not in toy.output()
                wait_until(toy.stands_still)
                daemon = start_engine(folder)
                engine = wait_for_engine(daemon, folder / "log")
            assert "Removed what a killed run left" in toy.finish()
            assert toy.containers(engine) == []
        finally:
            daemon.terminate()
            daemon.wait()


def end_engine(daemon: subprocess.Popen, folder: Path, number: signal.Signals) -> None:
    """Signal an engine and its containerd, which outlives it when it is killed and would be in the way of the next."""
    containerd = int((folder / "exec/containerd/containerd.pid").read_text())
    daemon.send_signal(number)
    daemon.wait()
    with contextlib.suppress(ProcessLookupError):
        os.kill(containerd, number)
    wait_until(lambda: not Path(f"/proc/{containerd}").exists())
