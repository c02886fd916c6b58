"""Files are whole or absent, canonical, and checked when read."""

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch

from repblend import store
from repblend.tensors import FORMAT_NAMES, METADATA_KEY, TensorFile, TensorSpec, read_tensors, write_tensors


def test_json_is_canonical_and_refuses_nan(tmp_path: Path) -> None:
    store.write_json(tmp_path / "a.json", {"b": 1, "a": [0.1, "ü"]})
    store.write_json(tmp_path / "b.json", {"a": [0.1, "ü"], "b": 1})
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert store.read_json(tmp_path / "a.json") == {"a": [0.1, "ü"], "b": 1}
    with pytest.raises(ValueError, match=r"c\.json: .*NaN or infinite"):
        store.write_json(tmp_path / "c.json", [float("nan")])
    assert not (tmp_path / "c.json").exists()


@pytest.mark.parametrize(("content", "words"), [
    (None, "no such file"), (b'{"a": 1,\n}', "line 2: expected JSON"), (b"\xff\xfe", "expected UTF-8")])
def test_unreadable_json_is_named(tmp_path: Path, content: bytes | None, words: str) -> None:
    if content is not None:
        (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(ValueError, match=rf"x\.json.*{words}"):
        store.read_json(tmp_path / "x.json")


def test_a_failing_write_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    target = tmp_path / "a"
    target.write_text("old")
    with pytest.raises(RuntimeError), store.atomic_path(target) as aside:
        aside.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old" and list(tmp_path.iterdir()) == [target]


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    for names in (["a", "b"], ["c"]):
        with store.atomic_path(target) as aside:
            aside.mkdir()
            for name in names:
                (aside / name).touch()
    assert [path.name for path in target.iterdir()] == ["c"]


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"a: no space left.*free some disk space") as caught, \
            store.atomic_path(tmp_path / "a") as aside:
        aside.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.errno == errno.ENOSPC and list(tmp_path.iterdir()) == []


FULL = """
import sys
from pathlib import Path
import numpy as np
from repblend.tensors import write_tensors
try:
    write_tensors(Path(sys.argv[1]) / "big.safetensors", {"a": np.zeros(4_000_000, np.float32)})
except OSError as error:
    print(error)
    sys.exit(5)
"""


def test_a_really_full_file_system_leaves_nothing(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", small]
    mounted = subprocess.run(command, capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("mounting a small file system needs root and mount(8): " + mounted.stderr.decode().strip())
    try:
        done = subprocess.run([sys.executable, "-c", FULL, small], capture_output=True, text=True, check=False)
        assert done.returncode == 5, done.stderr
        assert "big.safetensors: no space left" in done.stdout
        assert list(small.iterdir()) == []
    finally:
        subprocess.run(["umount", small], check=True)


KILLED = """
import os, signal, sys
from pathlib import Path
from repblend import store
with store.atomic_path(Path(sys.argv[1])) as aside:
    aside.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_write_leaves_the_old_file_and_the_next_write_cleans_up(tmp_path: Path) -> None:
    target = tmp_path / "a"
    target.write_text("old")
    done = subprocess.run([sys.executable, "-c", KILLED, target], check=False)
    assert done.returncode == -signal.SIGKILL
    assert target.read_text() == "old" and len(list(tmp_path.iterdir())) == 2
    store.write_bytes(target, b"new")
    assert target.read_text() == "new" and list(tmp_path.iterdir()) == [target]


def test_tensors_come_back_with_their_metadata(tmp_path: Path) -> None:
    tensors = {"b": torch.arange(6).view(2, 3), "a": torch.tensor([0.5, -1.0]), "scalar": torch.tensor(0.25),
               "turned": torch.arange(6).view(2, 3).T}
    write_tensors(tmp_path / "t", tensors, {"z": 1, "list": [1, "x"]})
    read, metadata = read_tensors(tmp_path / "t")
    assert metadata == {"z": 1, "list": [1, "x"]}
    assert all(torch.equal(read[name], value) and read[name].dtype == value.dtype for name, value in tensors.items())
    assert np.array_equal(read_tensors(tmp_path / "t", "np")[0]["a"], [0.5, -1.0])


def test_products_of_tensors_that_were_read_have_the_bits_of_those_that_were_made(tmp_path: Path) -> None:
    """Small products depend on where their factors begin, and metadata of any length stands before them in a file."""
    left, right = torch.randn(2, 8, 4, generator=torch.Generator().manual_seed(0))
    for length in range(64):
        write_tensors(tmp_path / "t", {"a": torch.zeros(length), "left": left, "right": right}, {"text": "x" * length})
        read, _ = read_tensors(tmp_path / "t")
        assert torch.equal(read["left"] @ read["right"].T, left @ right.T), length


def test_tensor_files_have_the_same_bytes_in_every_process(tmp_path: Path) -> None:
    code = ("import sys, numpy as np; from pathlib import Path; from repblend.tensors import write_tensors; "
            "names = sys.argv[2]; "
            "write_tensors(Path(sys.argv[1]), {n: np.ones(2) for n in names}, dict.fromkeys(names, 1))")
    for seed, names in (("1", "abcdefgh"), ("2", "hgfedcba")):
        subprocess.run([sys.executable, "-c", code, tmp_path / seed, names], check=True,
                       env=os.environ | {"PYTHONHASHSEED": seed})
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_tensors_that_are_not_finite_are_not_written(tmp_path: Path, value: float) -> None:
    with pytest.raises(ValueError, match="tensor 'x' holds NaN or infinity"):
        write_tensors(tmp_path / "t", {"x": torch.tensor([1.0, value])})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("keep", [0, 4, 40, -1])
def test_truncated_tensors_are_named(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "t.safetensors"
    write_tensors(path, {"x": torch.arange(100)})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"t\.safetensors: expected a whole safetensors file"):
        read_tensors(path)


@pytest.mark.parametrize("metadata", [{}, {"a": [1, "é\n\"/"]}])
def test_every_type_and_name_is_written_as_the_library_writes_it(tmp_path: Path, metadata: dict) -> None:
    arrays = {f"{dtype} é\n": (np.arange(7) % 2).astype(dtype) for dtype in sorted(FORMAT_NAMES)}
    arrays |= {"scalar": np.array(0.5, np.float32), "empty": np.zeros((0, 3)), "z": np.ones((2, 3, 4), np.float32)}
    write_tensors(tmp_path / "t", arrays, metadata)
    expected = safetensors.numpy.save(arrays, {METADATA_KEY: json.dumps(metadata, sort_keys=True)})
    assert (tmp_path / "t").read_bytes() == expected
    write_tensors(tmp_path / "nothing", {})
    assert (tmp_path / "nothing").read_bytes() == safetensors.numpy.save({}, {METADATA_KEY: "{}"})


SPECS = {"features": TensorSpec("float32", (2, 5, 3)), "half": TensorSpec("float16", (5, 3)),
         "index": TensorSpec("int64", (7,)), "a-longer name": TensorSpec("float32", (1, 1))}


def whole() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {"features": torch.randn(2, 5, 3, generator=generator),
            "half": torch.randn(5, 3, generator=generator).half(), "index": torch.arange(7),
            "a-longer name": torch.ones(1, 1)}


def rows_of(name: str) -> torch.Tensor:
    tensor = whole()[name]
    return tensor.flatten(0, -2) if tensor.dim() > 1 else tensor


def test_parts_in_any_order_make_the_bytes_of_the_whole(tmp_path: Path) -> None:
    write_tensors(tmp_path / "whole", whole())
    with TensorFile(tmp_path / "parts", SPECS) as file:
        for name in reversed(SPECS):
            for row in reversed(range(len(rows_of(name)))):
                file.write(name, row, rows_of(name)[row])
    assert (tmp_path / "parts").read_bytes() == (tmp_path / "whole").read_bytes()


def test_what_an_earlier_run_wrote_stays(tmp_path: Path) -> None:
    write_tensors(tmp_path / "whole", whole())
    for name in SPECS:  # opened again for each
        with TensorFile(tmp_path / "parts", SPECS) as file:
            file.write(name, 0, whole()[name])
    assert (tmp_path / "parts").read_bytes() == (tmp_path / "whole").read_bytes()


@pytest.mark.parametrize(("name", "value"), [("features", torch.nan), ("features", torch.inf), ("half", 70_000.0)])
def test_what_cannot_be_held_is_refused(tmp_path: Path, name: str, value: float) -> None:
    with TensorFile(tmp_path / "parts", SPECS) as file:
        before = (tmp_path / "parts").read_bytes()
        with pytest.raises(ValueError, match=f"tensor '{name}' holds NaN or infinity"):
            file.write(name, 1, torch.tensor([1.0, value, 1.0]))
    assert (tmp_path / "parts").read_bytes() == before


def test_sha256_and_fingerprint_are_stable(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert store.sha256(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert store.fingerprint({"a": 1, "b": [2]}) == store.fingerprint(json.loads('{"b": [2], "a": 1}'))
    assert store.fingerprint({"a": 1}) != store.fingerprint({"a": 2})
