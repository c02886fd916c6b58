"""Stages that import the official release's files: what was exported comes back, and gives the same numbers."""

import contextlib
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ruamel.yaml import YAML
from torch.nn import functional as F
from typer.testing import CliRunner

from repblend.data.features import read_features
from repblend.encoders.heads import HeadSpec, apply_head
from repblend.evaluation.protocol import Evaluator
from repblend.experts.trajectories import TrajectoryStore
from repblend.grid import Cell
from repblend.params import Params, read_params
from repblend.records.base import Imported
from repblend.records.outputs import Distilled
from repblend.release.__main__ import main as export_main
from repblend.runtime.context import Paths
from repblend.stages import distill, encode, encoder_experts, evaluate, experts, prepare
from repblend.stages.pipeline import Context
from repblend.store import SOURCES, fingerprint, read_json, sha256
from repblend.tensors import read_tensors
from repro.cli import app
from tests.locked import lock_everything
from tests.tiny import ROOT, tiny_content

SECTION = (ROOT / "repro/README.md").read_text().split("## The authors' files")[1].split("\n## ")[0]
CELL = Cell("repblend", 6)
EXPERTS = {"num": 2, "min_steps": 0, "epochs": 4, "batch_size": 4, "snapshots_every": 3}
MATCHING = {"iterations": 2, "segments": 1, "inner_steps": 2, "batch_size": 3, "expert_span": 1, "max_start": 1,
            "validate_every": 1, "validation_seeds": 1, "checkpoint_every": 2}
Change = Callable[[dict[str, Any]], None]


def write_params(folder: Path, change: Change = lambda content: None) -> Params:
    """Write parameters as a user would, so that what a file can say is what is tested."""
    content = tiny_content()
    content["experts"] |= EXPERTS
    content["distill"]["common"] |= MATCHING
    content["distill"]["cells"][str(CELL)] = {}
    change(content)
    with (folder / "params.yaml").open("w") as file:
        YAML().dump(content, file)
    return read_params(folder / "params.yaml")


def run(module: Any, folder: Path, cell: Cell | None = None) -> None:
    name = module.__name__.rpartition(".")[2].replace("_", "-")
    paths = Paths(folder)
    module.run(Context(name, cell, read_params(paths.params), paths))


def in_this_process(command: list[str], cwd: Path, **_: Any) -> subprocess.CompletedProcess:
    """Do what `repro export` starts a process for, without the seconds that torch takes to start."""
    assert command[1:4] == ["-m", "repblend.release", "official"]
    with contextlib.chdir(cwd):
        return subprocess.CompletedProcess(command, export_main(command[3:]))


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace where everything was computed, and `official/` with its experts and its set in official files, which
    the README's commands wrote.
    """
    folder = tmp_path_factory.mktemp("original")
    write_params(folder)
    for module in (prepare, encode, experts):
        run(module, folder)
    for module in (distill, evaluate):
        run(module, folder, CELL)
    lock_everything(folder)
    (folder / "dvc.yaml").touch()
    (folder / "official").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder / "official")
        patch.setattr("repro.run.subprocess.run", in_this_process)
        for command in re.findall(r"^repro (export .+)$", SECTION, re.MULTILINE):
            done = CliRunner().invoke(app, command.replace("repblend-100", str(CELL)).split())
            assert done.exit_code == 0, done.output
    return folder


@pytest.fixture
def newcomer(original: Path, tmp_path: Path) -> Path:
    """A workspace with the data and features of the original, and its official files beside it."""
    for name in ("data", "features", "official"):
        (tmp_path / name).symlink_to(original / name)
    return tmp_path


def digest_of_buffers(folder: Path) -> str:
    """The SHA-256 as the README defines it."""
    names = [f"{side}_replay_buffer_{number}.pt" for number in range(2) for side in ("img", "txt")]
    return fingerprint({name: sha256(folder / name) for name in names})


def imports_experts(original: Path, section: str = "experts", **changes: Any) -> Change:
    folder = original / "official/buffers"
    source = {"path": "official/buffers", "sha256": digest_of_buffers(folder)} | changes
    return lambda content: content[section].update(
        import_from={key: value for key, value in source.items() if value is not None})


def imports_set(original: Path, **changes: Any) -> Change:
    source = {"path": "official/distilled_0.pt", "sha256": sha256(original / "official/distilled_0.pt"),
              "loss": "infonce", "temperature": 0.07} | changes
    return lambda content: content["distill"]["cells"].update({str(CELL): {"import_from": {
        key: value for key, value in source.items() if value is not None}}})


def test_imported_experts_are_those_that_were_exported(original: Path, newcomer: Path) -> None:
    write_params(newcomer, imports_experts(original))
    run(experts, newcomer)
    for number in range(2):
        name = f"experts/expert-{number:03d}.safetensors"
        before, after = (read_tensors(folder / name)[0] for folder in (original, newcomer))
        assert before.keys() == after.keys() and all(before[key].equal(after[key]) for key in before)
    trained, taken = (read_json(Paths(folder).record("experts")) for folder in (original, newcomer))
    for split in ("val", "test"):
        assert [each[split] for each in taken["experts"]] == [each[split] for each in trained["experts"]]
    assert taken["test"] == trained["test"] and trained["test"]["std"] is not None
    assert taken["imported"] == {"sha256": digest_of_buffers(original / "official/buffers"), "files": {
        path.name: sha256(path) for path in (original / "official/buffers").iterdir()}}
    assert trained["imported"] is None


def test_an_experts_own_recall_is_that_of_its_last_heads_on_the_test_split(original: Path) -> None:
    paths, test = Paths(original), read_features(Paths(original).features).test
    (img_dim, txt_dim), width = (test.images.shape[1], test.texts.shape[1]), read_params(paths.params).heads.width
    for number, stored in enumerate(read_json(paths.record("experts"))["experts"]):
        last = TrajectoryStore(paths.experts).last(number)
        images, texts = (apply_head(rows, flat, HeadSpec(size, width)) for rows, flat, size in (
            (test.images, last.img, img_dim), (test.texts, last.txt, txt_dim)))
        scores = F.normalize(texts, dim=1) @ F.normalize(images, dim=1).mT
        own = scores[torch.arange(len(texts)), test.text_to_image]
        found = 100 * ((scores > own[:, None]).sum(dim=1) < 5).double().mean()
        assert stored["test"]["ir_at_5"] == pytest.approx(found.item())


def test_what_follows_imported_experts_is_what_follows_the_originals(original: Path, newcomer: Path) -> None:
    write_params(newcomer, imports_experts(original))
    run(experts, newcomer)
    run(distill, newcomer, CELL)
    assert Paths(newcomer).set(CELL).read_bytes() == Paths(original).set(CELL).read_bytes()


def test_an_imported_set_gives_exactly_the_evaluation_of_the_original(original: Path, newcomer: Path) -> None:
    write_params(newcomer, imports_set(original))
    run(distill, newcomer, CELL)
    run(evaluate, newcomer, CELL)
    before, after = (read_tensors(Paths(folder).set(CELL)) for folder in (original, newcomer))
    assert before[0].keys() == after[0].keys() and all(before[0][key].equal(after[0][key]) for key in before[0])
    assert before[1]["similarity"] == after[1]["similarity"] and after[1]["set"]["imported"] == "distilled_0.pt"
    first, second = (read_json(Paths(folder).record("evaluate", CELL)) for folder in (original, newcomer))
    for content in (first, second):
        del content["provenance"]
    assert first == second


def test_the_record_of_an_imported_set_says_so(original: Path, newcomer: Path) -> None:
    write_params(newcomer, imports_set(original))
    run(distill, newcomer, CELL)
    path, other = (Paths(folder).record("distill", CELL) for folder in (newcomer, original))
    found, before = Distilled.read(path), Distilled.read(other)
    digest = sha256(original / "official/distilled_0.pt")
    assert found.imported == Imported(files={"distilled_0.pt": digest}, sha256=digest) and before.imported is None
    assert found.num_pairs == CELL.budget - 1 and found.course is None and before.course is not None
    assert not (path.parent / "loss.csv").exists()
    assert (path.parent / "similarity.npy").read_bytes() == (other.parent / "similarity.npy").read_bytes()
    for one, known in zip(found.specimens, before.specimens, strict=True):
        assert one == known.model_copy(update={"initial_caption": None}) and one.initial_png is None
        picture = one.distilled_png
        assert (path.parent / picture).read_bytes() == (other.parent / picture).read_bytes()


def test_an_absolute_path_is_an_absolute_path(original: Path, newcomer: Path) -> None:
    (newcomer / "official").unlink()
    write_params(newcomer, imports_set(original, path=str(original / "official/distilled_0.pt")))
    run(distill, newcomer, CELL)
    assert Paths(newcomer).set(CELL).is_file()


def test_a_profiles_workspace_names_files_from_the_clone(original: Path, newcomer: Path) -> None:
    profile = newcomer / "profiles/mine"
    for folder in (newcomer / SOURCES, profile):
        folder.mkdir(parents=True)
    for name in ("data", "features"):
        (profile / name).symlink_to(original / name)
    write_params(profile, imports_set(original))
    run(distill, profile, CELL)
    assert Paths(profile).set(CELL).is_file()


def test_without_a_hash_the_stage_says_which_one_to_add(original: Path, newcomer: Path) -> None:
    write_params(newcomer, imports_experts(original, sha256=None))
    digest = digest_of_buffers(original / "official/buffers")
    with pytest.raises(ValueError, match=rf"experts\.import_from\.sha256: not given.*{digest}.*add it to params"):
        run(experts, newcomer)
    assert not (newcomer / "experts").exists()


def test_a_set_asks_for_its_loss_and_temperature_and_nothing_is_guessed(original: Path, tmp_path: Path) -> None:
    for absent, said in ((("loss", "temperature"), "loss and temperature: not given"), (("loss",), "loss: not given"),
                         (("temperature",), "temperature: not given")):
        with pytest.raises(ValueError, match=said):
            write_params(tmp_path, imports_set(original, **dict.fromkeys(absent)))
    with pytest.raises(ValueError, match=r"import_from\.loss"):
        write_params(tmp_path, imports_set(original, loss="mean"))
    with pytest.raises(ValueError, match="experts"):  # which have no such loss
        write_params(tmp_path, imports_experts(original, loss="infonce"))


def test_students_train_with_what_the_import_says(original: Path, newcomer: Path,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    write_params(newcomer, imports_set(original, loss="wbce", temperature=0.5))
    run(distill, newcomer, CELL)
    seen = []
    train = Evaluator.evaluate_set
    monkeypatch.setattr(Evaluator, "evaluate_set", lambda *given: seen.append(given[4]) or train(*given))
    run(evaluate, newcomer, CELL)
    run(evaluate, original, CELL)
    assert [(recipe.loss, recipe.temperature) for recipe in seen] == [("wbce", 0.5), ("infonce", 0.07)]


def test_a_file_of_no_use_is_refused_before_a_hash_is_asked_for(original: Path, newcomer: Path) -> None:
    def another_size(content: dict[str, Any]) -> None:
        imports_set(original, sha256=None)(content)
        content["data"]["image_size"] = 64

    write_params(newcomer, another_size)
    with pytest.raises(ValueError, match=r"image sides \(32, 32\), expected \(64, 64\)"):
        run(distill, newcomer, CELL)

    def another_width(content: dict[str, Any]) -> None:
        imports_experts(original, sha256=None)(content)
        content["heads"]["width"] = 8

    write_params(newcomer, another_width)
    with pytest.raises(ValueError, match=r"projection.weight is \(16, 1280\), expected \(8, 1280\)"):
        run(experts, newcomer)
    write_params(newcomer, imports_set(original, sha256=None))
    with pytest.raises(ValueError, match=r"import_from\.sha256: not given"):
        run(distill, newcomer, CELL)
    assert not Paths(newcomer).set(CELL).exists() and not (newcomer / "experts").exists()


def test_a_hash_that_is_given_is_checked_before_the_file_is_read(original: Path, newcomer: Path,
                                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    write_params(newcomer, imports_set(original, sha256="0" * 64))
    monkeypatch.setattr(distill, "read_distilled", lambda *_: pytest.fail("a file that was not meant is not read"))
    with pytest.raises(ValueError, match=r"sha256: expected 0+, but"):
        run(distill, newcomer, CELL)


def test_files_that_are_not_the_ones_meant_are_refused(original: Path, newcomer: Path) -> None:
    write_params(newcomer, imports_set(original, sha256="0" * 64))
    with pytest.raises(ValueError, match=rf"distill\.cells\.{CELL}\.import_from\.sha256: expected 0+, but"):
        run(distill, newcomer, CELL)
    assert not Paths(newcomer).set(CELL).exists()


@pytest.mark.parametrize(("section", "key", "value", "message"), [
    ("heads", "width", 8, r"projection.weight is \(16, 1280\), expected \(8, 1280\)"),
    ("experts", "num", 3, "2 trajectories, expected 3"),
])
def test_experts_that_do_not_fit_the_parameters_are_refused(original: Path, newcomer: Path, section: str, key: str,
                                                            value: int, message: str) -> None:
    def change(content: dict[str, Any]) -> None:
        imports_experts(original)(content)
        content[section][key] = value

    write_params(newcomer, change)
    with pytest.raises(ValueError, match=message):
        run(experts, newcomer)
    assert not (newcomer / "experts").exists()


def test_a_set_of_another_budget_or_size_is_refused(original: Path, newcomer: Path) -> None:
    def another_budget(content: dict[str, Any]) -> None:
        imports_set(original)(content)
        content["distill"]["cells"]["repblend-9"] = content["distill"]["cells"][str(CELL)]

    write_params(newcomer, another_budget)
    with pytest.raises(ValueError, match="pairs 5, expected 8 by the budget of repblend-9"):
        run(distill, newcomer, Cell("repblend", 9))

    def another_size(content: dict[str, Any]) -> None:
        imports_set(original)(content)
        content["data"]["image_size"] = 64

    write_params(newcomer, another_size)
    with pytest.raises(ValueError, match=r"image sides \(32, 32\), expected \(64, 64\) by data.image_size"):
        run(distill, newcomer, CELL)


def test_buffers_of_an_encoder_that_they_cannot_hold_are_refused_both_ways(
        original: Path, newcomer: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    write_params(newcomer, imports_experts(original, "encoder_experts"))
    with pytest.raises(ValueError, match="'efficientnet_lite0' has BatchNorm layers"):
        run(encoder_experts, newcomer)
    monkeypatch.chdir(newcomer)
    assert export_main(["official", "encoder-experts", "exported"]) == 1
    assert "'efficientnet_lite0' has BatchNorm layers" in capsys.readouterr().err


def test_an_export_leaves_other_things_alone(original: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
                                             capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(original)
    (tmp_path / "thesis.txt").write_text("mine")
    for what in ("experts", str(CELL)):
        assert export_main(["official", what, str(tmp_path)]) == 1
    assert (tmp_path / "thesis.txt").read_text() == "mine"
    assert "holds something else (thesis.txt)" in capsys.readouterr().err
    assert export_main(["official", "experts"]) == 2 and export_main(["official", "experts", "official/buffers"]) == 0


def test_the_readmes_parameters_are_understood(tmp_path: Path) -> None:
    example = YAML(typ="safe").load(re.search(r"```yaml\n(.+?)```", SECTION, re.DOTALL)[1])

    def change(content: dict[str, Any]) -> None:
        content["experts"] |= example["experts"]
        content["distill"]["cells"] |= example["distill"]["cells"]

    params = write_params(tmp_path, change)
    assert params.experts.import_from.path == "downloads/buffers"
    source = params.distill.settings("repblend-100").import_from
    assert (source.path, source.loss, source.temperature) == ("downloads/distilled_3000.pt", "wbce", 0.07)
    assert params.distill.settings("repblend-50").import_from is None


@pytest.mark.parametrize("source", [{}, {"path": 1}, {"path": "x", "sha256": "abc"}, {"path": "x", "md5": "y"}, "x"])
def test_malformed_parameters_are_named(tmp_path: Path, source: object) -> None:
    with pytest.raises(ValueError, match=r"experts\.import_from"):
        write_params(tmp_path, lambda content: content["experts"].update(import_from=source))
