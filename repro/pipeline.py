"""The `dvc.yaml` of a workspace inside of the clone: the clone's own pipeline, with sources named from there."""

import os
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from io import StringIO
from pathlib import Path, PurePosixPath
from re import sub
from typing import Any

from ruamel.yaml import YAML

from repblend.params import read_yaml

OUTPUTS = ("outs", "metrics")
WIDTH = 120


def pipeline_for(template: Path, from_workspace: PurePosixPath,
                 brought: Mapping[str, Sequence[Path]]) -> dict[str, Any]:
    """Return the content of a workspace's `dvc.yaml`.

    Args:
        template: the pipeline of a workspace that is the clone itself.
        from_workspace: the way from the workspace to the clone, `../..`.
        brought: stage -> files of the user that it depends on, relative to the clone or absolute.

    Raises:
        ValueError: the template cannot be read, or has no stage that `brought` names.
    """
    stages = read_yaml(template)["stages"]
    made = [_pattern(out) for stage in stages.values() for key in OUTPUTS for out in stage.get(key, [])]
    if unknown := sorted(brought.keys() - stages.keys()):
        raise ValueError(f"{template}: has no stage {', '.join(unknown)}")
    return {"stages": {name: stage | {"deps": [
        *(_dependency(path, made, from_workspace) for path in stage["deps"]),
        *(str(from_workspace / path) for path in brought.get(name, ()))]} for name, stage in stages.items()}}


def yaml_text(content: Mapping[str, Any]) -> str:
    """Return YAML in the order of the keys, short lists and mappings on one line."""
    yaml, text = YAML(), StringIO()
    yaml.default_flow_style, yaml.width = None, WIDTH
    yaml.representer.ignore_aliases = lambda value: True
    yaml.representer.add_representer(type(None), lambda representer, value: representer.represent_scalar(
        "tag:yaml.org,2002:null", "null"))
    yaml.dump(content, text)
    return text.getvalue()


def way_to(root: Path, workspace: Path) -> PurePosixPath:
    """Return the way from a workspace to its clone."""
    return PurePosixPath(os.path.relpath(root, workspace))


def _dependency(path: str, made: list[str], from_workspace: PurePosixPath) -> str:
    """What the pipeline makes is the workspace's own; everything else is the clone's."""
    own = any(fnmatchcase(_pattern(path), out) or out.startswith(f"{path}/") or path.startswith(f"{out}/")
              for out in made)
    return path if own else str(from_workspace / path)


def _pattern(out: str | Mapping[str, Any]) -> str:
    """An output's path with `*` for whatever a stage's cell puts in."""
    return sub(r"\$\{[^}]*\}", "*", out if isinstance(out, str) else next(iter(out)))
