"""What a remote can do wrong: it is named, nothing wrong stays, what is right stays, and the next pull mends it."""

import hashlib
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from repro.artifacts.manifest import Artifacts
from tests.remotes import toy
from tests.remotes.conftest import Published
from tests.remotes.servers import free_port, nginx


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    rewrite(path, bytes(content))


def truncate(path: Path) -> None:
    rewrite(path, path.read_bytes()[:-7])


def rewrite(path: Path, content: bytes) -> None:
    path.chmod(0o644)
    path.write_bytes(content)


@pytest.mark.parametrize(("damage", "verify"), [(flip, "false"), (truncate, "true"), (Path.unlink, "true")])
def test_a_damaged_object_is_named_and_does_not_stay(
        published: Published, newcomer: Path, store: Path, damage: Callable[[Path], None], verify: str,
        capsys: pytest.CaptureFixture[str]) -> None:
    toy.dvc(newcomer, "remote", "modify", "--local", "store", "verify", verify)
    original = published.project / "features/below/large ü.bin"
    damaged = toy.object_of(store, original)
    damage(damaged)
    assert toy.pulled(newcomer) == 1
    error = capsys.readouterr().err
    for said in ("features:\n", "features/below/large ü.bin", "remote 'store'", "--remote NAME", "repro run encode"):
        assert said in error
    if damaged.exists():
        expected, found = (hashlib.md5(path.read_bytes()).hexdigest() for path in (original, damaged))
        assert f"expected MD5 {expected}, found {damaged.stat().st_size} bytes with MD5 {found}" in error
    assert not (newcomer / ".dvc/cache/files/md5" / damaged.parent.name / damaged.name).exists()
    assert not (newcomer / "features").exists()
    assert (newcomer / "sets/toy-10.bin").read_bytes() == (published.project / "sets/toy-10.bin").read_bytes()

    kept = inodes(newcomer)
    shutil.copyfile(original, damaged)
    assert toy.pulled(newcomer) == 0
    assert toy.contents(newcomer) == toy.contents(published.project)
    assert len(kept) == 17 and kept.items() <= inodes(newcomer).items()  # none was fetched twice


@pytest.mark.parametrize("damage", [flip, truncate, Path.unlink])
def test_a_damaged_list_of_files_is_named_and_does_not_stay(
        newcomer: Path, store: Path, damage: Callable[[Path], None],
        capsys: pytest.CaptureFixture[str]) -> None:
    damage(toy.list_object(store, newcomer))
    assert toy.pulled(newcomer, Artifacts.TRAJECTORIES) == 1
    assert "the list of the files in features" in capsys.readouterr().err
    assert list((newcomer / ".dvc/cache/files/md5").rglob("*.dir")) == []
    assert not (newcomer / "features").exists()


def test_files_that_were_made_to_deceive_md5_do_not_stay(newcomer: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two files of one MD5 can be made: then the manifest's SHA-256 is not that of what comes."""
    manifest = newcomer / "artifacts.sha256.json"
    row = json.loads(manifest.read_text())["features"]
    manifest.write_text(manifest.read_text().replace(row, row[:-1] + ("1" if row[-1] == "0" else "0")))
    assert toy.pulled(newcomer) == 1
    error = capsys.readouterr().err
    assert re.search(r"features: expected SHA-256 \w{64} of all of it .*, found \w{64}, though every MD5", error)
    assert not (newcomer / "features").exists() and (newcomer / "sets/toy-10.bin").is_file()
    assert {"sets/toy-10.bin", "records/toy-10/record.json"} <= toy.contents(newcomer).keys()
    assert len(inodes(newcomer)) == 4  # of the set, the records and their list


@pytest.mark.parametrize("scheme", ["http", "webdav", "ssh"])
def test_a_remote_that_is_down_is_one_sentence(newcomer: Path, scheme: str, capsys: pytest.CaptureFixture[str]) -> None:
    toy.add_remote(newcomer, f"{scheme}://127.0.0.1:{free_port()}/store")
    began = time.monotonic()
    assert toy.pulled(newcomer, Artifacts.DISTILLED) == 1
    assert time.monotonic() - began < 20
    error = capsys.readouterr().err
    assert error.startswith("repro pull: remote 'store' (") and "cannot be read" in error and "Is it up" in error
    assert len(error.splitlines()) == 1 and "Traceback" not in error


@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)])
def test_a_pull_that_is_stopped_goes_on_where_it_was(published: Published, newcomer: Path, store: Path, tmp_path: Path,
                                                     number: signal.Signals, code: int) -> None:
    with nginx(tmp_path / "nginx", store, "limit_rate 100k;") as address:  # the large file takes half a minute
        toy.add_remote(newcomer, f"http://{address}")
        process = subprocess.Popen([sys.executable, "-m", "repro", "pull", "trajectories"], cwd=newcomer)
        wait_for(lambda: len(inodes(newcomer)) == 13 and any(partial_files(newcomer)))
        process.send_signal(number)
        assert process.wait(timeout=10) == code
    kept = inodes(newcomer)
    assert not (newcomer / "features").exists()
    toy.add_remote(newcomer, str(store))
    assert toy.pulled(newcomer) == 0
    assert toy.contents(newcomer) == toy.contents(published.project)
    assert len(kept) == 13 and kept.items() <= inodes(newcomer).items()  # none was fetched twice
    assert list(partial_files(newcomer)) == []


def test_a_full_disk_is_said_and_nothing_half_written_stays(published: Published, newcomer: Path, tmp_path: Path,
                                                            capsys: pytest.CaptureFixture[str]) -> None:
    small = tmp_path / "small disk"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", small], capture_output=True).returncode:
        pytest.skip("only root can mount a small disk")
    try:
        toy.dvc(newcomer, "cache", "dir", "--local", str(small))
        assert toy.pulled(newcomer, Artifacts.TRAJECTORIES) == 1
        error = capsys.readouterr().err
        assert "no space left while writing" in error and "free some disk space" in error and "Traceback" not in error
        assert [path for path in small.rglob("*") if path.stat().st_size > 2000] == []
        subprocess.run(["mount", "-o", "remount,size=16m", small], check=True)
        assert toy.pulled(newcomer, Artifacts.TRAJECTORIES) == 0
    finally:
        subprocess.run(["umount", "--lazy", small], check=True)


def inodes(folder: Path) -> dict[str, int]:
    """Which files the whole objects of a cache are: another inode is another download."""
    return {path.name: path.stat().st_ino for path in (folder / ".dvc/cache/files/md5").rglob("*")
            if path.is_file() and not path.name.endswith(".partial")}


def partial_files(folder: Path) -> Iterator[Path]:
    return (folder / ".dvc/cache").rglob("*.partial")


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
