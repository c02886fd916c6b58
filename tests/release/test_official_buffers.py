"""Expert buffers in the official release's format: files made here, in that layout, by plain PyTorch modules."""

from pathlib import Path

import pytest
import torch
from torch import nn

from repblend.encoders.heads import HeadSpec, apply_head
from repblend.encoders.image import ImageEncoder
from repblend.experts.trajectories import TrajectoryStore
from repblend.released_files import Layouts, buffer_pairs, export_buffers, import_buffers

HEADS = Layouts(HeadSpec(6, 4), HeadSpec(5, 4))


class OfficialHead(nn.Module):
    """A projection head with its layers in the published order."""

    def __init__(self, spec: HeadSpec) -> None:
        super().__init__()
        self.projection, self.fc = nn.Linear(spec.d_in, spec.d), nn.Linear(spec.d, spec.d)
        self.layer_norm = nn.LayerNorm(spec.d)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        projected = self.projection(x)
        return self.layer_norm(self.fc(nn.functional.gelu(projected)) + projected)


def official_encoder() -> nn.Module:
    """An image encoder without BatchNorm, to six features."""
    return nn.Sequential(nn.Conv2d(3, 5, 3, stride=2), nn.SiLU(), nn.Conv2d(5, 4, 3), nn.AdaptiveAvgPool2d(1),
                         nn.Flatten(), nn.Linear(4, 4))


def official_buffers(folder: Path, num: int, snapshots: int = 3,
                     image_module: type | object = None) -> list[list[tuple[nn.Module, nn.Module]]]:
    """Write buffers of modules with random parameters, one trajectory per pair of files; return the modules."""
    folder.mkdir()
    experts = []
    for number in range(num):
        modules = [(image_module() if image_module else OfficialHead(HEADS.img), OfficialHead(HEADS.txt))
                   for _ in range(snapshots)]
        write_pair(folder, number, modules)
        experts.append(modules)
    return experts


def write_pair(folder: Path, number: int, modules: list[tuple[nn.Module, nn.Module]]) -> None:
    for place, side in enumerate(("img", "txt")):
        torch.save([[[value.detach().cpu() for value in pair[place].parameters()] for pair in modules]],
                   folder / f"{side}_replay_buffer_{number}.pt")


def imported(folder: Path, num: int, target: Path, layouts: Layouts = HEADS) -> TrajectoryStore:
    import_buffers(buffer_pairs(folder), layouts, num, target)
    return TrajectoryStore(target)


def test_heads_of_imported_buffers_compute_what_the_official_modules_do(tmp_path: Path) -> None:
    experts = official_buffers(tmp_path / "buffers", 11)
    store = imported(tmp_path / "buffers", 11, tmp_path / "experts")
    draws = torch.Generator().manual_seed(1)
    assert (len(store), store.num_snapshots) == (11, 3)
    assert store.metadata(10)["imported"] == {"img": "img_replay_buffer_10.pt", "txt": "txt_replay_buffer_10.pt"}
    for number in (0, 2, 10):  # in the order of their numbers, not of their names
        for side, place in (("img", 0), ("txt", 1)):
            spec, flat = getattr(HEADS, side), getattr(store.snapshot(number, 2), side)
            rows = torch.randn(4, spec.d_in, generator=draws)
            torch.testing.assert_close(apply_head(rows, flat, spec), experts[number][2][place](rows))


def test_an_imported_image_encoder_computes_what_the_official_module_does(tmp_path: Path) -> None:
    experts = official_buffers(tmp_path / "buffers", 2, image_module=official_encoder)
    encoder = ImageEncoder(official_encoder(), 4, (0.0,) * 3, (1.0,) * 3)
    store = imported(tmp_path / "buffers", 2, tmp_path / "experts", Layouts(encoder, HEADS.txt))
    images = torch.randn(3, 3, 12, 12, generator=torch.Generator().manual_seed(1))
    for number in range(2):
        torch.testing.assert_close(encoder.encode_with(images, store.snapshot(number, 1).img),
                                   experts[number][1][0](images))


@pytest.mark.parametrize("of_encoders", [False, True])
def test_buffers_come_back_from_our_trajectories_bit_for_bit(tmp_path: Path, of_encoders: bool) -> None:
    official_buffers(tmp_path / "buffers", 2, image_module=official_encoder if of_encoders else None)
    image = ImageEncoder(official_encoder(), 4, (0.0,) * 3, (1.0,) * 3) if of_encoders else HEADS.img
    layouts = Layouts(image, HEADS.txt)
    export_buffers(imported(tmp_path / "buffers", 2, tmp_path / "experts", layouts), layouts, tmp_path / "again")
    names = sorted(path.name for path in (tmp_path / "buffers").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "again").iterdir())
    for name in names:
        before, after = (torch.load(tmp_path / folder / name, weights_only=True) for folder in ("buffers", "again"))
        assert (len(before), len(before[0])) == (len(after), len(after[0])) == (1, 3)
        for one, other in zip(before[0], after[0], strict=True):
            assert all(torch.equal(*pair) for pair in zip(one, other, strict=True))


def test_our_trajectories_come_back_from_buffers_byte_for_byte(tmp_path: Path) -> None:
    official_buffers(tmp_path / "buffers", 2)
    ours = imported(tmp_path / "buffers", 2, tmp_path / "experts")
    export_buffers(ours, HEADS, tmp_path / "exported")
    imported(tmp_path / "exported", 2, tmp_path / "again")
    for path in (tmp_path / "experts").iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()


def test_the_first_experts_are_taken_and_too_few_are_an_error(tmp_path: Path) -> None:
    experts = official_buffers(tmp_path / "buffers", 3)
    store = imported(tmp_path / "buffers", 2, tmp_path / "experts")
    assert len(store) == 2 and torch.equal(store.snapshot(1, 0).img[:24], experts[1][0][0].projection.weight.flatten())
    with pytest.raises(ValueError, match=r"buffers: 3 trajectories, expected 4\. Fetch more buffers"):
        imported(tmp_path / "buffers", 4, tmp_path / "more")
    assert not (tmp_path / "more").exists()


def test_several_trajectories_in_one_file_are_several_experts(tmp_path: Path) -> None:
    official_buffers(tmp_path / "buffers", 2)
    for side in ("img", "txt"):
        paths = [tmp_path / "buffers" / f"{side}_replay_buffer_{number}.pt" for number in range(2)]
        torch.save([torch.load(path, weights_only=True)[0] for path in paths], paths[0])
        paths[1].unlink()
    assert len(imported(tmp_path / "buffers", 2, tmp_path / "experts")) == 2


def test_incomplete_buffers_are_named_and_leave_nothing(tmp_path: Path) -> None:
    official_buffers(tmp_path / "buffers", 2)
    with pytest.raises(ValueError, match="found none"):
        buffer_pairs(tmp_path)
    text = tmp_path / "buffers" / "txt_replay_buffer_1.pt"
    torch.save([torch.load(text, weights_only=True)[0][:1]], text)
    with pytest.raises(ValueError, match=r"txt_replay_buffer_1.pt: snapshots of its trajectories \[1\], but \[3\]"):
        imported(tmp_path / "buffers", 2, tmp_path / "experts")
    text.unlink()
    with pytest.raises(ValueError, match="only one side of buffer 1"):
        buffer_pairs(tmp_path / "buffers")
    assert not (tmp_path / "experts").exists()


@pytest.mark.parametrize(("content", "message"), [
    ({"img": 1}, r"in place of trajectories it has \{'img': 1\}"),
    ([], r"in place of trajectories it has \[\]"),
    ([torch.zeros(2)], "in place of snapshots it has tensor"),
    ([[[torch.zeros(4, 6)] * 3] * 3], r"snapshot 0: 3 parameters, expected 6 \(projection.weight, projection.bias"),
    ([[[torch.zeros(6, 4), *[torch.zeros(4)] * 5]] * 3],
     r"snapshot 0: projection.weight is \(6, 4\), expected \(4, 6\)"),
    ([[[torch.zeros(4, 6), torch.zeros(4), torch.zeros(4, 4), "x", torch.zeros(4), torch.zeros(4)]] * 3],
     r"snapshot 0: fc.bias is str, expected \(4,\)"),
])
def test_a_buffer_of_something_else_is_refused(tmp_path: Path, content: object, message: str) -> None:
    official_buffers(tmp_path / "buffers", 1)
    torch.save(content, tmp_path / "buffers" / "img_replay_buffer_0.pt")
    with pytest.raises(ValueError, match=rf"img_replay_buffer_0\.pt.*{message}"):
        imported(tmp_path / "buffers", 1, tmp_path / "experts")
    assert not (tmp_path / "experts").exists()


def test_experts_that_diverged_or_stand_still_are_refused(tmp_path: Path) -> None:
    modules = official_buffers(tmp_path / "buffers", 1)[0]
    with torch.no_grad():
        modules[1][1].fc.bias[2] = float("inf")
    write_pair(tmp_path / "buffers", 0, modules)
    with pytest.raises(ValueError, match=r"txt_replay_buffer_0\.pt, snapshot 1: a parameter is NaN or infinite"):
        imported(tmp_path / "buffers", 1, tmp_path / "experts")
    write_pair(tmp_path / "buffers", 0, [modules[0]] * 3)
    with pytest.raises(ValueError, match="its first and last snapshots are equal"):
        imported(tmp_path / "buffers", 1, tmp_path / "experts")


def test_a_truncated_buffer_is_refused(tmp_path: Path) -> None:
    official_buffers(tmp_path / "buffers", 1)
    path = tmp_path / "buffers" / "txt_replay_buffer_0.pt"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"txt_replay_buffer_0\.pt: expected a whole file of tensors"):
        imported(tmp_path / "buffers", 1, tmp_path / "experts")
