"""Parameters that would run commands of their own: plain `dvc repro` refuses them in its first stage."""

import os
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.end_to_end.workspace import Workspace

FORMS = ["x;touch y", "x$(touch y)", "x`touch y`", "x|touch y", "x&touch y", "x\ntouch y"]


@pytest.mark.parametrize("arguments", [(), ("--keep-going",)])
def test_plain_dvc_runs_no_command_that_parameters_bring(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    workspace = Workspace.create(tmp_path / "clone")
    path = workspace.folder / "params.yaml"
    content = YAML(typ="safe").load(path)
    content["grid"] |= {"coresets": [*FORMS, "random"], "encoder_coresets": FORMS}
    YAML(typ="safe").dump(content, path)
    this_python = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    said = workspace.run("-m", "dvc", "repro", *arguments, expect=255, PATH=this_python)
    assert "grid.coresets.0: String should match pattern" in said
    assert not [*workspace.folder.rglob("y")] and not (workspace.folder / "records").exists()
