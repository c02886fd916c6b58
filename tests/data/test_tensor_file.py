"""Files written part by part, against safetensors' own writer, and the journal of what is on the disk."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from repblend.data.resumable import Journal, Part, fill
from repblend.data.tensor_file import TensorFile, TensorSpec
from repblend.store import write_tensors

VIEWS, IMAGES, WIDTH = 2, 5, 3
SPECS = {"features": TensorSpec("float32", (VIEWS, IMAGES, WIDTH)), "half": TensorSpec("float16", (IMAGES, WIDTH)),
         "index": TensorSpec("int64", (7,)), "a-longer name": TensorSpec("float32", (1, 1))}


def whole() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {"features": torch.randn(VIEWS, IMAGES, WIDTH, generator=generator),
            "half": torch.randn(IMAGES, WIDTH, generator=generator).half(), "index": torch.arange(7),
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


class Stop(Exception):
    pass


@pytest.mark.parametrize("every", [1, 2, 3])
@pytest.mark.parametrize("stop_at", range(VIEWS * IMAGES + 1))
def test_a_stopped_run_goes_on_after_its_last_entry(tmp_path: Path, stop_at: int, every: int) -> None:
    """Parts of one row; the first run stops before part `stop_at`."""
    write_tensors(tmp_path / "whole", {"features": whole()["features"]})
    specs = {"features": SPECS["features"]}

    def parts_from(done: int, stop: int | None = None) -> Iterator[Part]:
        for row in range(done, VIEWS * IMAGES):
            if row == stop:
                raise Stop
            made.append(row)
            yield [(row, rows_of("features")[row])]

    made: list[int] = []
    with TensorFile(tmp_path / "parts", specs) as file:
        try:
            fill(file, "features", Journal(tmp_path / "journal"), lambda done: parts_from(done, stop_at), every)
        except Stop:
            made.clear()
            fill(file, "features", Journal(tmp_path / "journal"), parts_from, every)
            assert made == list(range(stop_at // every * every, VIEWS * IMAGES))
        made.clear()
        fill(file, "features", Journal(tmp_path / "journal"), parts_from, every)
    assert made == []
    assert (tmp_path / "parts").read_bytes() == (tmp_path / "whole").read_bytes()
