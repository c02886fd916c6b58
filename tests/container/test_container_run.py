"""`repro run` and `repro verify` in containers of a real engine: networks, users, outputs, terminals, choices."""

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import docker
import pytest

from repblend.runtime.processes import only_writer
from repro.workspace import workspace_environment
from tests.container.toy import Toy, wait_until

LOOPBACK_ALONE = "lo\n"
INSIDE = ("(id -u; id -g; ls /sys/class/net; pwd; touch /x || echo read-only; grep CapEff /proc/self/status) "
          "> records/inside.txt")
HOLD = ("import fcntl, time; f = open('lock', 'w'); fcntl.flock(f, fcntl.LOCK_EX); print('held', flush=True); "
        "time.sleep(60)")
TRY = "import fcntl; fcntl.flock(open('lock'), fcntl.LOCK_EX | fcntl.LOCK_NB)"
TERMINAL = ("""python -c "import os, sys; print('terminal', sys.stdout.isatty(), """
            """sys.stdout.isatty() and os.get_terminal_size().columns)\"""")


def interfaces_here() -> str:
    return subprocess.run(["ls", "/sys/class/net"], capture_output=True, text=True, check=True).stdout


def test_fetching_has_a_network_computing_has_none_and_the_second_run_fetches_nothing(
        new_toy: Toy, toy_image: docker.models.images.Image) -> None:
    new_toy.define(inside=INSIDE)
    output = new_toy.run("run", "inside", "--engine", "docker")
    assert f"Engine: docker, image {toy_image.tags[0]}" in output
    assert new_toy.read("records/prepare.txt") != LOOPBACK_ALONE
    assert new_toy.read("records/inside.txt").splitlines() == [
        str(os.getuid()), str(os.getgid()), "lo", "/workspace", "read-only", "CapEff:\t0000000000000000"]
    written = (new_toy.folder / "records/inside.txt").stat()
    assert (written.st_uid, written.st_gid) == (os.getuid(), os.getgid())
    record = json.loads(new_toy.read("container.json"))
    assert record["image"]["id"] == toy_image.id and record["dirty"] is True and len(record["commit"]) == 40
    assert [(one["command"], one["exit_code"], one["isolation"]["network"]) for one in record["containers"]] == [
        ("dvc status --quiet --with-deps prepare", 1, "none"), ("dvc repro prepare", 0, "host"),
        ("dvc repro inside", 0, "none")]
    assert all(one["isolation"]["read_only_root"] and one["isolation"]["capabilities_dropped"] == ["ALL"]
               and one["isolation"]["user"] == f"{os.getuid()}:{os.getgid()}" for one in record["containers"])
    new_toy.run("run", "inside", "--engine", "docker")
    again = json.loads(new_toy.read("container.json"))["containers"]
    assert [one["command"] for one in again] == ["dvc status --quiet --with-deps prepare", "dvc repro inside"]


def test_dvc_lock_is_the_same_with_and_without_a_container(new_toy: Toy) -> None:
    new_toy.define(sums="seq 1000 | sha256sum > records/sums.txt")
    (new_toy.folder / "dvc.yaml").write_text(new_toy.read("dvc.yaml").replace("ls /sys/class/net", "echo data"))
    new_toy.run("run", "sums", "--engine", "docker")
    inside = new_toy.read("dvc.lock")
    for name in ("dvc.lock", "records/prepare.txt", "records/sums.txt"):
        (new_toy.folder / name).unlink()
    assert "Engine:" not in new_toy.run("run", "sums", "--engine", "local", PATH=os.environ["PATH"])
    assert new_toy.read("dvc.lock") == inside


def test_a_failing_stage_is_told_of_as_without_a_container(toy: Toy) -> None:
    toy.define(failing=f"{TERMINAL}; echo to the error stream >&2; exit 3")
    output = toy.run("run", "failing", "--engine", "docker", expect=255)  # DVC's own code
    assert "terminal False False\n" in output
    assert "to the error stream\n" in output and "failed to reproduce 'failing'" in output
    assert "stopped (exit code 255). What was finished is kept" in output
    assert not (toy.folder / "container.json").exists()


def test_a_stage_that_needs_too_much_memory_is_told_how_to_get_more(toy: Toy) -> None:
    toy.define(greedy="""python -c "len(b'1' * 900_000_000)" && touch records/greedy.txt""")
    output = toy.run("run", "greedy", "--engine", "docker", "--memory", "0.4", expect=255)
    assert "the container reached its memory limit, 0.4 GiB. Raise it with --memory 0.8 (in GiB)" in output


def test_a_terminal_outside_is_one_inside_of_the_same_width(toy: Toy) -> None:
    toy.define(seen=f"{TERMINAL} && touch records/seen.txt")
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 123, 0, 0))
    command = [sys.executable, "-m", "repro", "run", "seen", "--engine", "docker"]
    environment = workspace_environment(toy.folder) | {"COLUMNS": "80"}  # of another terminal, long ago
    process = subprocess.Popen(command, cwd=toy.folder, env=environment, stdout=theirs, stderr=theirs)
    os.close(theirs)
    assert "terminal True 123\r" in read_all(ours)
    assert process.wait() == 0


def read_all(terminal: int) -> str:
    found = b""
    while True:
        try:
            found += os.read(terminal, 4096)
        except OSError:  # the other side is closed
            return found.decode()


def test_a_lock_holds_between_containers_and_the_host(engine: docker.DockerClient, tmp_path: Path,
                                                      toy_image: docker.models.images.Image) -> None:
    mount = docker.types.Mount("/workspace", str(tmp_path), type="bind")
    settings = {"image": toy_image.id, "mounts": [mount], "working_dir": "/workspace", "network_mode": "none"}
    holder = engine.containers.create(command=["python", "-c", HOLD], **settings)
    rival = engine.containers.create(command=["python", "-c", TRY], **settings)
    try:
        holder.start()
        wait_until(lambda: b"held" in holder.logs())
        with pytest.raises(ValueError, match="is being written by another run"), \
                only_writer(tmp_path / "lock", "this", wait_seconds=0.2):
            pytest.fail("two writers at once")
        rival.start()
        assert rival.wait()["StatusCode"] == 1 and b"BlockingIOError" in rival.logs()
        holder.kill()
        with only_writer(tmp_path / "lock", "this", wait_seconds=5.0):
            rival.start()
            assert rival.wait()["StatusCode"] == 1
    finally:
        holder.remove(force=True)
        rival.remove(force=True)


def test_without_the_image_docker_is_refused_and_auto_runs_here_and_says_why(new_toy: Toy) -> None:
    (new_toy.folder / "requirements/lock.txt").write_text("# another image\n")
    refused = new_toy.run("run", "prepare", "--engine", "docker", expect=1)
    assert re.search(r"repro run: the engine has no image repblend:[0-9a-f]{12}, .*`repro image build`", refused)
    assert not (new_toy.folder / "records/prepare.txt").exists()
    assert "Engine: local, not a container: the engine has no image" in new_toy.run("run", "prepare")
    assert new_toy.read("records/prepare.txt") == interfaces_here()


def test_without_an_engine_docker_is_refused_and_auto_runs_here_and_says_why(new_toy: Toy) -> None:
    absent = {"DOCKER_HOST": f"unix://{new_toy.folder}/none.sock"}
    refused = new_toy.run("run", "prepare", "--engine", "docker", expect=1, **absent)
    assert "repro run: no Docker engine answers at unix://" in refused and "Traceback" not in refused
    assert "Engine: local, not a container: no Docker engine answers" in new_toy.run("run", "prepare", **absent)
    assert new_toy.read("records/prepare.txt") == interfaces_here()


def test_auto_takes_a_container_where_it_can_and_verification_compares_what_it_makes(
        toy: Toy, toy_image: docker.models.images.Image) -> None:
    toy.define(same="seq 9 > records/same.txt", other="cat /proc/sys/kernel/random/uuid > records/other.txt")
    assert "Engine: docker" in toy.run("run", "same", "other")
    toy.commit()
    output = toy.run("verify", "same", "other", expect=1)
    assert "same     records/same.txt" in output and "DIFFERS  records/other.txt (stage other" in output
    assert "3 outputs compared, 1 not the same" in output
    record = json.loads(toy.read("verification.json"))
    assert (record["outputs"], record["stages"]) == (3, ["other", "prepare", "same"])
    assert record["different"].keys() == {"records/other.txt"}
    assert f"expected {record['different']['records/other.txt']['expected']}, found" in output
    assert record["container"]["image"]["id"] == toy_image.id
    assert [one["command"] for one in record["container"]["containers"]] == [
        "dvc status --quiet --with-deps prepare", "dvc repro prepare", "dvc repro --no-run-cache same other"]
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=toy.folder, capture_output=True, text=True, check=True)
    assert record["commit"] == head.stdout.strip()
