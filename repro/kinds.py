"""What kinds of pipelines there are: what a workspace's parameters, pipeline and report are.

A profile says of which kind it is (`kind: NAME` in its file in `conf/profiles`); a new kind is one more entry here.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repblend.params import Params
from repblend.report.tables import results_text
from repblend.sections import Section


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
    brought: Callable[[Any], Mapping[str, Path]]
    """From the parameters to what a user brings: stage -> a file that it depends on, relative to the clone or absolute.
    Containers see the folder that it lies in."""


def _dataset(params: Params) -> dict[str, Path]:
    """The manifest of a data set that lies on this machine; the embedded one comes as a package."""
    folder = getattr(params.data, "folder", None)
    return {"prepare": Path(folder) / "manifest.json"} if folder else {}


MULTIMODAL = "multimodal"
KINDS: dict[str, Kind] = {
    MULTIMODAL: Kind(Params, Path("dvc.yaml"), results_text, Path("paper/report.html"), _dataset),
}
