"""Distilled sets in the official release's format: files made here in that layout, and sets of ours there and back."""

import io
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from repblend.matching.similarity import FullSimilarity, IdentitySimilarity, LowRankSimilarity
from repblend.matching.synthetic_set import SyntheticSet
from repblend.released_files import read_distilled, save, write_distilled


def official_set(num_pairs: int = 5, alpha: float = 3.0) -> dict:
    draws = torch.Generator().manual_seed(0)
    diagonal, left, right = (torch.randn(*shape, generator=draws) for shape in ((5,), (5, 2), (5, 2)))
    return {"image": torch.randn(num_pairs, 3, 4, 4, generator=draws), "text": torch.randn(5, 7, generator=draws),
            "similarity_params": [nn.Parameter(diagonal), nn.Parameter(left), nn.Parameter(right)],
            "similarity_mat": torch.diag(diagonal) + left @ right.T * alpha / 2.0,
            "syn_lr_img": torch.tensor(0.1), "syn_lr_txt": torch.tensor(0.2)}


@pytest.mark.parametrize("alpha", [3.0, 1.0, 0.01])  # those of the published scripts
def test_a_distilled_set_is_read_with_the_weight_that_its_matrix_implies(tmp_path: Path, alpha: float) -> None:
    content = official_set(alpha=alpha)
    torch.save(content, tmp_path / "distilled.pt")
    found = read_distilled(tmp_path / "distilled.pt", {"loss": "wbce"})
    assert found.similarity.alpha == alpha
    torch.testing.assert_close(found.similarity.matrix(), content["similarity_mat"])
    assert torch.equal(found.images, content["image"]) and torch.equal(found.texts, content["text"])
    assert (found.lr_img, found.lr_txt, found.metadata) == (pytest.approx(0.1), pytest.approx(0.2), {"loss": "wbce"})


def random_low_rank(alpha: float, seed: int) -> LowRankSimilarity:
    draws = torch.Generator().manual_seed(seed)
    shapes = ((9,), (9, 3), (9, 3))
    return LowRankSimilarity(*(torch.randn(*shape, generator=draws) for shape in shapes), alpha)


@pytest.mark.parametrize("similarity", [
    LowRankSimilarity(torch.tensor([1.0, 2.0]), torch.tensor([[1.0], [0.5]]), torch.tensor([[0.25], [2.0]]), 4.0),
    FullSimilarity(torch.tensor([[1.0, 0.25], [0.5, 2.0]])),
    *(random_low_rank(alpha, seed) for seed, alpha in enumerate([0.01, 1.0, 3.0, 0.123, 7.25, 1e-4, 12.5]))])
def test_a_set_of_ours_comes_back_as_it_was(tmp_path: Path, similarity: LowRankSimilarity | FullSimilarity) -> None:
    pairs = len(similarity.matrix())
    ours = SyntheticSet(torch.rand(pairs, 3, 4, 4), torch.rand(pairs, 7), similarity, 0.25,
                        torch.tensor(0.1).item(), {"loss": "infonce"})
    write_distilled(ours, tmp_path / "distilled.pt")
    back = read_distilled(tmp_path / "distilled.pt", ours.metadata)
    back.write(tmp_path / "back.safetensors")
    ours.write(tmp_path / "ours.safetensors")
    assert (tmp_path / "back.safetensors").read_bytes() == (tmp_path / "ours.safetensors").read_bytes()


def test_what_came_from_an_official_file_goes_back_into_one_bit_for_bit(tmp_path: Path) -> None:
    content = official_set()
    torch.save(content, tmp_path / "before.pt")
    write_distilled(read_distilled(tmp_path / "before.pt", {}), tmp_path / "after.pt")
    after = torch.load(tmp_path / "after.pt", weights_only=True)
    assert list(after) == list(content)
    for key in ("image", "text", "syn_lr_img", "syn_lr_txt"):
        assert torch.equal(after[key], content[key]) and after[key].dtype == content[key].dtype
    assert all(torch.equal(*pair) for pair in zip(after["similarity_params"], content["similarity_params"],
                                                  strict=True))
    torch.testing.assert_close(after["similarity_mat"], content["similarity_mat"])  # the order of factors may differ


def test_a_set_gives_the_same_bytes_under_any_name(tmp_path: Path) -> None:
    ours = SyntheticSet(torch.rand(2, 3, 4, 4), torch.rand(2, 7), IdentitySimilarity(2), 0.1, 0.1)
    for name in ("one.pt", "another one.pt"):
        write_distilled(ours, tmp_path / name)
    assert (tmp_path / "one.pt").read_bytes() == (tmp_path / "another one.pt").read_bytes()


def test_an_identity_becomes_a_whole_matrix(tmp_path: Path) -> None:
    write_distilled(SyntheticSet(torch.rand(3, 3, 4, 4), torch.rand(3, 7), IdentitySimilarity(3), 0.1, 0.1),
                    tmp_path / "distilled.pt")
    assert torch.equal(read_distilled(tmp_path / "distilled.pt", {}).similarity.matrix(), torch.eye(3))


NAN = torch.full((5, 7), float("nan"))


@pytest.mark.parametrize(("changes", "message"), [
    ({"text": None}, "text holds NoneType"),
    ({"text": torch.zeros(4, 7)}, r"\(5, 3, 4, 4\) and text \(4, 7\)"),
    ({"text": NAN}, "text holds NaN or infinity"),
    ({"syn_lr_img": torch.tensor(-0.1)}, "syn_lr_img is -0.1"),
    ({"similarity_mat": torch.ones(5, 5)}, "mixes two sets"),
    ({"similarity_mat": torch.ones(4, 4)}, r"similarity_mat has shape \(4, 4\)"),
    ({"similarity_params": [torch.ones(5), torch.ones(5, 2)]}, r"similarity_params have shapes \[\(5,\), \(5, 2\)\]"),
    ({"similarity_params": [torch.ones(5), torch.ones(5, 2), torch.ones(5, 3)]}, "expected a diagonal"),
    ({"similarity_params": [torch.ones(5), torch.ones(5, 0), torch.ones(5, 0)]}, r"\(5, 0\), so no number"),
    ({"image": torch.ones(5, 3, 0, 0)}, "image has shape .* so no number"),
])
def test_a_set_whose_parts_are_wrong_is_refused(tmp_path: Path, changes: dict, message: str) -> None:
    torch.save(official_set() | changes, tmp_path / "distilled.pt")
    with pytest.raises(ValueError, match=message):
        read_distilled(tmp_path / "distilled.pt", {})


def test_files_that_are_something_else_are_named(tmp_path: Path) -> None:
    path = tmp_path / "distilled.pt"
    with pytest.raises(ValueError, match="no such file"):
        read_distilled(path, {})
    path.write_bytes(b"not a file of tensors")
    with pytest.raises(ValueError, match=r"distilled\.pt: expected a whole file of tensors"):
        read_distilled(path, {})
    torch.save({"image": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="lacks text, similarity_params"):
        read_distilled(path, {})
    torch.save([1], path)
    with pytest.raises(ValueError, match="lacks image"):
        read_distilled(path, {})


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_truncated_file_is_refused(tmp_path: Path, share: float) -> None:
    path = tmp_path / "distilled.pt"
    torch.save(official_set(), path)
    path.write_bytes(path.read_bytes()[:int(share * path.stat().st_size)])
    with pytest.raises(ValueError, match=r"distilled\.pt: expected a whole file of tensors.*fetch it again"):
        read_distilled(path, {})


class Code:
    def __reduce__(self) -> tuple:
        return print, ("run",)


def hostile_archive() -> bytes:
    """A well-formed archive of PyTorch whose pickle runs something."""
    plain, hostile = io.BytesIO(), io.BytesIO()
    torch.save({"image": torch.zeros(2)}, plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(hostile, "w") as target:
        for name in source.namelist():
            target.writestr(name, pickle.dumps({"image": Code()}, 2) if name.endswith(".pkl") else source.read(name))
    return hostile.getvalue()


@pytest.mark.parametrize("content", [pickle.dumps(Code(), 2), hostile_archive()], ids=["plain pickle", "archive"])
def test_code_in_a_file_is_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes) -> None:
    (tmp_path / "distilled.pt").write_bytes(content)
    with pytest.raises(ValueError, match="holds code is not read"):
        read_distilled(tmp_path / "distilled.pt", {})
    assert capsys.readouterr().out == ""


def test_the_hostile_archive_does_run_where_nothing_refuses_it(tmp_path: Path,
                                                               capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "distilled.pt").write_bytes(hostile_archive())
    torch.load(tmp_path / "distilled.pt", weights_only=False)
    assert "run" in capsys.readouterr().out


class Breaking(io.FileIO):
    """A file whose n-th write is interrupted, or fails."""

    def __init__(self, path: Path, turn: int, error: BaseException) -> None:
        super().__init__(path, "wb")
        self.left, self.error = turn, error

    def write(self, data: object) -> int:
        self.left -= 1
        if self.left < 0:
            raise self.error
        return super().write(data)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(143), OSError(28, "No space left on device")],
                         ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("turn", [0, 1, 5, 12])
def test_a_write_that_is_stopped_or_fails_ends_as_what_stopped_it(tmp_path: Path, error: BaseException,
                                                                  turn: int) -> None:
    """PyTorch then speaks of an end of the file at an unexpected place."""
    path = tmp_path / "distilled.pt"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "open", lambda self, *_: Breaking(self, turn, error))
        with pytest.raises(type(error)) as raised:
            save(official_set(), path)
    assert raised.value is error
