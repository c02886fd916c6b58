"""No default of a parameter escapes the pipeline: each is changed in a copy of the project, and DVC has to see it."""

import ast
import contextlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from dvc.repo import Repo

from repblend.store import folder_sha256
from tests import forked
from tests.stages.imports import ROOT

COPIED = ("docker/contents.json", "dvc.yaml", "params.yaml", "requirements/lock.txt", "src/repblend", ".dvcignore")
OF_OTHER_DATA = {"ExpectedCounts", "RealData", "OwnData", "ImportFrom", "ImportSetFrom"}
"""Sections that the quickstart's parameters do not have: DVC sees their defaults, and no stage here uses them."""


class Default(NamedTuple):
    """A field of a section with a default."""

    file: str
    section: str
    name: str
    annotation: str
    value: ast.expr

    def edited(self, text: str) -> str:
        """The file's text with another valid default."""
        lines = text.splitlines(keepends=True)
        line, start, end = self.value.lineno - 1, self.value.col_offset, self.value.end_col_offset
        lines[line] = f"{lines[line][:start]}{self.other()}{lines[line][end:]}"
        return "".join(lines)

    def other(self) -> str:
        match ast.unparse(self.value):
            case "True" | "False" as value:
                return str(value == "False")
            case "0.0":
                return "0.5"
            case "0":
                return "3"
            case "None" if "ImportFrom" in self.annotation:
                return "ImportFrom(path='x', sha256='0' * 64)"
            case "None" if "RandAugment" in self.annotation:
                return "RandAugment(num_ops=1, magnitude=1, ops=['Rotate'])"
            case "None":
                return "7"
            case value if "Literal" in self.annotation:
                return repr(next(other for other in re.findall(r"'([^']+)'", self.annotation) if repr(other) != value))
        return "Field(default={'train': 1})"


def _defaults() -> Iterator[Default]:
    for file in (path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "src/repblend/params").glob("*.py"))):
        for section in ast.walk(ast.parse((ROOT / file).read_text())):
            if isinstance(section, ast.ClassDef):
                for field in section.body:
                    if isinstance(field, ast.AnnAssign) and field.value is not None:
                        yield Default(file, section.name, field.target.id, ast.unparse(field.annotation), field.value)


DEFAULTS = tuple(_defaults())


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with its settings written, in DVC's lock as well. Some stages of every kind have cells."""
    folder = tmp_path_factory.mktemp("project")
    for name in COPIED:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(ROOT / name, folder / name)
    params = folder / "params.yaml"
    params.write_text(params.read_text().replace("compared_budgets: []", "compared_budgets: [50]"))
    with contextlib.chdir(folder), Repo.init(no_scm=True) as repo:
        code, printed = write_settings(folder, compiled=True)
        assert code == 0, printed
        repo.commit("settings", force=True)
    return folder


def write_settings(folder: Path, compiled: bool = False) -> tuple[int | None, str]:
    """Run stage `settings` on a copy's own sources, imported anew; return its exit code and what it printed."""
    return forked.on_sources(folder, "repblend.stages", "settings", compiled=compiled)


@contextlib.contextmanager
def edited(project: Path, default: Default) -> Iterator[None]:
    file = project / default.file
    text = file.read_text()
    file.write_text(default.edited(text))
    try:
        assert file.read_text() != text
        yield
    finally:
        file.write_text(text)


def test_defaults_are_found() -> None:
    found = {f"{default.section}.{default.name}" for default in DEFAULTS}
    assert {"Heads.dropout", "Evaluate.batches", "DistillSettings.choose", "RealData.expected"} <= found
    assert len(found) > 25


def test_dvc_sees_every_changed_default(project: Path) -> None:
    with contextlib.chdir(project), Repo() as repo:
        assert repo.status("settings") == {}
        for default in DEFAULTS:
            with edited(project, default):
                assert "modified" in str(repo.status("settings")), default.name


def test_a_document_among_the_sources_runs_nothing(project: Path) -> None:
    readme = project / "src/repblend/ufc/README.md"
    text = readme.read_text()
    readme.write_text(text + "More words.\n")
    with contextlib.chdir(project), Repo() as repo:
        assert repo.status("settings") == {}
    readme.write_text(text)


@pytest.mark.parametrize("default", [default for default in DEFAULTS if default.section not in OF_OTHER_DATA],
                         ids=lambda default: f"{default.section}.{default.name}")
def test_a_changed_default_runs_what_uses_it(project: Path, default: Default,
                                             tmp_path_factory: pytest.TempPathFactory) -> None:
    before = folder_sha256(project / "settings")
    with edited(project, default):
        shutil.copytree(project / "settings", kept := tmp_path_factory.mktemp("kept"), dirs_exist_ok=True)
        code, printed = write_settings(project)
    refused = code == 1 and "to mend" in printed  # for what another parameter says
    changed = {name for name, digest in folder_sha256(project / "settings").items() if digest != before[name]}
    assert refused or changed, printed
    shutil.rmtree(project / "settings")
    shutil.copytree(kept, project / "settings")
