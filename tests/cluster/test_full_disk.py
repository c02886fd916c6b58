"""A full disk under what jobs share: said once in a line with a path on it, not tried again, and no end of the rest."""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from repro.cluster.head import Way, run_on
from repro.cluster.jobs import State
from repro.cluster.settings import On
from repro.pipeline import KINDS, MULTIMODAL
from repro.profiles import Profile
from repro.workspace import only_run
from tests.cluster.toy import Toy

pytestmark = [pytest.mark.faults, pytest.mark.skipif(os.getuid() != 0, reason="needs root, to mount small disks")]
REMEDY = "no space left. Free some disk space and run the same command again"
KIB_OF_A_PAGE = 4
Mount = Callable[[str, int], None]


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    return Toy(tmp_path / "toy")


@pytest.fixture
def mount(toy: Toy) -> Iterator[Mount]:
    """Put a folder of the toy on a disk of so many KiB, or change how many there are."""
    with contextlib.ExitStack() as mounted:
        def change(place: str, kib: int) -> None:
            folder = toy.folder / place
            if folder.is_mount():
                subprocess.run(["mount", "-o", f"remount,size={kib}k", folder], check=True)
            else:
                folder.mkdir(parents=True, exist_ok=True)
                subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", folder], check=True)
                mounted.callback(subprocess.run, ["umount", folder], check=True)
        yield change


def run(toy: Toy) -> bool:
    """As `repro run --on gpus`, in this process."""
    with only_run(toy.folder):
        return run_on(Way(On.GPUS), [Profile("toy", KINDS[MULTIMODAL], toy.folder)], [])


def hashes_alone(toy: Toy) -> dict[str, str]:
    """Return what a run without jobs makes of a copy."""
    alone = Toy.__new__(Toy)
    alone.folder, alone.variables = shutil.copytree(toy.folder, toy.folder.with_name("alone")), {}
    subprocess.run([sys.executable, "-m", "dvc", "repro", "-q"], cwd=alone.folder, check=True)
    return alone.hashes()


def attempts(toy: Toy) -> dict[str, int]:
    return {name: job.output.read_text().count("attempt ") for name, job in toy.jobs().items()}


def test_a_full_cache_or_a_record_that_finds_no_space_stops_its_stage_alone(
        toy: Toy, mount: Mount, capsys: pytest.CaptureFixture[str]) -> None:
    write = "mkdir -p records; head -c {} /dev/zero > records/{}.txt"
    toy.define(small=(write.format(20, "small"), []), begun=(write.format(10, "begun"), []),
               large=(write.format(3_000_000, "large"), ["small"]),
               after=("cp records/large.txt records/after.txt", ["large"]))
    expected = hashes_alone(toy)
    mount(".dvc/cache", 1024)
    mount("logs/jobs/begun", 3 * KIB_OF_A_PAGE)  # submission, output, and a first record, but none beside it
    assert not run(toy)
    printed = capsys.readouterr().err
    assert f"{toy.folder}/.dvc/cache/files/md5: {REMEDY}" in printed
    assert f"begun failed: {toy.folder}/logs/jobs/begun: {REMEDY}" in printed
    assert "not run, since what they need failed: after" in printed and "Traceback" not in printed
    assert {name: job.state for name, job in toy.jobs().items()} == {
        "large": State.FAILED, "small": State.DONE, "begun": State.RUNNING}  # as far as it could write that down
    assert attempts(toy) == {"large": 1, "begun": 1, "small": 1}

    mount(".dvc/cache", 16 * 1024)
    mount("logs/jobs/begun", 1024)
    assert run(toy), capsys.readouterr()
    assert toy.hashes() == expected
    assert attempts(toy) == {"large": 2, "begun": 1, "small": 1, "after": 1}


def test_a_checkout_that_finds_no_space_is_named_and_nothing_is_left_of_it(
        toy: Toy, mount: Mount, capsys: pytest.CaptureFixture[str]) -> None:
    toy.define(a=("mkdir -p records; echo 1 > records/a.txt", []))
    mount(".dvc/tmp/jobs", 256)
    with pytest.raises(OSError, match=f"{toy.folder}/.dvc/tmp/jobs/snapshot-toy-.*: {REMEDY}$"):
        run(toy)
    mount(".dvc/tmp/jobs", snapshot_kib(toy) * 3 // 2)
    assert not run(toy)
    assert f"a failed: [Errno 28] {toy.folder}/.dvc/tmp/jobs/quickstart/a: {REMEDY}\n" in capsys.readouterr().err
    assert toy.jobs()["a"].state is State.FAILED and attempts(toy) == {"a": 1}
    assert not [path for path in (toy.folder / ".dvc/tmp/jobs").rglob("*") if path.is_file()]
    mount(".dvc/tmp/jobs", 64 * 1024)
    assert run(toy), capsys.readouterr()
    assert toy.read("records/a.txt") == "1\n"


def snapshot_kib(toy: Toy) -> int:
    """Return what a copy of the sources takes on a disk of pages."""
    files = [path for name in ("src", "repro", "conf") for path in (toy.folder / name).rglob("*")]
    pages = sum(-(-path.stat().st_size // (1024 * KIB_OF_A_PAGE)) for path in files if path.is_file())
    return pages * KIB_OF_A_PAGE
