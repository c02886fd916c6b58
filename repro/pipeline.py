"""What kinds of pipelines there are, and the `dvc.yaml` of a workspace.

A profile says of which kind it is (`kind: NAME` in its file in `conf/profiles`); a new kind is an entry in `KINDS`.
Every workspace's `dvc.yaml`, the root's too, is made from the template of its kind in `conf/` and its own parameters.
"""

import importlib
import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from io import StringIO
from pathlib import Path, PurePosixPath
from re import fullmatch, sub
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.representer import RoundTripRepresenter

from repblend.data.karpathy import SPLITS, annotation_file
from repblend.encoders.hub import checkpoint_of, local_folder, record_of
from repblend.params import Params
from repblend.params.data import OpenMojiData, OwnData
from repblend.params.reading import read_yaml
from repblend.runtime.settings import Pipeline
from repblend.sections import Section
from repblend.stages.pipeline import Context
from repblend.ufc.params import UfcParams
from repblend.ufc.stages.pipeline import UfcContext


@dataclass(frozen=True)
class Brought:
    """What a user brings, which neither git nor the pipeline has. Paths are relative to the clone or absolute."""

    folders: Sequence[Path] = ()
    """What stages read, folders or single files: containers see them, and so does a clean checkout."""
    files: Mapping[str, Sequence[Path]] = field(default_factory=dict)
    """Stage -> files, or folders of files, that it has to run again for."""
    records: Mapping[str, Sequence[Path]] = field(default_factory=dict)
    """Stage -> files of that kind which a fetch writes: what identifies checkpoints that nothing else pins."""

    @property
    def dependencies(self) -> dict[str, list[Path]]:
        """Stage -> all files that it has to run again for."""
        return {stage: [*self.files.get(stage, ()), *self.records.get(stage, ())]
                for stage in self.files.keys() | self.records.keys()}


@dataclass(frozen=True)
class Kind:
    """A pipeline that profiles set the parameters of."""

    params: type[Section]
    """What `params.yaml` has to be."""
    template: Path
    """In the clone: the pipeline with all of its stages, for a workspace that is the clone itself."""
    pipeline: Pipeline
    """Its stages, and what each is made of."""
    rehearsal: str
    """Module that takes a few steps of a kind of work."""
    results_of: str
    """Module whose `results_text` tells the results of a workspace, shown after a run."""
    report: Path
    """In the workspace."""
    brought: Callable[[Any], Brought]
    """From the parameters to what a user brings."""
    num_students: Callable[[Any], int]
    """From the parameters to the students that every result is the mean of."""

    def results(self, workspace: Path) -> str:
        """Return the results of a workspace as text; raises `ValueError` if a record is broken."""
        return importlib.import_module(self.results_of).results_text(workspace)  # slow to import, and seldom needed


TRANSFERS = ("transfer-coreset", "transfer-distilled", "transfer-encoder")


def _brought(params: Params) -> Brought:
    data, imports, encoders = _dataset(params), _imports(params), _local_encoders(params)
    return Brought((*data.folders, *imports.folders, *encoders.folders),
                   {**data.files, **imports.files, **encoders.files}, _records(params))


def _dataset(params: Params) -> Brought:
    """The annotations of a data set that lies on this machine; the embedded one comes as a package. Images need not be
    named: what is written of each of them holds its hash.
    """
    data = params.data
    if isinstance(data, OpenMojiData):
        return Brought()
    folder = Path(data.folder)
    files = [folder / data.captions] if isinstance(data, OwnData) else [
        folder / data.annotations.get(split, annotation_file(Path(), data.name, split)) for split in SPLITS]
    return Brought((folder,), {"prepare": files})


def _records(params: Params) -> dict[str, list[Path]]:
    """The records of checkpoints that the source does not pin. Other stages depend on what `encode` writes."""
    found = {stage: [record_of(checkpoint) for name in names
                     if (checkpoint := checkpoint_of(name)) and not checkpoint.is_pinned]
             for stage, names in _encoders(params).items()}
    return {stage: records for stage, records in found.items() if records}


def _local_encoders(params: Params) -> Brought:
    """Folders of the user's own weights; the name of any other encoder, or its record, says which weights it has."""
    found = {stage: list(dict.fromkeys(folder for name in names if (folder := local_folder(name))
                                       and folder.is_absolute())) for stage, names in _encoders(params).items()}
    files = {stage: folders for stage, folders in found.items() if folders}
    return Brought(tuple(dict.fromkeys(folder for folders in files.values() for folder in folders)), files)


def _encoders(params: Params) -> dict[str, list[str]]:
    """The stages that encode what no other stage has encoded, and with what."""
    of_pairs = [name for pair in params.grid.pairs.values() for name in (pair.image_encoder, pair.text_encoder)]
    return {"encode": [params.encode.image_encoder, params.encode.text_encoder],
            **({"encode-pair": of_pairs} if of_pairs else {}),
            **dict.fromkeys(TRANSFERS, params.transfer.architectures)}


def _images(params: UfcParams) -> Brought:
    """The folder of labelled images on this machine (the digits come as a package), and files of the release."""
    sources = {"initial": params.data.initial_from, "teacher": params.teachers.import_from,
               "integrate": params.generation.import_from}
    named = {"prepare": params.data.folder} | {stage: source.path for stage, source in sources.items() if source}
    files = {stage: [Path(path)] for stage, path in named.items() if path}
    return Brought(tuple(path for paths in files.values() for path in paths), files)


def _imports(params: Params) -> Brought:
    """Files of the official release. An imported set is no dependency: all cells are one stage, and the SHA-256 in a
    cell's parameters says what only that cell has to run again for.
    """
    buffers = {stage: [Path(settings.import_from.path)] for stage, settings in (
        ("experts", params.experts), ("encoder-experts", params.encoder_experts)) if settings.import_from}
    cells = [params.distill.settings(cell).import_from for cell in params.distill.cells]
    folders = [folder for paths in buffers.values() for folder in paths]
    return Brought((*folders, *(Path(cell.path) for cell in cells if cell)), buffers)


MULTIMODAL = "multimodal"
KINDS: dict[str, Kind] = {
    MULTIMODAL: Kind(Params, Path("conf/multimodal.dvc.yaml"), Context.pipeline, "repblend.rehearsal",
                     "repblend.report.results", Path("paper/report.html"), _brought,
                     lambda params: params.evaluate.num_seeds),
    "ufc": Kind(UfcParams, Path("conf/ufc.dvc.yaml"), UfcContext.pipeline, "repblend.ufc.rehearsal",
                "repblend.ufc.report.tables", Path("paper/report.html"), _images,
                lambda params: params.validation.num_seeds),
}


# The `dvc.yaml` of a workspace: the template without what the parameters leave out, with sources named from there.

OUTPUTS = ("outs", "metrics")
ONLY_WITH = "only_with"
"""Key of a template's stage: a list of the parameters; while it is empty, the stage is left out."""
REFERENCE = r"\$\{([\w.]+)\}"
WIDTH = 120


def pipeline_for(template: Path, params: Mapping[str, Any], from_workspace: PurePosixPath,
                 brought: Mapping[str, Sequence[Path]]) -> dict[str, Any]:
    """Return the content of a workspace's `dvc.yaml`.

    Args:
        template: the whole pipeline, for a workspace that is the clone itself.
        params: the content of the workspace's `params.yaml`.
        from_workspace: the way from the workspace to the clone, `../..`.
        brought: stage -> files of the user that it depends on, relative to the clone or absolute.

    Raises:
        ValueError: the template cannot be read, has no stage that `brought` names, or names a parameter that is not
            there.
    """
    content = read_yaml(template)
    whole = content["stages"]
    if unknown := sorted(brought.keys() - whole.keys()):
        raise ValueError(f"{template}: has no stage {', '.join(unknown)}")
    kept = {name: {key: value for key, value in stage.items() if key != ONLY_WITH}
            for name, stage in whole.items() if _has_cells(stage, params)}
    could_be_made, made = _outputs(whole), _outputs(kept)

    def dependencies(name: str, stage: Mapping[str, Any]) -> list[str]:
        """What the pipeline makes is the workspace's own, if a stage is left that makes it; all else the clone's."""
        own = [path for path in stage["deps"] if _is_made(path, could_be_made)]
        return [*(path if path in own else str(from_workspace / path) for path in stage["deps"]
                  if path not in own or _is_made(path, made)),
                *(str(from_workspace / path) for path in brought.get(name, ()))]

    stages = {name: stage | {"deps": dependencies(name, stage)} for name, stage in kept.items()}
    plots = [*_plots(content.get("plots", []), [path for stage in kept.values() for path in _files(stage, params)])]
    return {"stages": stages} | ({"plots": plots} if plots else {})


def _has_cells(stage: Mapping[str, Any], params: Mapping[str, Any]) -> bool:
    lists = [*stage.get("matrix", {}).values(), *([stage[ONLY_WITH]] if ONLY_WITH in stage else [])]
    return all(_values(entry, params) for entry in lists)


def _values(entry: str | list[Any], params: Mapping[str, Any]) -> list[Any]:
    """Return a list of the template: as it stands there, or the one of the parameters that it refers to."""
    return _parameter(fullmatch(REFERENCE, entry)[1], params) if isinstance(entry, str) else entry


def _parameter(key: str, params: Mapping[str, Any]) -> Any:
    found: Any = params
    for part in key.split("."):
        if part not in found:
            raise ValueError(f"params.yaml: has no {key}, which the pipeline asks for. Add it")
        found = found[part]
    return found


def _outputs(stages: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the paths of all outputs with `*` for whatever a stage's cell puts in."""
    return [_pattern(out) for stage in stages.values() for key in OUTPUTS for out in stage.get(key, [])]


def _pattern(out: str | Mapping[str, Any]) -> str:
    return sub(REFERENCE, "*", out if isinstance(out, str) else next(iter(out)))


def _is_made(path: str, outputs: Sequence[str]) -> bool:
    """Whether a dependency is among these outputs, inside of one, or a folder of some."""
    return any(fnmatchcase(_pattern(path), out) or out.startswith(f"{path}/") or path.startswith(f"{out}/")
               for out in outputs)


def _files(stage: Mapping[str, Any], params: Mapping[str, Any]) -> Iterator[str]:
    """Yield the outputs of every cell of a stage."""
    axes = {name: _values(entry, params) for name, entry in stage.get("matrix", {}).items()}
    for cell in itertools.product(*axes.values()):
        item = dict(zip(axes, cell, strict=True))
        for out in stage.get("outs", []):
            yield sub(REFERENCE, lambda found, item=item: str(_parameter(found[1], {**params, "item": item})),
                      out if isinstance(out, str) else next(iter(out)))


def _plots(declared: Sequence[Mapping[str, Any]], outputs: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield the template's plots with the files of every output folder that fits; one without any is left out."""
    for plot in declared:
        for title, settings in plot.items():
            files = {f"{out}/{PurePosixPath(pattern).name}": column for pattern, column in settings["y"].items()
                     for out in outputs if PurePosixPath(out).match(str(PurePosixPath(pattern).parent))}
            if files:
                yield {title: settings | {"y": files}}


class _Representer(RoundTripRepresenter):
    """Writes `null` for None and no aliases. A class of its own: DVC in the same process writes dvc.lock as ever."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Representer.add_representer(type(None), lambda representer, value: representer.represent_scalar(
    "tag:yaml.org,2002:null", "null"))


def yaml_text(content: Mapping[str, Any]) -> str:
    """Return YAML in the order of the keys, short lists and mappings on one line."""
    yaml, text = YAML(), StringIO()
    yaml.default_flow_style, yaml.width = None, WIDTH
    yaml.Representer = _Representer
    yaml.dump(content, text)
    return text.getvalue()


def way_to(root: Path, workspace: Path) -> PurePosixPath:
    """Return the way from a workspace to its clone."""
    return PurePosixPath(os.path.relpath(root, workspace))
