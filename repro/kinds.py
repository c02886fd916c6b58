"""What kinds of pipelines there are: what a workspace's parameters, pipeline and report are.

A profile says of which kind it is (`kind: NAME` in its file in `conf/profiles`); a new kind is one more entry here.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from repblend.data.karpathy import SPLITS, annotation_file
from repblend.data_params import OpenMojiData, OwnData
from repblend.encoders.hub import record_of
from repblend.encoders.pins import checkpoint_of, local_folder
from repblend.params import Params
from repblend.report.tables import results_text
from repblend.sections import Section
from repblend.ufc.params import UfcParams
from repblend.ufc_report.tables import results_text as ufc_results_text


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
    """In the clone: the pipeline for a workspace that is the clone itself."""
    results: Callable[[Path], str]
    """From a workspace to its results as text, shown after a run; raises `ValueError` if a metrics file is broken."""
    report: Path
    """In the workspace."""
    brought: Callable[[Any], Brought]
    """From the parameters to what a user brings."""


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
    return {"encode": [params.encode.image_encoder, params.encode.text_encoder],
            **dict.fromkeys(TRANSFERS, params.transfer.architectures)}


def _images(params: UfcParams) -> Brought:
    """The folder of labelled images on this machine; the digits come as a package."""
    if params.data.folder is None:
        return Brought()
    return Brought((Path(params.data.folder),), {"prepare": [Path(params.data.folder)]})


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
    MULTIMODAL: Kind(Params, Path("dvc.yaml"), results_text, Path("paper/report.html"), _brought),
    "ufc": Kind(UfcParams, Path("conf/ufc.dvc.yaml"), ufc_results_text, Path("paper/report.html"), _images),
}
