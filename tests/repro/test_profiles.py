"""Profiles: what they consist of, and the workspaces that they are run in."""

import csv
import shutil
import subprocess
from pathlib import Path

import pytest
from dvc.repo import Repo

from repblend.params import read_params
from repblend.params.reading import read_yaml
from repblend.store import read_json
from repro import QUICKSTART, profiles, run
from repro.engines.base import Engine, Request
from repro.pipeline import KINDS, MULTIMODAL, yaml_text
from repro.profiles import (
    SUITES,
    Profile,
    compose,
    differences,
    members,
    names,
    pipeline_text,
    profile_of,
    profiles_of,
    workspace_of,
)
from repro.workspace import find_root
from tests import shaped
from tests.end_to_end.workspace import Workspace
from tests.tiny import tiny_content

ROOT = Path(__file__).parents[2]
TINY, FLICKR, CELL = "tiny", "flickr30k", "evaluate-distilled@repblend-100"
SMALL = ("compute.threads=1", "compute.device=cpu", "data.image_size=32", "~data.expected",
         "encode.image_encoder=efficientnet_lite0",
         "encode.text_encoder=all-MiniLM-L6-v2", "encode.views.num=1", "heads.width=16", "experts.num=1",
         "experts.epochs=2", "experts.batch_size=32", "experts.snapshots_every=10", "distill.common.iterations=4",
         "distill.common.inner_steps=2", "distill.common.validate_every=2", "evaluate.num_seeds=2",
         "evaluate.distilled={epochs: 2, scored_intervals: 2}", "transfer.architectures=[]",
         "grid.budgets=[100]", "grid.compared_budgets=[100]", "~grid.variants.pairs-500", "grid.encoder_variants=[]",
         "grid.variants_budget=100")
"""What makes the profile small enough for a test."""


def declare(root: Path) -> None:
    """Declare one more profile in a clone: the embedded set in tiny."""
    profile = root / "conf/profiles" / f"{TINY}.yaml"
    profile.parent.mkdir(parents=True, exist_ok=True)
    profile.write_text("# @package _global_\n" + yaml_text(tiny_content()))


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Just the files of a clone that a workspace is made of; the working directory."""
    for name in ("dvc.yaml", "conf/multimodal.dvc.yaml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, tmp_path / name)
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
        made.run_forked(*command, within="paper", figures=1)
    return made


def test_a_suite_is_its_profiles() -> None:
    assert members(ROOT, "paper") == ("flickr30k", "coco", "cc3m")
    with pytest.raises(ValueError, match="--profile paper: expected one profile"):
        workspace_of(ROOT, "paper")


def test_the_root_is_the_workspace_of_the_default_profile_and_of_no_other() -> None:
    assert {name: workspace_of(ROOT, name) for name in names(ROOT) if name not in SUITES} == {
        name: ROOT if name == QUICKSTART else ROOT / "profiles" / name for name in names(ROOT) if name not in SUITES}


@pytest.mark.parametrize("name", [QUICKSTART, "openmoji"])
def test_committed_workspaces_are_what_their_profile_composes(name: str) -> None:
    workspace = workspace_of(ROOT, name)
    if not (workspace / "params.yaml").exists():
        pytest.skip("never recorded")
    kind, composed = compose(ROOT, name)
    assert read_yaml(workspace / "params.yaml") == composed
    assert (workspace / "dvc.yaml").read_text() == pipeline_text(ROOT, Profile(name, kind, workspace))


def test_an_unknown_profile_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"profile 'flickr': expected one of quickstart, .*openmoji, .*paper"):
        profiles_of(ROOT, "flickr")


@pytest.mark.runs
def test_a_workspace_has_its_own_parameters_outputs_and_lock(clone: Workspace) -> None:
    folder = clone.folder / "profiles" / FLICKR
    assert read_params(folder / "params.yaml").heads.width == 16
    assert (folder / "features").is_dir() and (folder / "logs/encode.log").is_file()
    assert set(read_yaml(folder / "dvc.lock")["stages"]) == {
        "settings", "prepare", "encode", "experts", "distill@repblend-100", CELL}
    assert not (clone.folder / "features").exists() and not (clone.folder / "dvc.lock").exists()


@pytest.mark.runs
def test_the_report_has_ours_beside_the_published_numbers_and_says_what_was_not_run(clone: Workspace) -> None:
    folder = clone.folder / "profiles" / FLICKR
    with (folder / "paper/tables/published-flickr30k.csv").open() as lines:
        rows = {(row["pairs"], row["method"], row["recall"]): row for row in csv.DictReader(lines)}
    ours, lors = rows["100", "RepBlend", "ir_at_1"], rows["100", "LoRS", "ir_at_1"]
    stored = read_json(folder / "metrics/faithful/repblend-100.json")["ir1"]
    assert float(ours["ours"]) == pytest.approx(stored, abs=1e-4)
    assert ours["published"] == "11.5" and ours["difference_in_std"]
    assert (lors["ours"], lors["status"], lors["published"]) == ("", "not run", "8.3")
    page = (folder / "paper/report.html").read_text()
    assert "on Flickr30K, with the frozen encoders efficientnet_lite0 and all-MiniLM-L6-v2" in page
    assert "<code>repro verify --profile flickr30k</code> runs everything again" in page and "quickstart" not in page
    assert "the results on Flickr30K" in page and "FINDINGS" not in page


@pytest.mark.runs
def test_records_of_a_workspace_name_files_as_they_lie_in_it_and_the_clones_packages(clone: Workspace) -> None:
    found = read_json(clone.folder / "profiles" / FLICKR / "records/encode.json")["provenance"]
    assert list(found["inputs"]) == ["data/prepared/manifest.json"] and found["requirements_sha256"] is not None


@pytest.mark.runs
def test_outputs_of_a_workspace_are_for_dvc_and_the_rest_for_git(clone: Workspace) -> None:
    done = subprocess.run(["git", "ls-files", "--others", "--exclude-standard"], cwd=clone.folder, capture_output=True,
                          text=True, check=True)
    folder = Path("profiles") / FLICKR
    assert {Path(path).relative_to(folder).parts[0] for path in done.stdout.splitlines()} == {
        "dvc.lock", "dvc.yaml", "params.yaml", "metrics", "runs.jsonl"}


@pytest.mark.runs
def test_what_the_workspace_depends_on_is_there_or_made_by_it(clone: Workspace) -> None:
    folder = clone.folder / "profiles" / FLICKR
    with Repo(str(clone.folder)) as repo:
        stages = [stage for stage in repo.index.stages if stage.path_in_repo.startswith("profiles")]
        outs = [Path(out.fs_path) for stage in stages for out in stage.outs]
        deps = {Path(dep.fs_path) for stage in stages for dep in stage.deps}
    own = {dep for dep in deps if dep.is_relative_to(folder) and dep.name != "params.yaml"}
    assert all(any(dep == out or dep in out.parents or out in dep.parents for out in outs) for dep in own)
    assert all(dep.exists() for dep in deps - own)
    assert clone.folder / "src/repblend" in deps and folder / "data/prepared/manifest.json" in own


def test_an_edited_params_file_is_kept_and_said(files: Path, capsys: pytest.CaptureFixture) -> None:
    folder = profile_of(files, TINY).workspace
    edited = (folder / "params.yaml").read_text().replace("width: 16", "width: 24")
    (folder / "params.yaml").write_text(edited)
    (folder / "dvc.yaml").write_text(f"{profiles.MADE}an older template\nstages: {{}}\n")
    profile_of(files, TINY)
    assert capsys.readouterr().out == "profiles/tiny/params.yaml: heads.width: 24, in the profile 16\n"
    assert (folder / "params.yaml").read_text() == edited
    assert "prepare" in read_yaml(folder / "dvc.yaml")["stages"]
    assert profiles.main(TINY, ["experts.lr=0.5"]) == 1
    refused = capsys.readouterr().out
    assert "experts.lr: 0.03, in the profile 0.5" in refused and "left as it is" in refused
    assert (folder / "params.yaml").read_text() == edited


def test_a_pipeline_that_a_user_wrote_is_kept(files: Path) -> None:
    workspace = profile_of(files, TINY).workspace
    (workspace / "dvc.yaml").write_text("stages: {}\n")
    profile_of(files, TINY)
    assert (workspace / "dvc.yaml").read_text() == "stages: {}\n"


def test_more_edits_than_fit_are_counted(files: Path, capsys: pytest.CaptureFixture) -> None:
    path = profile_of(files, TINY).workspace / "params.yaml"
    path.write_text(path.read_text().replace(": 0.07", ": 0.08").replace(": 128", ": 64"))
    profile_of(files, TINY)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == profiles.SHOWN + 1 and lines[-1].endswith("more; `repro profile tiny` lists them")


def test_changes_on_the_command_line_are_written(files: Path, capsys: pytest.CaptureFixture) -> None:
    changes = ["experts.lr=0.5", "grid.budgets=[50,100]"]
    assert profiles.main(TINY, changes) == 0 and "params.yaml: written" in capsys.readouterr().out
    params = read_params(files / "profiles" / TINY / "params.yaml")
    assert params.experts.lr == 0.5 and params.grid.budgets == [50, 100]
    assert profiles.main(TINY, changes) == 0 and "as the profile composes it" in capsys.readouterr().out
    assert profiles.main(TINY, []) == 0 and "experts.lr: 0.5, in the profile 0.03" in capsys.readouterr().out


def test_all_profiles_are_listed(files: Path, capsys: pytest.CaptureFixture) -> None:
    shutil.copytree(ROOT / "conf", files / "conf", dirs_exist_ok=True)
    assert profiles.main(None, []) == 0
    listed = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert list(listed) == [*names(files)] and listed["paper"] == "flickr30k, coco, cc3m, one after the other"
    assert listed["flickr30k"].startswith("The paper's Table 1: Flickr30K, NFNet and BERT")


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


def test_a_data_set_that_is_not_there_is_named_before_anything_runs(files: Path, capsys: pytest.CaptureFixture) -> None:
    (files / "conf/profiles/mine.yaml").write_text(
        "# @package _global_\n" + yaml_text(tiny_content() | {"data": {
            "name": "mine", "folder": "data/mine", "image_size": 32, "max_caption_words": 60}}))
    assert run.main([], "mine", Request(Engine.LOCAL)) == 1
    told = capsys.readouterr().err
    assert f"no such file: {files}/data/mine. " in told and "`repro data check mine` says what belongs there" in told
    (files / "data/mine").mkdir(parents=True)
    assert run.main([], "mine", Request(Engine.LOCAL)) == 1
    assert f"no such file: {files}/data/mine/mine_train.json, " in capsys.readouterr().err


def test_a_suite_names_all_data_that_is_not_there_and_how_it_is_brought(
        files: Path, capsys: pytest.CaptureFixture) -> None:
    shutil.copytree(ROOT / "conf", files / "conf", dirs_exist_ok=True)
    assert run.main([], "paper", Request(Engine.LOCAL)) == 1
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 3 and all(f"data/{name}. Put it there" in line and f"`repro data fetch {name}` brings" in line
                                  for name, line in zip(SUITES["paper"], told, strict=True))


@pytest.mark.runs
def test_from_inside_a_workspace_the_clone_is_found(clone: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(clone.folder / "profiles" / FLICKR / "metrics")
    assert find_root() == clone.folder


def test_a_set_that_was_not_made_is_named_beside_those_that_were(files: Path, capsys: pytest.CaptureFixture) -> None:
    sets = profile_of(files, TINY).workspace / "sets"
    sets.mkdir()
    (sets / "random-50.safetensors").touch()
    assert run.export_main("repblend-7", "x", "folder", TINY) == 1
    told = capsys.readouterr().err
    assert "repblend-7.safetensors: no such file; expected a set of pairs, one of random-50. `repro run" in told


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


@pytest.mark.parametrize("folder", ["~/data", "~", "/a (1) = & #x/é", "/a,b", "it's", "back\\slash\\", "${seed}",
                                    "x y", "a: b"])
def test_a_changed_text_is_taken_as_it_was_typed(folder: str) -> None:
    content = compose(ROOT, "flickr30k", [f"data.folder={folder}", "experts.epochs=3", "grid.budgets=[100]"])[1]
    assert (content["data"]["folder"], content["experts"]["epochs"], content["grid"]["budgets"]) == (folder, 3, [100])
