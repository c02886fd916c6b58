"""The clone around a run: what a kill left goes, what a container wrote comes back, links and special files do not."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from repblend.params.reading import read_yaml
from repblend.runtime.processes import only_writer
from repblend.store import refuse_links, write_bytes
from repro.pipeline import KINDS, _outputs
from repro.workspace import WRITTEN, forget_killed, inside_of, lend, named_stages, only_run, take_back

ROOT = Path(__file__).parents[2]


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone that has run."""
    folder = tmp_path / "clone"
    for name in ("src/repblend/x.py", "dvc.lock", "features/train", "metrics/all.json", "checkpoints/one/state",
                 "checkpoints/locks/workspace.lock", ".dvc/config", ".dvc/cache/files/md5/00/11"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    (folder / ".dvc/config").write_text("[core]\n")
    return folder


def tree(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in sorted(folder.rglob("*"))
            if path.is_file() and not path.is_relative_to(folder / ".dvc/inside")}


@pytest.mark.parametrize(("text", "stays"), [('{"write": {"/work', False), ("", False), ("{}", True)])
def test_a_list_of_writers_that_was_not_written_to_its_end_goes(text: str, stays: bool, tmp_path: Path) -> None:
    path = tmp_path / ".dvc/tmp/rwlock"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    forget_killed(tmp_path)
    assert path.exists() == stays
    assert not stays or path.read_text() == text


def test_no_list_is_fine(tmp_path: Path) -> None:
    forget_killed(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_stages_of_every_kind_write_nowhere_else() -> None:
    """Outputs of the templates lie in what is lent to containers, and nothing of that lies in another."""
    for kind in KINDS.values():
        for out in _outputs(read_yaml(ROOT / kind.template)["stages"]):
            assert any(Path(out).is_relative_to(path) for path in WRITTEN), out
    assert not any(set(path.parents) & set(WRITTEN) for path in WRITTEN)


def test_what_is_lent_comes_back_as_it_was_also_after_a_kill(clone: Path) -> None:
    before = tree(clone)
    lend(clone)
    assert not (clone / "features").exists() and (clone / "dvc.lock").exists()
    (inside_of(clone) / "dvc.lock").write_text("new")
    with only_run(clone):  # of the next command
        assert tree(clone) == before | {"dvc.lock": "new", "checkpoints/locks/workspace.holder.json":
                                        (clone / "checkpoints/locks/workspace.holder.json").read_text()}
    assert not inside_of(clone).exists()


def make_link(path: Path) -> None:
    path.symlink_to("/etc")


def make_setuid(path: Path) -> None:
    path.touch()
    path.chmod(0o4755)


def make_closed(path: Path) -> None:
    path.mkdir(mode=0o000)


@pytest.mark.parametrize("make", [make_link, os.mkfifo, make_setuid, make_closed])
@pytest.mark.parametrize("place", ["features/x", "sets", "logs", "checkpoints/one/x", "checkpoints/two", "runs.jsonl",
                                   "records/cells/a", "data/prepared", "paper", "paper/report.html", "json.py",
                                   "data/hub", "src"])
def test_nothing_but_plain_files_and_folders_of_declared_names_is_taken_over(
        place: str, make: Callable[[Path], object], clone: Path) -> None:
    lend(clone)
    inside = inside_of(clone)
    (inside / place).parent.mkdir(parents=True, exist_ok=True)
    make(inside / place)
    (inside / "sets2").mkdir()
    refused = take_back(clone)
    left = [path for path in clone.rglob("*") if path.is_symlink() or not (path.is_file() or path.is_dir())
            or path.stat().st_mode & 0o4000]
    assert left == [] and not inside.exists() and not (clone / "sets2").exists() and not (clone / "json.py").exists()
    declared = any(Path(place).is_relative_to(path) for path in WRITTEN)
    assert refused == ([inside / place] if declared or (place == "paper" and make is make_link) else [])


def test_links_in_the_cache_are_removed(clone: Path) -> None:
    lend(clone)
    cache = clone / ".dvc/cache/files/md5"
    (cache / "01").symlink_to("/etc")
    (cache / "00/22").symlink_to("/etc/passwd")
    assert sorted(take_back(clone)) == [cache / "00/22", cache / "01"]
    assert [path.name for path in cache.rglob("*")] == ["00", "11"]


@pytest.mark.parametrize("place", ["logs", "runs.jsonl", "paper/run.html", "paper", "checkpoints/locks", "features",
                                   "data/prepared", "data", "container.json", "metrics", ".dvc/inside"])
def test_a_link_among_what_a_run_writes_is_refused_before_anything_runs(place: str, clone: Path, tmp_path: Path
                                                                        ) -> None:
    elsewhere = tmp_path / "larger disk"
    elsewhere.mkdir()
    (clone / place).parent.mkdir(exist_ok=True)
    if (clone / place).exists():
        (clone / place).rename(tmp_path / "moved")
    (clone / place).symlink_to(elsewhere)
    with pytest.raises(ValueError, match=f"{place}: a link to {elsewhere}, expected a plain file or folder"), \
            only_run(clone):
        pytest.fail("it began")
    assert list(elsewhere.iterdir()) == []


def test_every_writer_refuses_a_link_in_the_clone(clone: Path, tmp_path: Path) -> None:
    for name in ("paper", "data/mine", "locks"):
        (clone / name).parent.mkdir(exist_ok=True)
        (clone / name).symlink_to(tmp_path)
    with pytest.raises(ValueError, match="paper: a link to"):
        write_bytes(clone / "paper/run.html", b"x")
    with pytest.raises(ValueError, match="locks: a link to"), only_writer(clone / "locks/a.lock", "x"):
        pytest.fail("it began")
    assert refuse_links(clone / "data/mine/manifest.json")  # a user's data set may lie elsewhere
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clone"]


def test_outputs_on_another_disk_are_refused_before_anything_is_moved(clone: Path, monkeypatch: pytest.MonkeyPatch
                                                                      ) -> None:
    lstat = Path.lstat

    def elsewhere(path: Path) -> os.stat_result:
        found = lstat(path)
        return os.stat_result([*found[:2], 999, *found[3:]]) if path.name == "metrics" else found

    monkeypatch.setattr(Path, "lstat", elsewhere)
    with pytest.raises(ValueError, match="metrics: lies on another disk than the clone"):
        lend(clone)
    assert (clone / "features/train").exists() and not inside_of(clone).exists()


def test_a_kind_of_stage_stands_for_all_of_its_cells(tmp_path: Path) -> None:
    stages = ["encode", "distill@lors-50", "distill@lors-100", "evaluate@lors-50"]
    assert named_stages(tmp_path, stages, []) == stages
    assert named_stages(tmp_path, stages, ["evaluate@lors-50", "distill", "distill@lors-100"]) == [
        "evaluate@lors-50", "distill@lors-50", "distill@lors-100"]
    with pytest.raises(ValueError, match="it has no stage dist, lors-50; expected some of encode, distill, "
                                         "evaluate, or single ones, as distill@lors-100"):
        named_stages(tmp_path, stages, ["lors-50", "dist"])
