"""Switches of `params.yaml` reach what they switch, in stages on a tiny workspace."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from repblend.data.features import read_features
from repblend.experts.trajectories import TrajectoryStore
from repblend.grid import Cell
from repblend.matching.synthetic_set import SyntheticSet
from repblend.params import Params
from repblend.runtime.context import Paths
from repblend.stages import distill, encode, evaluate, experts, prepare
from repblend.stages.distill import Problem, pose
from repblend.stages.pipeline import Context
from repblend.store import read_json, sha256
from tests.tiny import tiny_content

CELL = Cell("repblend", 50)
SETTINGS = {"iterations": 2, "segments": 1, "inner_steps": 2, "batch_size": 4, "expert_span": 1, "max_start": 1,
            "validate_every": 1, "validation_seeds": 1, "checkpoint_every": 5}


def context(stage: str, folder: Path, **changes: dict[str, Any]) -> Context:
    """A stage with 12 training images; `changes` are keys of the sections they are named after."""
    content = tiny_content()
    content["encode"]["views"]["num"] = 3
    content["experts"] |= {"num": 1, "min_steps": 0, "epochs": 2, "batch_size": 4, "snapshots_every": 2}
    content["distill"]["common"] |= SETTINGS | changes.pop("distill", {})
    for section, values in changes.items():
        content[section] |= values
    if "heads" in changes:
        content["encoder_experts"]["head_dropout"] = content["heads"]["dropout"]
    content["distill"]["cells"][str(CELL)] = {}
    cell = CELL if stage in ("distill", "evaluate") else None
    return Context(stage, cell, Params.model_validate(content), Paths(folder))


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, features, one expert, and a distilled set."""
    folder = tmp_path_factory.mktemp("switches")
    for stage in (prepare, encode, experts, distill):
        stage.run(context(stage.__name__.rpartition(".")[2], folder))
    return folder


@pytest.fixture(autouse=True)
def _few_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A set of six pairs under the name of a budget of 50: there are only 12 images."""
    monkeypatch.setattr("repblend.methods.Method.num_pairs", lambda method, budget: 6)


@pytest.fixture(scope="module", autouse=True)
def _few_pairs_of_the_module() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("repblend.methods.Method.num_pairs", lambda method, budget: 6)
        yield


def trained(workspace: Path, folder: Path, **changes: Any) -> TrajectoryStore:
    """Experts trained on the workspace's features with other parameters."""
    for name in ("data", "features"):
        (folder / name).symlink_to(workspace / name)
    experts.run(context("experts", folder, **changes))
    return TrajectoryStore(folder / "experts")


@pytest.mark.parametrize("changes", [{"heads": {"dropout": 0.3}}, {"experts": {"text_mode": "train"}},
                                     {"experts": {"cached_views": 100}}, {"experts": {"views": "fresh"}}],
                         ids=["dropout", "text mode", "cached views", "fresh views"])
def test_experts_train_otherwise_from_the_same_start(workspace: Path, tmp_path: Path, changes: dict) -> None:
    plain, changed = TrajectoryStore(workspace / "experts"), trained(workspace, tmp_path, **changes)
    assert torch.equal(plain.snapshot(0, 0).txt, changed.snapshot(0, 0).txt)
    assert not torch.equal(plain.last(0).img, changed.last(0).img)


def test_fresh_views_are_made_as_the_parameters_of_views_say(workspace: Path, tmp_path: Path) -> None:
    """Though not one cached feature depends on them here."""
    operations = {"num_ops": 2, "magnitude": 5, "ops": ["Rotate", "Equalize"]}
    views = tiny_content()["encode"]["views"] | {"crop": "published"}
    seen = []
    for number, changes in enumerate([views, views, views | {"rand_augment": operations}]):
        (tmp_path / str(number)).mkdir()
        store = trained(workspace, tmp_path / str(number), experts={"views": "fresh"}, encode={"views": changes})
        seen.append(store.last(0).img)
    assert torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[0], seen[2])
    provenance = read_json(Paths(tmp_path / "2").record("experts"))["provenance"]
    assert provenance["parameters"]["encode"]["views"]["rand_augment"] == operations
    assert "data/prepared/manifest.json" in provenance["inputs"]


def test_a_snapshot_per_epoch_is_one_every_so_many_steps(workspace: Path, tmp_path: Path) -> None:
    pairs = len(read_features(workspace / "features").train_texts)
    per_epoch = trained(workspace, tmp_path, experts={"snapshots_every": "epoch", "epochs": 3})
    assert per_epoch.num_snapshots == 4 and len(per_epoch.metadata(0)["curves"]["loss"]) == 3
    other = tmp_path / "other"
    other.mkdir()
    in_steps = trained(workspace, other, experts={"snapshots_every": pairs // 4, "epochs": 3})
    assert sha256(tmp_path / "experts/expert-000.safetensors") == sha256(other / "experts/expert-000.safetensors")
    assert in_steps.num_snapshots == 4


def distilled(workspace: Path, folder: Path, **changes: Any) -> SyntheticSet:
    shutil.copytree(workspace, folder, dirs_exist_ok=True)
    distill.run(context("distill", folder, **changes))
    return SyntheticSet.read(Paths(folder).set(CELL))


def parts_of(found: SyntheticSet) -> dict[str, list[torch.Tensor]]:
    """The tensors of a set by what `learned` calls them."""
    return {"images": [found.images], "texts": [found.texts], "similarity": [*found.similarity.tensors().values()],
            "rates": [torch.tensor([found.lr_img, found.lr_txt])]}


@pytest.mark.parametrize("learned", [["texts"], ["images"], ["similarity"], ["rates"], ["similarity", "rates"]],
                         ids="+".join)
def test_a_set_differs_from_the_pairs_that_it_started_from_in_what_is_learned_alone(
        workspace: Path, tmp_path: Path, learned: list[str]) -> None:
    changes = {"choose": "last", "learned": learned}
    start = pose(CELL, context("distill", workspace, distill=changes).params.distill.settings(str(CELL)),
                 context("distill", workspace, distill=changes).params, Paths(workspace))
    initial = parts_of(start.synthetic_set(start.distillation().learned.tensors, {}))
    for part, values in parts_of(distilled(workspace, tmp_path, distill=changes)).items():
        same = all(torch.equal(value, before) for value, before in zip(values, initial[part], strict=True))
        assert same != (part in learned), part


def test_the_whole_is_learned_by_default_to_the_same_bytes(workspace: Path, tmp_path: Path) -> None:
    changes = {"learned": ["rates", "similarity", "texts", "images"]}
    distilled(workspace, tmp_path, distill=changes)
    assert sha256(Paths(tmp_path).set(CELL)) == sha256(Paths(workspace).set(CELL))


def test_dropout_changes_a_distillation_and_so_do_different_masks(workspace: Path, tmp_path: Path) -> None:
    dropping = {"heads": {"dropout": 0.3}}
    sets = [distilled(workspace, tmp_path / "same", **dropping, distill={"choose": "last"}),
            distilled(workspace, tmp_path / "different", **dropping,
                      distill={"choose": "last", "dropout_masks": "different"}),
            distilled(workspace, tmp_path / "none", distill={"choose": "last"})]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert not torch.equal(sets[one].images, sets[other].images)
    losses = [read_json(Paths(tmp_path / name).record("distill", CELL))["course"]["curves"]["matching_loss"][0]
              for name in ("same", "different", "none")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)  # the first pass has the same draws
    assert losses[0] != pytest.approx(losses[2], rel=1e-3)


@pytest.mark.parametrize(("choose", "column"), [("best-validation", "val_mean_recall"),
                                                ("best-test", "test_mean_recall"), ("last", "iteration")])
def test_the_result_is_the_iteration_that_is_asked_for(workspace: Path, tmp_path: Path, choose: str,
                                                       column: str) -> None:
    result = distilled(workspace, tmp_path, distill={"choose": choose})
    columns = read_json(Paths(tmp_path).record("distill", CELL))["course"]["checkpoints"]
    best = columns["iteration"][columns[column].index(max(columns[column]))]
    assert result.metadata["chosen_iteration"] == best
    assert (columns["test_mean_recall"] is not None) == (choose == "best-test")


def test_initial_images_and_pairs(workspace: Path) -> None:
    def posed(**changes: str) -> Problem:
        found = context("distill", workspace, distill=changes)
        return pose(CELL, found.params.distill.settings(str(CELL)), found.params, found.paths)

    plain, augmented, anything = posed(), posed(initial_images="augmented"), posed(initial_pairs="any")
    assert augmented.initial_pairs == plain.initial_pairs
    assert not any(torch.equal(*pair) for pair in zip(augmented.initial_images, plain.initial_images, strict=True))
    owners = plain.features.train_image_index
    assert len(owners[plain.initial_pairs].unique()) == 6
    assert set(anything.initial_pairs) <= set(range(len(owners)))
    assert anything.initial_pairs != plain.initial_pairs


def test_students_have_the_dropout_the_batches_and_the_protocol_that_are_asked_for(workspace: Path) -> None:
    def curves(**changes: Any) -> dict:
        evaluate.run(context("evaluate", workspace, **changes))
        return read_json(Paths(workspace).record("evaluate", CELL))

    plain = curves()
    assert plain["protocol"] == "held-out" and plain["protocols"]["last"] is None
    for changes in ({"heads": {"dropout": 0.3}}, {"evaluate": {"batches": "partition"}},
                    {"evaluate": {"candidates": 1}}):
        assert curves(**changes)["curves"] != plain["curves"]
    assert curves(evaluate={"candidates": 10})["curves"] == plain["curves"]
    last = curves(evaluate={"protocol": "last"})
    assert last["protocol"] == "last" and last["curves"] == plain["curves"]
    seeds = last["protocols"]["last"]["seeds"]
    assert [seed["epoch"] for seed in seeds] == [6, 6, 6] and last["protocols"]["last"]["selected_on"] is None
    assert [seed["mean_recall"] for seed in seeds] == [curve[-1] for curve in plain["curves"]["test_mean_recall"]]
