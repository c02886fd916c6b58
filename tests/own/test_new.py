"""`repro new`: any form of captions becomes a workspace that is checked, explained and ready to run."""

import json
import re
import shutil
from pathlib import Path

import pytest

from repblend.params import read_params
from repblend.params.data import OwnData
from repblend.params.reading import read_yaml
from repblend.stages.prepare import counts_ahead
from repro.own import new
from repro.own.derive import Derived
from repro.own.layout import find_layout
from repro.profiles import main as profile_main
from repro.profiles import names, profile_of
from tests.own import pictures

ROOT = Path(__file__).parents[2]


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What of a clone a workspace is made of; the working directory."""
    root = tmp_path / "clone"
    for name in ("dvc.yaml", "conf"):
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copyfile)(ROOT / name, _made(root / name))
    (root / "src/repblend").mkdir(parents=True)
    monkeypatch.chdir(root)
    return root


def _made(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def test_150_pictures_become_a_workspace_that_says_how_every_number_came(
        clone: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    data = pictures.with_csv(tmp_path / "mine")
    assert new.main("mine", data, "quickstart", None) == 0
    told = capsys.readouterr().out
    assert "note: a recall on 27 test images moves in steps of 3.7 points" in told
    assert "profiles/mine/params.yaml: written" in told and "`repro run --profile mine`" in told
    file = clone / "profiles/mine/params.yaml"
    params, text = read_params(file), file.read_text()
    assert isinstance(params.data, OwnData) and params.data.folder == str(data)
    counts = counts_ahead(params.data, clone)
    assert counts and {split: found["images"] for split, found in counts.items()} == {"train": 103, "val": 20,
                                                                                       "test": 27}
    params.check_sizes(103, 103)
    assert params.grid.budgets == [25, 50] and set(params.distill.cells) == {
        f"repblend{kind}-{budget}" for kind in ("", "-without-blending") for budget in (25, 50)}
    assert text.startswith("# Own data set mine: 150 images in ")
    above = dict(re.findall(r"# (.*)\n *(\w+): ", text))
    assert above["12% of 150 images, between 20 and 1,000, and at most every fourth"] == "num_val"
    assert "# epochs: 165 steps, as quickstart takes in 5 passes, of which a pass over 103 pairs has 2\n" in text
    assert above["quickstart's [50, 100], lowered alike until the largest is half of the 103 training images"] == (
        "budgets")
    assert max(map(len, text.splitlines())) <= 120
    assert read_yaml(clone / "profiles/mine/dvc.yaml")["stages"]["prepare"]["deps"][-1] == str(data / "captions.csv")
    assert (data / "manifest.json").is_file()


def test_the_workspace_is_a_profile_like_any_other(clone: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert new.main("mine", pictures.with_csv(tmp_path / "mine", 60), "openmoji", None) == 0
    assert "mine" in names(clone) and profile_of(clone, "mine").params().data.name == "mine"
    capsys.readouterr()
    assert profile_main(None, []) == 0
    assert re.search(r"mine +Own data set mine: 60 images in ", capsys.readouterr().out)
    assert profile_main("mine", ["seed=1"]) == 1
    assert "was made by `repro new`" in capsys.readouterr().err
    assert new.main("mine", tmp_path / "mine", "quickstart", None) == 1
    assert "mine: is the name of a profile or data set already" in capsys.readouterr().err


def test_an_imagefolder_with_three_splits_keeps_them(clone: Path, tmp_path: Path) -> None:
    data = pictures.with_metadata(tmp_path / "hub", {"train": 40, "validation": 10, "test": 12})
    assert new.main("hub", data, "quickstart", None) == 0
    entry = read_params(clone / "profiles/hub/params.yaml").data
    counts = counts_ahead(entry, clone)
    assert counts and {split: found["images"] for split, found in counts.items()} == {"train": 40, "val": 10,
                                                                                       "test": 12}
    assert set(json.loads((data / "manifest.json").read_text())["images"]) >= {"train/39.png", "validation/9.png"}
    assert set(json.loads((data / "manifest.json").read_text())["annotations"]) == {
        f"{split}/metadata.jsonl" for split in ("train", "validation", "test")}


@pytest.mark.parametrize(("splits", "captions"), [({"train": 60}, "train/metadata.jsonl"),
                                                  ({"train": 50, "test": 10}, "captions.jsonl")])
def test_an_imagefolder_without_three_splits_is_split_here(splits: dict[str, int], captions: str, clone: Path,
                                                           tmp_path: Path) -> None:
    data = pictures.with_metadata(tmp_path / "hub", splits)
    assert new.main("hub", data, "quickstart", None) == 0
    entry = read_params(clone / "profiles/hub/params.yaml").data
    assert isinstance(entry, OwnData) and (entry.captions, entry.num_val, entry.num_test) == (captions, 15, 15)
    counts = counts_ahead(entry, clone)
    assert counts and counts["train"]["images"] == 30


def test_shards_with_captions_in_them_are_taken(clone: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    data = pictures.with_shards(tmp_path / "shards")
    assert new.main("shards", data, "quickstart", None) == 0
    assert f"{data / 'captions.jsonl'}: written from 2 shards" in capsys.readouterr().out
    entry = read_params(clone / "profiles/shards/params.yaml").data
    assert isinstance(entry, OwnData) and entry.shards == "*.tar"
    found = json.loads((data / "manifest.json").read_text())["images"]
    assert len(found) == 60 and found["0001.png"]["shard"] == "pictures-1.tar"


def test_a_set_with_something_to_mend_becomes_no_workspace(clone: Path, tmp_path: Path,
                                                           capsys: pytest.CaptureFixture) -> None:
    data = pictures.with_csv(tmp_path / "mine", 60)
    (data / "pictures/7.png").write_bytes(b"no picture")
    with (data / "captions.csv").open("a") as file:
        file.write("pictures/8.png,\n")
    assert new.main("mine", data, "quickstart", None) == 1
    told = capsys.readouterr()
    assert "pictures/7.png: expected a whole image file" in told.out and "caption '' is empty" in told.out
    assert "2 to mend before a workspace is made" in told.err and not (clone / "profiles/mine").exists()


@pytest.mark.parametrize(("name", "like", "message"), [
    ("../x", "quickstart", "expected a name of letters"), ("coco", "quickstart", "is the name of a profile"),
    ("mine", "ufc-digits", "expected a profile of images with captions"), ("mine", "absent", "absent")])
def test_wrong_names_are_refused(name: str, like: str, message: str, clone: Path, tmp_path: Path,
                                 capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "mine").mkdir()
    assert new.main(name, tmp_path / "mine", like, None) == 1
    assert message in capsys.readouterr().err and not (clone / "profiles").exists()


def test_a_folder_without_captions_or_with_several_says_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no file of captions\. Expected captions\.csv with the columns"):
        find_layout(tmp_path, None)
    for name in ("a.csv", "b.json"):
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match=r"has a\.csv, b\.json\. Say with --captions"):
        find_layout(tmp_path, None)


def test_reasons_stand_above_their_values_and_above_mappings_in_one_line() -> None:
    text = "a:\n  b: 1\n  c: {d: 2, e: 3}\nb: 4\n"
    commented = new.with_comments(text, [Derived("a.b", 1, "one"), Derived("a.c.d", 2, "two"), Derived("b", 4, "x")])
    assert commented == "a:\n  # one\n  b: 1\n  # d: two\n  c: {d: 2, e: 3}\n# x\nb: 4\n"
