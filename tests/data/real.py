"""Workspaces whose `params.yaml` names a dataset in a folder."""

import json
from pathlib import Path
from typing import Any

import pytest

from repblend.params import read_params
from repblend.runtime.context import Paths
from repblend.stages import prepare
from repblend.stages.pipeline import Context
from tests.tiny import tiny_content

ENTRY = {"image_size": 32, "max_caption_words": 60}
"""Fields of `data` that every small set has."""


def workspace_with(folder: Path, data: dict[str, Any], **sections: Any) -> Path:
    """Write tiny parameters with another entry `data`; return the workspace."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "params.yaml").write_text(json.dumps(tiny_content() | sections | {"data": ENTRY | data}))
    return folder


def prepared(workspace: Path) -> Path:
    """Run stage `prepare`; return what it wrote."""
    paths = Paths(workspace)
    prepare.run(Context("prepare", None, read_params(paths.params), paths))
    return paths.data


def refusal(workspace: Path) -> str:
    """Return what stage `prepare` says when it refuses; nothing may be written."""
    with pytest.raises(ValueError) as caught:
        prepared(workspace)
    assert not (workspace / "data/prepared").exists()
    return str(caught.value)
