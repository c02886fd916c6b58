"""The official release's formats: files made here, in that layout, by plain PyTorch modules."""

import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from repblend.encoders.heads import HeadSpec, apply_head
from repblend.experts.trajectories import TrajectoryStore
from repblend.matching.similarity import FullSimilarity, IdentitySimilarity, LowRankSimilarity
from repblend.matching.step import PerModality
from repblend.matching.synthetic_set import SyntheticSet
from repblend.release.official import export_buffers, import_buffers, read_distilled, write_distilled

HEADS = PerModality(HeadSpec(6, 4), HeadSpec(5, 4))


class OfficialHead(nn.Module):
    """A projection head with its layers in the published order."""

    def __init__(self, spec: HeadSpec) -> None:
        super().__init__()
        self.projection, self.fc = nn.Linear(spec.d_in, spec.d), nn.Linear(spec.d, spec.d)
        self.layer_norm = nn.LayerNorm(spec.d)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        projected = self.projection(x)
        return self.layer_norm(self.fc(nn.functional.gelu(projected)) + projected)


def official_set(num_pairs: int = 5) -> dict:
    draws = torch.Generator().manual_seed(0)
    diagonal, left, right = (torch.randn(*shape, generator=draws) for shape in ((5,), (5, 2), (5, 2)))
    return {"image": torch.randn(num_pairs, 3, 4, 4, generator=draws), "text": torch.randn(5, 7, generator=draws),
            "similarity_params": [nn.Parameter(diagonal), nn.Parameter(left), nn.Parameter(right)],
            "similarity_mat": torch.diag(diagonal) + 3.0 / 2 * left @ right.T,
            "syn_lr_img": torch.tensor(0.1), "syn_lr_txt": torch.tensor(0.2)}


def test_a_distilled_set_is_read_with_the_weight_that_its_matrix_implies(tmp_path: Path) -> None:
    content = official_set()
    torch.save(content, tmp_path / "distilled.pt")
    found = read_distilled(tmp_path / "distilled.pt", {"loss": "wbce"})
    assert found.similarity.alpha == pytest.approx(3.0, rel=1e-5)
    torch.testing.assert_close(found.similarity.matrix(), content["similarity_mat"])
    assert torch.equal(found.images, content["image"]) and torch.equal(found.texts, content["text"])
    assert (found.lr_img, found.lr_txt, found.metadata) == (pytest.approx(0.1), pytest.approx(0.2), {"loss": "wbce"})


@pytest.mark.parametrize("similarity", [
    LowRankSimilarity(torch.tensor([1.0, 2.0]), torch.tensor([[1.0], [0.5]]), torch.tensor([[0.25], [2.0]]), 4.0),
    FullSimilarity(torch.tensor([[1.0, 0.25], [0.5, 2.0]]))])
def test_a_set_of_ours_comes_back_as_it_was(tmp_path: Path, similarity: LowRankSimilarity | FullSimilarity) -> None:
    ours = SyntheticSet(torch.rand(2, 3, 4, 4), torch.rand(2, 7), similarity, 0.25, 0.5, {"loss": "infonce"})
    write_distilled(ours, tmp_path / "distilled.pt")
    back = read_distilled(tmp_path / "distilled.pt", ours.metadata)
    for name, value in (ours.similarity.tensors() | {"images": ours.images, "texts": ours.texts}).items():
        assert torch.equal((back.similarity.tensors() | {"images": back.images, "texts": back.texts})[name], value)
    assert (back.lr_img, back.lr_txt, back.similarity.matrix().tolist()) == (0.25, 0.5, similarity.matrix().tolist())


def test_an_identity_becomes_a_whole_matrix(tmp_path: Path) -> None:
    write_distilled(SyntheticSet(torch.rand(3, 3, 4, 4), torch.rand(3, 7), IdentitySimilarity(3), 0.1, 0.1),
                    tmp_path / "distilled.pt")
    assert torch.equal(read_distilled(tmp_path / "distilled.pt", {}).similarity.matrix(), torch.eye(3))


def official_buffers(folder: Path, num: int, snapshots: int = 3) -> list[list[tuple[OfficialHead, OfficialHead]]]:
    folder.mkdir()
    experts = []
    for number in range(num):
        heads = [(OfficialHead(HEADS.img), OfficialHead(HEADS.txt)) for _ in range(snapshots)]
        for place, side in enumerate(("img", "txt")):
            torch.save([[[value.data for value in pair[place].parameters()] for pair in heads]],
                       folder / f"{side}_replay_buffer_{number}.pt")
        experts.append(heads)
    return experts


def test_heads_of_imported_buffers_compute_what_the_official_modules_do(tmp_path: Path) -> None:
    experts = official_buffers(tmp_path / "buffers", 11)
    assert import_buffers(tmp_path / "buffers", tmp_path / "experts", {"origin": "official"}) == 11
    store, draws = TrajectoryStore(tmp_path / "experts"), torch.Generator().manual_seed(1)
    assert (len(store), store.num_snapshots) == (11, 3)
    for number in (0, 2, 10):  # in the order of their numbers, not of their names
        for side, place in (("img", 0), ("txt", 1)):
            spec, flat = getattr(HEADS, side), getattr(store.snapshot(number, 2), side)
            rows = torch.randn(4, spec.d_in, generator=draws)
            torch.testing.assert_close(apply_head(rows, flat, spec), experts[number][2][place](rows))


def test_buffers_come_back_from_our_trajectories_bit_for_bit(tmp_path: Path) -> None:
    official_buffers(tmp_path / "buffers", 2)
    import_buffers(tmp_path / "buffers", tmp_path / "experts", {})
    export_buffers(TrajectoryStore(tmp_path / "experts"), HEADS, tmp_path / "again")
    for path in (tmp_path / "buffers").iterdir():
        before, after = (torch.load(folder / path.name, weights_only=True)
                         for folder in (tmp_path / "buffers", tmp_path / "again"))
        for one, other in zip(before[0], after[0], strict=True):
            assert all(torch.equal(*pair) for pair in zip(one, other, strict=True))


def test_files_that_are_something_else_are_named(tmp_path: Path) -> None:
    path = tmp_path / "distilled.pt"
    with pytest.raises(ValueError, match="no such file"):
        read_distilled(path, {})
    path.write_bytes(b"not a file of tensors")
    with pytest.raises(ValueError, match="expected a file of tensors"):
        read_distilled(path, {})
    torch.save({"image": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="lacks text, similarity_params"):
        read_distilled(path, {})
    torch.save(official_set(num_pairs=4), path)
    with pytest.raises(ValueError, match="4 images but 5 texts"):
        read_distilled(path, {})
    torch.save(official_set() | {"similarity_mat": torch.ones(5, 5)}, path)
    with pytest.raises(ValueError, match="mixes two sets"):
        read_distilled(path, {})


class Code:
    def __reduce__(self) -> tuple:
        return print, ("run",)


def test_code_in_a_file_is_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(Code(), tmp_path / "distilled.pt", pickle_module=pickle)
    with pytest.raises(ValueError, match="holds code is not read"):
        read_distilled(tmp_path / "distilled.pt", {})
    assert capsys.readouterr().out == ""


def test_incomplete_buffers_are_named_and_leave_nothing(tmp_path: Path) -> None:
    official_buffers(tmp_path / "buffers", 2)
    with pytest.raises(ValueError, match="found none"):
        import_buffers(tmp_path, tmp_path / "experts", {})
    torch.save([[[torch.zeros(2)]]], tmp_path / "buffers" / "txt_replay_buffer_1.pt")
    with pytest.raises(ValueError, match=r"txt_replay_buffer_1.pt: snapshots of its trajectories \[1\], but \[3\]"):
        import_buffers(tmp_path / "buffers", tmp_path / "experts", {})
    (tmp_path / "buffers" / "txt_replay_buffer_1.pt").unlink()
    with pytest.raises(ValueError, match="only one side of buffer 1"):
        import_buffers(tmp_path / "buffers", tmp_path / "experts", {})
    assert not (tmp_path / "experts").exists()
