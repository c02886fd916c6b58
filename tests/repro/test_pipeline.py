"""What a user brings to a pipeline: what stages depend on, and what containers and clean checkouts see of it."""

import copy
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from repblend.params import Params
from repro.engines.local import LocalRunner
from repro.pipeline import KINDS, MULTIMODAL, Brought, pipeline_for
from repro.profiles import compose
from repro.workspace import inputs_of
from tests.tiny import tiny_content

ROOT = Path(__file__).parents[2]
TEMPLATE, WAY = ROOT / "conf/multimodal.dvc.yaml", PurePosixPath("../..")


@pytest.fixture(scope="module")
def params() -> dict[str, Any]:
    """Parameters that leave no stage out."""
    return compose(ROOT, "openmoji")[1]


def test_a_file_that_a_user_brings_is_a_dependency(params: dict[str, Any]) -> None:
    for brought, expected in ((Path("data/mine/mine_val.json"), "../../data/mine/mine_val.json"),
                              (Path("/sets/mine/mine_val.json"), "/sets/mine/mine_val.json")):
        stages = pipeline_for(TEMPLATE, params, WAY, {"prepare": [brought]})["stages"]
        assert stages["prepare"]["deps"][-1] == expected and expected not in stages["encode"]["deps"]


def test_a_workspaces_pipeline_is_the_roots_with_sources_from_there(params: dict[str, Any]) -> None:
    made, own = (pipeline_for(TEMPLATE, params, PurePosixPath(way), {})["stages"] for way in ("../..", "."))
    assert made.keys() == own.keys()
    for name in own:
        assert {key: value for key, value in made[name].items() if key != "deps"} == {
            key: value for key, value in own[name].items() if key != "deps"}
        assert [dep.removeprefix("../../") for dep in made[name]["deps"]] == own[name]["deps"]
    assert "sets/random-${item.budget}.safetensors" in made["embed-coreset"]["deps"]
    assert {"../../paper/published", "../../benchmarks/efficiency.json", "records/evaluate",
            "records/encode.json"} <= set(made["report"]["deps"])


def test_annotations_of_a_set_of_ones_own_are_what_prepare_depends_on() -> None:
    def brought(data: dict) -> dict:
        content = tiny_content() | {"data": {"image_size": 32, "max_caption_words": 60, "name": "mine"} | data}
        found = KINDS[MULTIMODAL].brought(Params.model_validate(content))
        assert found.folders == ((Path(data["folder"]),))
        return {stage: [*map(str, files)] for stage, files in found.files.items()}

    assert brought({"folder": "data/mine", "annotations": {"val": "held_out.json"}}) == {
        "prepare": ["data/mine/mine_train.json", "data/mine/held_out.json", "data/mine/mine_test.json"]}
    assert brought({"folder": "/sets/mine", "captions": "captions.csv"}) == {"prepare": ["/sets/mine/captions.csv"]}
    assert KINDS[MULTIMODAL].brought(Params.model_validate(tiny_content())) == Brought()


def test_imported_experts_are_what_their_stage_depends_on_and_imported_sets_are_seen(
        tmp_path: Path, params: dict[str, Any]) -> None:
    content = copy.deepcopy(params)
    content["experts"]["import_from"] = {"path": "downloads/buffers"}
    content["encoder_experts"]["import_from"] = {"path": "/elsewhere/lors"}
    content["distill"]["cells"]["repblend-50"] = {"import_from": {
        "path": "downloads/distilled_3000.pt", "loss": "wbce", "temperature": 0.07}}
    found = KINDS[MULTIMODAL].brought(Params.model_validate(content))
    assert found.folders == (Path("downloads/buffers"), Path("/elsewhere/lors"), Path("downloads/distilled_3000.pt"))
    stages = pipeline_for(TEMPLATE, content, WAY, found.files)["stages"]
    assert [stages[name]["deps"][-1] for name in ("experts", "encoder-experts")] == [
        "../../downloads/buffers", "/elsewhere/lors"]
    assert not any("distilled_3000.pt" in dep for stage in stages.values() for dep in stage["deps"])
    (tmp_path / "clone/downloads").mkdir(parents=True)
    (tmp_path / "clone/downloads/distilled_3000.pt").write_text("x")
    LocalRunner().run(tmp_path / "checkout", [], inputs_of(tmp_path / "clone", found.folders))
    assert (tmp_path / "checkout/downloads/distilled_3000.pt").read_text() == "x"


def test_local_encoders_are_seen_by_containers_and_what_encoding_depends_on(params: dict[str, Any]) -> None:
    content = copy.deepcopy(params)
    content["encode"] |= dict.fromkeys(("image_encoder", "text_encoder"), "open_clip:local-dir:/mine/clip")
    content["transfer"]["architectures"] = ["timm:local-dir:/mine/vit", "efficientnet_lite0"]
    found = KINDS[MULTIMODAL].brought(Params.model_validate(content))
    assert found.folders == (Path("/mine/clip"), Path("/mine/vit"))
    stages = pipeline_for(TEMPLATE, content, WAY, found.dependencies)["stages"]
    assert [stages[name]["deps"][-1] for name in ("encode", "transfer-distilled")] == ["/mine/clip", "/mine/vit"]
    assert "/mine/vit" not in stages["encode"]["deps"] and stages["encode"]["deps"].count("/mine/clip") == 1


def test_a_checkout_sees_the_folders_that_git_does_not_have(tmp_path: Path) -> None:
    clone, checkout = tmp_path / "clone", tmp_path / "checkout"
    for folder in (clone / "data/mine", clone / "data/hub"):
        folder.mkdir(parents=True)
    (clone / "data/mine/x").write_text("x")
    LocalRunner().run(checkout, [], inputs_of(clone, [Path("data/mine"), Path("data/absent"), tmp_path]))
    assert (checkout / "data/mine/x").read_text() == "x" and (checkout / "data/hub").is_dir()
    assert sorted(path.name for path in (checkout / "data").iterdir()) == ["hub", "mine"]


def test_a_container_sees_folders_that_it_would_not_find_by_their_name(tmp_path: Path) -> None:
    clone, sibling = tmp_path / "clone", tmp_path / "sibling"
    for folder in (clone / "data/mine", sibling):
        folder.mkdir(parents=True)
    for linked in (clone / "data/linked", tmp_path / "link"):
        linked.symlink_to(sibling)
    assert inputs_of(clone, [Path("data/mine"), Path("data/linked"), Path("data/absent"), tmp_path / "link"]) == {
        Path("data/mine"): clone / "data/mine", Path("data/linked"): sibling, tmp_path / "link": sibling}
    with pytest.raises(ValueError, match=rf"\.\./sibling: leads out of the clone.* {sibling}$"):
        inputs_of(clone, [Path("../sibling")])


def test_no_container_sees_what_a_link_in_the_place_of_the_checkpoints_names(tmp_path: Path) -> None:
    (tmp_path / "src/repblend").mkdir(parents=True)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/hub").symlink_to("/")
    with pytest.raises(ValueError, match=r"data/hub: a link to /, expected a plain file or folder"):
        inputs_of(tmp_path, [])
