"""The remote in the clone: what a newcomer gets without any set-up, and that it stays small."""

import contextlib
from pathlib import Path

import pytest

from repro.artifacts import pull
from repro.artifacts.manifest import (
    Artifacts,
    content_sha256,
    files_of,
    is_in_git,
    outputs,
    pushed_sha256,
    read_manifest,
)
from repro.profiles import QUICKSTART, workspace_of
from tests.remotes import toy
from tests.remotes.conftest import ROOT

PULLED = (Artifacts.METRICS, Artifacts.DISTILLED)
"""What lies in artifacts/ of the quickstart."""
LARGER = ("openmoji", "ufc-glyphs")
"""Profiles whose metrics lie there."""
LARGEST = 60_000_000
"""Bytes; every clone has them."""

pytestmark = pytest.mark.skipif(not (ROOT / "artifacts/files").is_dir(), reason="nothing was published yet")


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.clone(ROOT, tmp_path_factory.mktemp("shipped") / "clone")


@pytest.mark.parametrize("what", PULLED)
def test_a_fresh_clone_pulls_what_is_shipped(what: Artifacts, clone: Path) -> None:
    cached = [output for output in outputs(clone, what) if not is_in_git(output)]
    assert cached and {output.path for output in cached} <= read_manifest(clone).keys()
    assert not all((clone / output.path).exists() for output in cached)
    with contextlib.chdir(clone):
        assert pull.main(what, None, QUICKSTART) == 0
    assert all((clone / output.path).exists() for output in cached)


@pytest.mark.parametrize("name", LARGER)
def test_every_object_of_larger_profiles_is_shipped_and_whole(name: str, clone: Path) -> None:
    def place(oid: str) -> Path:
        return clone / "artifacts/files/md5" / oid[:2] / oid[2:]

    workspace = workspace_of(clone, name)
    cached = [output for output in outputs(workspace, Artifacts.METRICS) if not is_in_git(output)]
    versions = read_manifest(workspace)
    assert cached
    for output in cached:
        objects = list(files_of(output, place(output.md5)))
        assert [wrong for each in objects if (wrong := each.mismatch(place(each.oid)))] == []
        found = content_sha256(output, {each.name: place(each.oid) for each in objects})
        assert found == pushed_sha256(versions, output), output.path


def test_what_is_shipped_is_small(clone: Path) -> None:
    assert sum(path.stat().st_size for path in (clone / "artifacts").rglob("*") if path.is_file()) < LARGEST
