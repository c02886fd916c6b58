"""Stage `embed` on sets and experts made here, with a linear encoder in place of a pre-trained one."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from repblend.analysis.collapse import effective_rank, modality_gap
from repblend.encoders.heads import HeadSpec, apply_head, init_head
from repblend.encoders.image import ImageEncoder
from repblend.experts.trajectories import write_trajectory
from repblend.grid import Cell
from repblend.matching.similarity import IdentitySimilarity
from repblend.matching.student import PerModality
from repblend.matching.synthetic_set import SyntheticSet
from repblend.params import read_params
from repblend.runtime.context import Paths
from repblend.stages import embed
from repblend.stages.pipeline import Context
from repblend.store import sha256

ROOT = Path(__file__).parents[2]
IMAGE, TEXT = HeadSpec(7, 16), HeadSpec(5, 16)


def linear_encoder() -> ImageEncoder:
    module = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, IMAGE.d_in, bias=False))
    with torch.no_grad():
        module[1].weight.normal_(generator=torch.Generator().manual_seed(0))
    return ImageEncoder(module, IMAGE.d_in, [0.5] * 3, [0.5] * 3)


def some_set(seed: int, count: int) -> SyntheticSet:
    draws = torch.Generator().manual_seed(seed)
    return SyntheticSet(torch.randn(count, 3, 4, 4, generator=draws), torch.randn(count, TEXT.d_in, generator=draws),
                        IdentitySimilarity(count), 0.1, 0.1, {})


def some_heads(number: int) -> PerModality:
    draws = torch.Generator().manual_seed(number)
    return PerModality(init_head(IMAGE, draws), init_head(TEXT, draws))


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    """A workspace with three experts and two sets."""
    monkeypatch.setattr(embed, "image_encoder_of", lambda params, image_size: linear_encoder())
    text = (ROOT / "params.yaml").read_text().replace("width: 256", "width: 16")
    (tmp_path / "params.yaml").write_text(text)
    paths = Paths(tmp_path)
    for number in range(3):
        write_trajectory(paths.experts / f"expert-{number:03d}.safetensors",
                         [some_heads(100 + number), some_heads(number)], {})
    some_set(1, 20).write(paths.set(Cell("random", 20)))
    some_set(2, 19).write(paths.set(Cell("repblend", 20)))
    return paths


def run(paths: Paths, cell: str) -> dict:
    embed.run(Context("embed", Cell.parse(cell), read_params(paths.params), paths))
    return json.loads(paths.record("embed", cell).read_text())


def test_measures_are_of_the_set_under_every_experts_last_snapshot(paths: Paths) -> None:
    found, encoder, pairs = run(paths, "repblend-20"), linear_encoder(), some_set(2, 19)
    assert (found["cell"], found["num_pairs"], found["num_references"]) == ({"method": "repblend", "budget": 20}, 19, 3)
    for number in range(3):
        heads = some_heads(number)
        images = apply_head(encoder.encode(pairs.images), heads.img, IMAGE)
        texts = apply_head(pairs.texts, heads.txt, TEXT)
        expected = {"modality_gap": modality_gap(images, texts), "effective_rank_img": effective_rank(images),
                    "effective_rank_txt": effective_rank(texts)}
        assert {name: found["measures"][name]["values"][number] for name in expected} == pytest.approx(expected,
                                                                                                      rel=1e-4)


def test_the_sphere_has_a_point_for_every_image_and_text(paths: Paths) -> None:
    sphere = run(paths, "repblend-20")["sphere"]
    assert len(sphere["images"]) == len(sphere["texts"]) == 19
    for point in [*sphere["images"], *sphere["texts"]]:
        assert len(point) == 3 and sum(value ** 2 for value in point) == pytest.approx(1, abs=1e-5)


def test_collapsed_modalities_lie_apart_on_the_sphere(paths: Paths) -> None:
    pairs, apart = some_set(2, 19), 100 * torch.ones(1)
    SyntheticSet(pairs.images + apart, pairs.texts + apart, pairs.similarity, 0.1, 0.1, {}).write(
        paths.set(Cell("repblend", 20)))
    sphere = run(paths, "repblend-20")["sphere"]
    images, texts = torch.tensor(sphere["images"]), torch.tensor(sphere["texts"])
    direction = images.mean(dim=0) - texts.mean(dim=0)
    assert (images @ direction).min() > (texts @ direction).max()


def test_provenance_names_each_input_once_and_the_bytes_repeat(paths: Paths, tmp_path: Path) -> None:
    found = run(paths, "random-20")
    assert sorted(found["provenance"]["inputs"]) == [f"experts/expert-{n:03d}.safetensors" for n in range(3)] + [
        "sets/random-20.safetensors"]
    assert found["provenance"]["command"] == "python -m repblend.stages embed random-20"
    before = sha256(paths.record("embed", "random-20"))
    shutil.rmtree(tmp_path / "records")
    run(paths, "random-20")
    assert sha256(paths.record("embed", "random-20")) == before


def test_a_missing_random_coreset_is_named(paths: Paths) -> None:
    paths.set(Cell("random", 20)).unlink()
    with pytest.raises(ValueError, match=r"random-20\.safetensors: no such file"):
        run(paths, "repblend-20")
    assert not paths.record("embed", "repblend-20").exists()
