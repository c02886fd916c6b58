"""Settings: what decides the bytes of a stage's outputs besides its inputs, in one small file per stage and cell.

A pipeline declares its stages in one table: which parameter sections and which sources each is made of, and which cells
it has. From that table and `params.yaml` the first stage of every pipeline, `settings`, writes `settings/<stage>.json`
or `settings/<stage>/<cell>.json`: the seed, the resolved parameters with every default written out, and the SHA-256 of
the sources' code and of the locked environment. Every other stage depends on its own file, so it runs again for what
can change its bytes, and for nothing else: an edited default in `repblend.params` runs what uses it, an edited comment
nothing.
"""

import importlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel

import repblend
from repblend.records.base import Record, Sha256
from repblend.runtime.sources import code_sha256
from repblend.store import SOURCES, atomic_path, fingerprint

PACKAGE = Path(repblend.__file__).resolve().parent
ENVIRONMENT = (Path("docker/contents.json"), Path("requirements/lock.txt"))
"""What the image and the packages are made of, as seen from the clone."""
SETTINGS = "settings"
"""The stage that writes the files, and their folder in the workspace."""


class Settings(Record):
    """What decides a stage's outputs besides its inputs."""

    stage: str
    cell: str | None
    seed: int
    parameters: dict[str, Any]
    """Section -> its values, defaults included; of `distill` those of this cell."""
    sources: dict[str, Sha256]
    """Wing or module, as seen from the clone -> SHA-256 of its code (`runtime.sources`)."""
    environment: dict[str, Sha256]
    """File, as seen from the clone -> SHA-256."""

    @property
    def parameters_sha256(self) -> str:
        """Identifies the seed and the parameters."""
        return fingerprint([self.seed, self.parameters])


def without_cells(params: Any) -> Sequence[Any]:
    """Return the one run of a stage that has no cells."""
    return [None]


@dataclass(frozen=True)
class Stage:
    """What the outputs of a stage are made of."""

    sections: tuple[str, ...]
    """Parameter sections that it reads, besides the seed."""
    sources: tuple[str, ...]
    """Wings and modules of the package: `matching`, `store.py`."""
    cells: Callable[[Any], Sequence[Any]] = without_cells
    """From the parameters to the cells of the grid that it runs: `[None]` for a stage without cells, none where the
    grid leaves it out."""
    module: str | None = None
    """What `python -m` runs where that is none of the pipeline's package."""
    function: str | None = None
    """`<module>.<function>` of the package, where one module has several stages; by default `run` of the module of the
    stage's name."""
    parts: Callable[[Any], int] = lambda params: 0
    """From the parameters to how many parts of its work can be done apart, in any order: `--only NUMBER` does one, by
    `run_part` of the stage's module, and the stage itself does the rest. None of most stages."""


@dataclass(frozen=True)
class Pipeline:
    """A pipeline's stages, and how its parameters and cells are read."""

    package: str
    """Whose modules are the stages: `python -m PACKAGE STAGE [CELL]` runs one."""
    read: Callable[[Path], Any]
    """From `params.yaml` to the typed parameters; raises `ValueError` if they are not as expected."""
    parse_cell: Callable[[str, str], Any]
    """From a stage and the text of a cell to the cell; raises `ValueError` if it is none."""
    workspace: type[Any]
    """Where files live; made from the workspace's folder."""
    stages: Mapping[str, Stage]
    check: Callable[[Any, Any], None] = lambda params, paths: None
    """Raises `ValueError` if the parameters ask for more than the data set has that was prepared in a workspace."""
    section_of: Callable[[Any, str, Any], Any] = lambda params, section, cell: getattr(params, section)
    """From the parameters, a section's name and a cell to what this cell uses of the section."""

    def settings(self, params: Any, stage: str, cell: Any, repository: Path,
                 hash_of: Callable[[Path], str] | None = None) -> Settings:
        """Return the settings of one stage and cell.

        Args:
            repository: the clone, whose environment files count.
            hash_of: from a source or file to its SHA-256; by default read anew.

        Raises:
            ValueError: the parameters have no settings for the cell.
        """
        hash_of = hash_of or code_sha256
        declared = self.stages[stage]
        found = {name: self.section_of(params, name, cell) for name in declared.sections}
        return Settings(
            stage=stage, cell=None if cell is None else str(cell), seed=params.seed,
            parameters={name: value.model_dump(mode="json") if isinstance(value, BaseModel) else value
                        for name, value in found.items()},
            sources={str(SOURCES / source): hash_of(PACKAGE / source) for source in declared.sources},
            environment={str(path): hash_of(repository / path) for path in ENVIRONMENT
                         if (repository / path).is_file()})

    def function(self, stage: str) -> Callable[[Any], None]:
        """Import the module of a stage, and return what runs it, given its context."""
        module, _, name = (self.stages[stage].function or f"{stage.replace('-', '_')}.run").partition(".")
        return getattr(importlib.import_module(f"{self.package}.{module}"), name)

    def part_function(self, stage: str) -> Callable[[Any], None]:
        """Import the module of a stage, and return what does a part of its work, given a context of that part."""
        run_part: Callable[[Any], None] = importlib.import_module(self.function(stage).__module__).run_part
        return run_part

    @property
    def names(self) -> list[str]:
        """The stages that are modules of the package, and `settings`."""
        return [SETTINGS, *(name for name, stage in self.stages.items() if stage.module is None)]

    def cells(self, params: Any) -> Iterator[tuple[str, Any]]:
        """Yield every stage and cell of the grid, in the order of the table."""
        for stage, declared in self.stages.items():
            for cell in declared.cells(params):
                yield stage, cell


def settings_file(stage: str, cell: Any) -> Path:
    """Return the path of a stage's and cell's settings in the folder of all."""
    return Path(f"{stage}.json") if cell is None else Path(stage, f"{cell}.json")


def settings_texts(pipeline: Pipeline, root: Path) -> Iterator[tuple[Path, str]]:
    """Yield the path in the folder of all, and the content, of the settings of every stage and cell of the workspace at
    `root`.

    Raises:
        ValueError: `params.yaml` is not as expected, or names a cell without settings.
    """
    paths = pipeline.workspace(root)
    params, hash_of = pipeline.read(paths.params), cache(code_sha256)
    pipeline.check(params, paths)
    for stage, cell in pipeline.cells(params):
        found = pipeline.settings(params, stage, cell, paths.repository, hash_of)
        yield settings_file(stage, cell), json.dumps(found.to_json(), sort_keys=True, indent=1) + "\n"


def write_settings(pipeline: Pipeline, root: Path) -> None:
    """Write `settings_texts`, replacing the whole folder; raises `ValueError` likewise."""
    with atomic_path(root / SETTINGS) as aside:
        for name, text in settings_texts(pipeline, root):
            path = aside / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")


def differences(found: Settings, expected: Settings) -> list[str]:
    """Return the names of what two settings of one stage disagree in: `params.yaml`, sources, environment files."""
    names = [] if (found.seed, found.parameters) == (expected.seed, expected.parameters) else ["params.yaml"]
    for one, other in ((found.sources, expected.sources), (found.environment, expected.environment)):
        names += sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))
    return names


def check_written(settings: Settings, path: Path, name: str) -> None:
    """Check that a stage starts as its settings file says; started by hand before there is one, it starts.

    Raises:
        ValueError: the file says otherwise.
    """
    if path.is_file() and (edited := differences(settings, Settings.read(path))):
        raise ValueError(f"{path}: stage {name} would not be made of what this file says: {', '.join(edited)} was "
                         "edited since it was written. Start the pipeline with `repro run`, which writes it again")
