"""Profiles: what they consist of, and the workspaces that they are run in."""

import csv
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from dvc.repo import Repo
from typer.testing import CliRunner

from repblend.params import Params, read_params, read_yaml
from repblend.store import read_json
from repro import export, profile, run
from repro.cli import app
from repro.compose import compose, differences, shipped
from repro.inputs import link, outside
from repro.kinds import KINDS, MULTIMODAL, Brought
from repro.pipeline import pipeline_for, yaml_text
from repro.profiles import SUITES, Profile, members, names, profile_of, profiles_of
from repro.runner import Engine, Wishes
from repro.workspace import find_root, workspace_environment
from tests import shaped
from tests.end_to_end.workspace import Workspace
from tests.tiny import tiny_content

ROOT = Path(__file__).parents[2]
TINY, FLICKR, CELL = "tiny", "flickr30k", "evaluate-distilled@repblend-100"
SMALL = ("compute.threads=1", "compute.device=cpu", "data.image_size=32", "~data.expected",
         "encode.image_encoder=efficientnet_lite0",
         "encode.text_encoder=all-MiniLM-L6-v2", "encode.views.num=1", "heads.width=16", "experts.num=2",
         "experts.epochs=2", "experts.batch_size=32", "experts.snapshots_every=15", "distill.common.iterations=4",
         "distill.common.inner_steps=2", "distill.common.validate_every=2", "evaluate.num_seeds=2",
         "evaluate.distilled={epochs: 2, scored_intervals: 2}", "transfer.architectures=[]")
"""What makes the profile small enough for a test."""


def declare(root: Path) -> None:
    """Declare one more profile in a clone: the embedded set in tiny."""
    profile = root / "conf/profiles" / f"{TINY}.yaml"
    profile.parent.mkdir(parents=True, exist_ok=True)
    profile.write_text("# @package _global_\n" + yaml_text(tiny_content()))


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Just the files of a clone that a workspace is made of; the working directory."""
    shutil.copyfile(ROOT / "dvc.yaml", tmp_path / "dvc.yaml")
    declare(tmp_path)
    (tmp_path / "src/repblend").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A clone in which one set of the paper's Table 1 was distilled from a small set of Flickr30K's shape, started from
    another folder, and reported.
    """
    made = Workspace.create(tmp_path_factory.mktemp("profiles") / "a clone")
    data = shaped.flickr30k(tmp_path_factory.mktemp("data") / "flickr30k", 100, 8, 8)
    for command in (["profile", FLICKR, f"data.folder={data}", *SMALL], ["run", CELL, "--profile", FLICKR],
                    ["report", "--profile", FLICKR]):
        done = subprocess.run([sys.executable, "-m", "repro", *command], cwd=made.folder / "paper", capture_output=True,
                              text=True, check=False, env=workspace_environment(made.folder))
        assert done.returncode == 0, done.stdout + done.stderr
    return made


def test_the_quickstart_names_stages_of_the_pipeline_one_per_result() -> None:
    with Repo(str(ROOT)) as repo:
        stages = {stage.addressing for stage in repo.index.stages if stage.path_in_repo.startswith("dvc.yaml")}
    named, cells = profile_of(ROOT, "quickstart").results(), read_params(ROOT / "params.yaml").quickstart
    assert set(named) <= stages
    assert len(set(named)) == 1 + len(cells.budgets) * (len(cells.coresets) + len(cells.distilled))
    assert "evaluate-distilled@repblend-100" in named and not any("encoder" in name for name in named)


def test_the_whole_pipeline_is_everything() -> None:
    whole = profile_of(ROOT, "openmoji")
    assert whole.results() == [] and whole.workspace == ROOT


def test_a_suite_is_its_profiles() -> None:
    assert members(ROOT, "paper") == ("flickr30k", "coco", "cc3m")
    with pytest.raises(ValueError, match="--profile paper: expected one profile"):
        profile_of(ROOT, "paper")


def test_an_unknown_profile_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"profile 'flickr': expected one of quickstart, openmoji, .*paper"):
        profiles_of(ROOT, "flickr")


def test_a_workspace_has_its_own_parameters_outputs_and_lock(clone: Workspace) -> None:
    folder = clone.folder / "profiles" / FLICKR
    assert read_params(folder / "params.yaml").heads.width == 16
    assert (folder / "features").is_dir() and (folder / "logs/encode.log").is_file()
    assert set(read_yaml(folder / "dvc.lock")["stages"]) == {
        "prepare", "encode", "experts", "distill@repblend-100", CELL}
    assert not (clone.folder / "features").exists() and not (clone.folder / "dvc.lock").exists()


def test_the_report_has_ours_beside_the_published_numbers_and_says_what_was_not_run(clone: Workspace) -> None:
    folder = clone.folder / "profiles" / FLICKR
    with (folder / "paper/tables/published-flickr30k.csv").open() as lines:
        rows = {(row["pairs"], row["method"], row["recall"]): row for row in csv.DictReader(lines)}
    ours, lors = rows["100", "RepBlend", "ir_at_1"], rows["100", "LoRS", "ir_at_1"]
    stored = read_json(folder / "metrics/evaluate/repblend-100.json")["protocols"]["faithful"]["mean"]["ir_at_1"]
    assert float(ours["ours"]) == stored and ours["published"] == "11.5" and ours["difference_in_std"]
    assert (lors["ours"], lors["status"], lors["published"]) == ("", "not run", "8.3")
    page = (folder / "paper/report.html").read_text()
    assert "on Flickr30K, with the frozen encoders efficientnet_lite0 and all-MiniLM-L6-v2." in page
    assert "<code>repro verify --profile flickr30k</code> runs everything again" in page and "quickstart" not in page
    assert "the results on Flickr30K" in page and "FINDINGS" not in page


def test_metrics_of_a_workspace_name_files_as_they_lie_in_it_and_the_clones_packages(clone: Workspace) -> None:
    found = read_json(clone.folder / "profiles" / FLICKR / "metrics/encode.json")["provenance"]
    assert list(found["inputs"]) == ["data/prepared/manifest.json"] and found["run"] == "metrics/runs/encode.json"
    assert found["requirements_sha256"] is not None


def test_outputs_of_a_workspace_are_for_dvc_and_the_rest_for_git(clone: Workspace) -> None:
    done = subprocess.run(["git", "ls-files", "--others", "--exclude-standard"], cwd=clone.folder, capture_output=True,
                          text=True, check=True)
    folder = Path("profiles") / FLICKR
    assert {Path(path).relative_to(folder).parts[0] for path in done.stdout.splitlines()} == {
        "dvc.lock", "dvc.yaml", "params.yaml", "metrics"}


def test_the_clones_own_pipeline_does_not_mind_a_workspace(clone: Workspace) -> None:
    with Repo(str(clone.folder)) as repo:
        assert {str(Path(stage.path_in_repo).parent) for stage in repo.index.stages} == {".", f"profiles/{FLICKR}"}


def test_what_the_workspace_depends_on_is_there_or_made_by_it(clone: Workspace) -> None:
    folder = clone.folder / "profiles" / FLICKR
    with Repo(str(clone.folder)) as repo:
        stages = [stage for stage in repo.index.stages if stage.path_in_repo.startswith("profiles")]
        outs = [Path(out.fs_path) for stage in stages for out in stage.outs]
        deps = {Path(dep.fs_path) for stage in stages for dep in stage.deps}
    own = {dep for dep in deps if dep.is_relative_to(folder) and dep.name != "params.yaml"}
    assert all(any(dep == out or dep in out.parents for out in outs) for dep in own)
    assert all(dep.exists() for dep in deps - own)
    assert clone.folder / "src/repblend/data" in deps and folder / "data/prepared" in own


def test_an_edited_params_file_is_kept_and_said(files: Path, capsys: pytest.CaptureFixture) -> None:
    folder = profile_of(files, TINY).workspace
    edited = (folder / "params.yaml").read_text().replace("width: 16", "width: 24")
    (folder / "params.yaml").write_text(edited)
    (folder / "dvc.yaml").write_text("stages: {}\n")
    profile_of(files, TINY)
    assert capsys.readouterr().out == "profiles/tiny/params.yaml: heads.width: 24, in the profile 16\n"
    assert (folder / "params.yaml").read_text() == edited
    assert "prepare" in read_yaml(folder / "dvc.yaml")["stages"]
    assert profile.main(TINY, ["experts.lr=0.5"]) == 1
    refused = capsys.readouterr().out
    assert "experts.lr: 0.03, in the profile 0.5" in refused and "left as it is" in refused
    assert (folder / "params.yaml").read_text() == edited


def test_changes_on_the_command_line_are_written(files: Path, capsys: pytest.CaptureFixture) -> None:
    changes = ["experts.lr=0.5", "grid.budgets=[50,100]"]
    assert profile.main(TINY, changes) == 0 and "params.yaml: written" in capsys.readouterr().out
    params = read_params(files / "profiles" / TINY / "params.yaml")
    assert params.experts.lr == 0.5 and params.grid.budgets == [50, 100]
    assert profile.main(TINY, changes) == 0 and "as the profile composes it" in capsys.readouterr().out
    assert profile.main(TINY, []) == 0 and "experts.lr: 0.5, in the profile 0.03" in capsys.readouterr().out


def test_all_profiles_are_listed(files: Path, capsys: pytest.CaptureFixture) -> None:
    assert profile.main(None, []) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == names(files)


def test_what_lies_in_the_clones_own_folder_is_not_composed(files: Path, capsys: pytest.CaptureFixture) -> None:
    assert profile.main("openmoji", []) == 1 and "edit that file" in capsys.readouterr().err


@pytest.mark.parametrize(("change", "message"), [
    ("experts.rate=1", "Could not override .experts.rate."), ("experts.lr=fast", "experts.lr: Input should be a"),
    ("experts.lr", "experts.lr")])
def test_a_wrong_change_is_refused_by_name(files: Path, change: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compose(files, TINY, [change])


def test_differences_name_every_key_once() -> None:
    found, composed = {"a": 1, "b": {"c": 2, "x": 1}, "new": 3}, {"a": 1.0, "b": {"c": 4, "y": 1}, "old": None}
    assert differences(found, composed) == [
        "b.c: 2, in the profile 4", "b.y: absent, in the profile 1", "b.x: 1, in the profile absent",
        "old: absent, in the profile None", "new: 3, in the profile absent"]


def test_a_file_that_a_user_brings_is_a_dependency(tmp_path: Path) -> None:
    way = Path("../..")
    for brought, expected in ((Path("data/mine/mine_val.json"), "../../data/mine/mine_val.json"),
                              (Path("/sets/mine/mine_val.json"), "/sets/mine/mine_val.json")):
        stages = pipeline_for(ROOT / "dvc.yaml", way, {"prepare": [brought]})["stages"]
        assert stages["prepare"]["deps"][-1] == expected and expected not in stages["encode"]["deps"]
    with pytest.raises(ValueError, match=r"dvc\.yaml: has no stage fetch"):
        pipeline_for(ROOT / "dvc.yaml", way, {"fetch": [Path("x")]})


def test_a_workspaces_pipeline_is_the_clones_with_sources_from_there() -> None:
    made, own = pipeline_for(ROOT / "dvc.yaml", Path("../.."), {})["stages"], read_yaml(ROOT / "dvc.yaml")["stages"]
    assert made.keys() == own.keys()
    for name in own:
        assert {key: value for key, value in made[name].items() if key != "deps"} == {
            key: value for key, value in own[name].items() if key != "deps"}
        assert [dep.removeprefix("../../") for dep in made[name]["deps"]] == own[name]["deps"]
    assert "sets/random-${item.budget}.safetensors" in made["embed-coreset"]["deps"]
    assert {"../../paper/published", "../../benchmarks/efficiency.json", "metrics/evaluate",
            "metrics/encode.json"} <= set(made["report"]["deps"])


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


def test_imported_experts_are_what_their_stage_depends_on_and_imported_sets_are_seen(tmp_path: Path) -> None:
    content = tiny_content()
    content["experts"]["import_from"] = {"path": "downloads/buffers"}
    content["encoder_experts"]["import_from"] = {"path": "/elsewhere/lors"}
    content["distill"]["cells"]["repblend-50"] = {"import_from": {"path": "downloads/distilled_3000.pt"}}
    found = KINDS[MULTIMODAL].brought(Params.model_validate(content))
    assert found.folders == (Path("downloads/buffers"), Path("/elsewhere/lors"), Path("downloads/distilled_3000.pt"))
    stages = pipeline_for(ROOT / "dvc.yaml", Path("../.."), found.files)["stages"]
    assert [stages[name]["deps"][-1] for name in ("experts", "encoder-experts")] == [
        "../../downloads/buffers", "/elsewhere/lors"]
    assert not any("distilled_3000.pt" in dep for stage in stages.values() for dep in stage["deps"])
    (tmp_path / "clone/downloads").mkdir(parents=True)
    (tmp_path / "clone/downloads/distilled_3000.pt").write_text("x")
    link(tmp_path / "clone", tmp_path / "checkout", found.folders)
    assert (tmp_path / "checkout/downloads/distilled_3000.pt").read_text() == "x"


def test_local_encoders_are_seen_by_containers_and_what_encoding_depends_on() -> None:
    content = tiny_content()
    content["encode"] |= dict.fromkeys(("image_encoder", "text_encoder"), "open_clip:local-dir:/mine/clip")
    content["transfer"]["architectures"] = ["timm:local-dir:/mine/vit", "efficientnet_lite0"]
    found = KINDS[MULTIMODAL].brought(Params.model_validate(content))
    assert found.folders == (Path("/mine/clip"), Path("/mine/vit"))
    stages = pipeline_for(ROOT / "dvc.yaml", Path("../.."), found.dependencies)["stages"]
    assert [stages[name]["deps"][-1] for name in ("encode", "transfer-distilled")] == ["/mine/clip", "/mine/vit"]
    assert "/mine/vit" not in stages["encode"]["deps"] and stages["encode"]["deps"].count("/mine/clip") == 1


def test_a_checkout_sees_the_folders_that_git_does_not_have(tmp_path: Path) -> None:
    clone, checkout = tmp_path / "clone", tmp_path / "checkout"
    for folder in (clone / "data/mine", clone / "data/hub"):
        folder.mkdir(parents=True)
    (clone / "data/mine/x").write_text("x")
    link(clone, checkout, [Path("data/mine"), Path("data/absent"), tmp_path])
    assert (checkout / "data/mine/x").read_text() == "x" and (checkout / "data/hub").is_dir()
    assert sorted(path.name for path in (checkout / "data").iterdir()) == ["hub", "mine"]


def test_a_container_sees_folders_that_it_would_not_find_by_their_name(tmp_path: Path) -> None:
    clone, sibling = tmp_path / "clone", tmp_path / "sibling"
    for folder in (clone / "data/mine", sibling):
        folder.mkdir(parents=True)
    for linked in (clone / "data/linked", tmp_path / "link"):
        linked.symlink_to(sibling)
    assert outside(clone, [Path("data/mine"), Path("data/linked")]) == [sibling]
    assert outside(clone, [tmp_path / "link", clone / "data/mine"]) == [tmp_path / "link", clone / "data/mine"]
    with pytest.raises(ValueError, match=rf"\.\./sibling: leads out of the clone.* {sibling}$"):
        outside(clone, [Path("../sibling")])


def test_a_data_set_that_is_not_there_is_named_before_anything_runs(files: Path, capsys: pytest.CaptureFixture) -> None:
    (files / "conf/profiles/mine.yaml").write_text(
        "# @package _global_\n" + yaml_text(tiny_content() | {"data": {
            "name": "mine", "folder": "data/mine", "image_size": 32, "max_caption_words": 60}}))
    assert run.main([], "mine", Wishes(Engine.LOCAL)) == 1
    told = capsys.readouterr().err
    assert f"no such file: {files}/data/mine. " in told and "`repro data check mine` says what belongs there" in told
    (files / "data/mine").mkdir(parents=True)
    assert run.main([], "mine", Wishes(Engine.LOCAL)) == 1
    assert f"no such file: {files}/data/mine/mine_train.json, " in capsys.readouterr().err


def test_a_suite_names_all_data_that_is_not_there_and_how_it_is_brought(
        files: Path, capsys: pytest.CaptureFixture) -> None:
    shutil.copytree(ROOT / "conf", files / "conf", dirs_exist_ok=True)
    assert run.main([], "paper", Wishes(Engine.LOCAL)) == 1
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 3 and all(f"data/{name}. Put it there" in line and f"`repro data fetch {name}` brings" in line
                                  for name, line in zip(SUITES["paper"], told, strict=True))


@pytest.mark.parametrize("broken", ["heads: [16\n", "heads: {width: wide}\n", "", None])
def test_broken_parameters_of_another_workspace_stop_no_profile(broken: str | None, files: Path,
                                                                 capsys: pytest.CaptureFixture) -> None:
    other = profile_of(files, TINY).workspace
    shutil.copyfile(other / "params.yaml", files / "params.yaml")
    (files / "profiles/mine").mkdir()
    (files / "profiles/mine/dvc.yaml").write_text("stages: {}\n")  # nobody's but the user's
    if broken is None:
        (other / "params.yaml").unlink()
    else:
        (other / "params.yaml").write_text(broken)
    profiles_of(files, "quickstart")
    assert "profiles/tiny/params.yaml is missing or not as expected" in capsys.readouterr().err
    assert not (other / "dvc.yaml").exists() and (files / "profiles/mine/dvc.yaml").exists()
    shutil.copyfile(files / "params.yaml", other / "params.yaml")
    assert profile.main(TINY, []) == 0 and (other / "dvc.yaml").exists()
    profiles_of(files, "quickstart")
    assert (other / "dvc.yaml").exists() and not capsys.readouterr().err


def commands() -> list[list[str]]:
    """The commands of the README's section, without `repro`."""
    section = (ROOT / "README.md").read_text().split("## The paper's scale")[1].split("\n## ")[0]
    return [shlex.split(line, comments=True)[1:] for line in re.findall(r"^repro .*$", section, re.MULTILINE)]


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_the_documented_commands_are_right(command: list[str], files: Path) -> None:
    """Those that write a workspace are run, the others' options are parsed."""
    shutil.copytree(ROOT / "conf", files / "conf", dirs_exist_ok=True)
    arguments = command if command[0] == "profile" else [*command, "--help"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    if command[0] == "profile" and len(command) > 1:
        assert (files / "profiles" / command[1] / "params.yaml").is_file()


def test_the_documented_profiles_are_those_there_are() -> None:
    section = (ROOT / "README.md").read_text().split("## The paper's scale")[1].split("```")[0]
    multimodal = {name for name in names(ROOT)
                  if name not in shipped(ROOT) or compose(ROOT, name)[0] == KINDS[MULTIMODAL]}
    assert set(re.findall(r"^\| (.+?) \|", section, re.MULTILINE)) - {"profile", "---"} == {
        "`quickstart` (default), `openmoji`", "`flickr30k`, `coco`", "`cc3m`", "`paper`"}
    assert multimodal == {"quickstart", "openmoji", "flickr30k", "coco", "cc3m", "paper"}


def test_from_inside_a_workspace_the_clone_is_found(clone: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(clone.folder / "profiles" / FLICKR / "metrics")
    assert find_root() == clone.folder


def test_sets_that_are_not_of_pairs_are_not_exported(files: Path, capsys: pytest.CaptureFixture) -> None:
    shutil.copytree(ROOT / "conf", files / "conf", dirs_exist_ok=True)
    assert export.main("ufc-3", "x", export.Format.FOLDER, "ufc-digits") == 1
    assert "--profile ufc-digits: it has no set of pairs" in capsys.readouterr().err


def test_a_set_that_was_not_made_is_named_beside_those_that_were(files: Path, capsys: pytest.CaptureFixture) -> None:
    sets = profile_of(files, TINY).workspace / "sets"
    sets.mkdir()
    (sets / "random-50.safetensors").touch()
    assert export.main("repblend-7", "x", export.Format.FOLDER, TINY) == 1
    told = capsys.readouterr().err
    assert "repblend-7.safetensors: no such file; expected one of random-50. `repro run --profile tiny` makes" in told


def test_every_name_is_listed_once() -> None:
    found = names(ROOT)
    assert len(found) == len(set(found)) and found[0] == "quickstart"


def test_git_has_no_workspace_that_was_never_run() -> None:
    """Its parameters would stay what they were on that day, and go before what the profile composes ever after."""
    if not (ROOT / ".git").exists():
        pytest.skip("no git clone")
    listed = subprocess.run(["git", "ls-files", "profiles"], cwd=ROOT, capture_output=True, text=True, check=True)
    files = [Path(path) for path in listed.stdout.splitlines()]
    workspaces = {path.parent for path in files if path.name == "params.yaml"}
    assert workspaces == {path.parent for path in files if path.name == "dvc.lock"}


def test_a_profile_in_another_clone_is_the_same_folder_there(tmp_path: Path) -> None:
    found = Profile("x", KINDS[MULTIMODAL], tmp_path / "a/profiles/x")
    assert found.in_clone(tmp_path / "a", tmp_path / "b").workspace == tmp_path / "b/profiles/x"
