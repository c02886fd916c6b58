"""The toy project, published once on a local remote; every test works on clones and on copies of the store."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.remotes import toy

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def these_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let processes that are started in a toy project find this project."""
    monkeypatch.setenv("PYTHONPATH", f"{ROOT / 'src'}:{ROOT}")


@dataclass(frozen=True)
class Published:
    """A project whose artifacts were pushed to a store."""

    project: Path
    store: Path


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Published:
    folder = tmp_path_factory.mktemp("published")
    project, store = toy.make(folder / "project"), folder / "the store"
    toy.add_remote(project, str(store))
    assert toy.pushed(project) == 0
    toy.commit(project, "Publish the artifacts")
    return Published(project, store)


@pytest.fixture
def store(published: Published, tmp_path: Path) -> Path:
    """A copy of the store, to be damaged."""
    return Path(shutil.copytree(published.store, tmp_path / "store"))


@pytest.fixture
def newcomer(published: Published, store: Path, tmp_path: Path) -> Path:
    """A fresh clone whose remote is `store`."""
    folder = toy.clone(published.project, tmp_path / "a clone")
    toy.add_remote(folder, str(store))
    return folder
