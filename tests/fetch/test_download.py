"""Downloads: what is on the disk after breaks, changes on the server, and wrong content."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from repro.fetch import download as module
from repro.fetch.download import Digest, download
from tests.fetch.range_server import RangeServer, serving
from tests.tiny import ROOT

CONTENT = bytes(range(256)) * 16_384  # 4 MiB
SHA256 = Digest("sha256", hashlib.sha256(CONTENT).hexdigest())


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RangeServer]:
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0.0)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    (tmp_path / "served").mkdir()
    (tmp_path / "served/file.bin").write_bytes(CONTENT)
    with serving(tmp_path / "served") as state:
        yield state


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != "served")


def test_a_broken_download_goes_on_where_it_stopped(server: RangeServer, tmp_path: Path) -> None:
    server.break_after = [1_500_000, 700_001, 0]
    download(f"{server.address}/file.bin", tmp_path / "file.bin", SHA256)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT
    assert [start for _, start in server.ranges] == [0, 1_500_000, 2_200_001, 2_200_001]
    assert names(tmp_path) == ["file.bin"]


def test_a_killed_download_goes_on_in_another_process(server: RangeServer, tmp_path: Path) -> None:
    server.break_after = [2_000_000] + [0] * 1000  # nothing more comes until the process is killed
    code = ("import sys; from pathlib import Path; from repro.fetch import download\n"
            "download.PAUSE_SECONDS, download.ATTEMPTS = 0.2, 1000\n"
            "download.download(sys.argv[1], Path(sys.argv[2]), None)")
    process = subprocess.Popen([sys.executable, "-c", code, f"{server.address}/file.bin", tmp_path / "file.bin"],
                               env=os.environ | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}, stderr=subprocess.DEVNULL)
    part, deadline = tmp_path / "file.bin.part", time.monotonic() + 60
    while (not part.exists() or part.stat().st_size < 2_000_000) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    server.break_after, server.ranges = [], []
    download(f"{server.address}/file.bin", tmp_path / "file.bin", SHA256)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT and server.ranges == [("file.bin", 2_000_000)]


def test_a_file_that_changed_on_the_server_is_fetched_anew(server: RangeServer, tmp_path: Path) -> None:
    server.break_after = [1_000_000, 0, 0, 0, 0, 0, 0]
    with pytest.raises(ValueError, match=r"broke 5 times.*1,000,000 bytes are kept"):
        download(f"{server.address}/file.bin", tmp_path / "file.bin", None)
    changed = CONTENT[::-1]
    (server.folder / "file.bin").write_bytes(changed)
    server.tags["file.bin"], server.break_after, server.ranges = '"new"', [], []
    download(f"{server.address}/file.bin", tmp_path / "file.bin", None)
    assert (tmp_path / "file.bin").read_bytes() == changed and server.ranges == [("file.bin", 0)]


def test_a_part_is_not_added_to_without_a_sure_sign_that_the_file_is_the_same(server: RangeServer,
                                                                             tmp_path: Path) -> None:
    """Such a sign is a strong validator of the server's, or a digest to compare the whole with."""
    server.tags["file.bin"] = 'W/"weak"'
    for digest, starts in ((None, [0, 0]), (SHA256, [0, 1_000_000])):
        server.break_after, server.ranges = [1_000_000], []
        download(f"{server.address}/file.bin", tmp_path / "file.bin", digest)
        assert [start for _, start in server.ranges] == starts
        assert (tmp_path / "file.bin").read_bytes() == CONTENT


@pytest.mark.parametrize(("kept", "starts"), [(CONTENT, []), (CONTENT + b"more", [0])])
def test_a_part_that_is_whole_is_kept_and_one_that_is_too_long_is_not(kept: bytes, starts: list[int],
                                                                      server: RangeServer, tmp_path: Path) -> None:
    (tmp_path / "file.bin.part").write_bytes(kept)
    download(f"{server.address}/file.bin", tmp_path / "file.bin", SHA256)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT
    assert [start for _, start in server.ranges] == starts


@pytest.mark.parametrize("algorithm", ["sha256", "md5"])
def test_other_content_than_the_digest_says_is_not_kept(algorithm: str, server: RangeServer, tmp_path: Path) -> None:
    right = Digest(algorithm, hashlib.new(algorithm, CONTENT).hexdigest())
    download(f"{server.address}/file.bin", tmp_path / "right.bin", right)
    with pytest.raises(ValueError, match=f"expected {algorithm} 0123, found {right}"):
        download(f"{server.address}/file.bin", tmp_path / "file.bin", Digest(algorithm, "0123"))
    assert not (tmp_path / "file.bin").exists() and not (tmp_path / "file.bin.part").exists()


def test_an_answer_that_is_no_file_names_the_address_and_what_to_do(server: RangeServer, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"gone\.bin: the server answers 404 .* put it at"):
        download(f"{server.address}/gone.bin", tmp_path / "gone.bin", None)


def test_a_busy_server_is_asked_again_for_a_while(server: RangeServer, tmp_path: Path) -> None:
    server.busy = 3
    download(f"{server.address}/file.bin", tmp_path / "file.bin", SHA256)
    server.busy = 100
    with pytest.raises(ValueError, match="the server answers 503"):
        download(f"{server.address}/file.bin", tmp_path / "again.bin", SHA256)
    assert server.busy == 100 - 1 - module.ATTEMPTS


def test_a_disk_that_is_too_small_is_noticed_before_anything_is_written(
        server: RangeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 1_000_000})
    monkeypatch.setattr(module.shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(ValueError, match="4,194,304 bytes are to come, 1,000,000 are free"):
        download(f"{server.address}/file.bin", tmp_path / "file.bin", None)
    assert names(tmp_path) == []
