"""Workspaces in which every stage of a pipeline takes a fraction of a second."""

import shutil
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from repblend.params.reading import read_yaml
from tests.end_to_end.workspace import CELLS, TINY, merge
from tests.tiny import ROOT
from tests.ufc.report.synthetic import DIGITS, params_text

BESIDE = {"multimodal": ("benchmarks/efficiency.json", "paper/published", "paper/claims.yaml", "paper/report.ipynb"),
          "ufc": ("paper/published", "paper/claims.yaml", "paper/ufc.ipynb")}
COMMANDS = {
    "multimodal": [
        ("multimodal", "settings"), ("multimodal", "prepare"), ("multimodal", "encode"), ("multimodal", "experts"),
        ("multimodal", "encoder-experts"), ("multimodal", "select", "random-8"),
        ("multimodal", "distill", "repblend-8"), ("multimodal", "distill", "repblend+rank-2-8"),
        ("multimodal", "distill", "lors-8"),
        ("multimodal", "evaluate", "random-8"), ("multimodal", "evaluate", "repblend-8"),
        ("multimodal", "evaluate", "lors-8"), ("multimodal", "evaluate", "random+encoder-students-8"),
        ("multimodal", "bounds"), ("multimodal", "embed", "random-8"), ("multimodal", "transfer", "repblend-8"),
        ("export", "folder", "repblend-8", "exported"), ("export", "official", "repblend-8", "distilled.pt"),
        ("export", "official", "experts", "buffers"), ("report",)],
    "ufc": [
        ("ufc", "settings"), ("ufc", "prepare"), ("ufc", "initial"), ("ufc", "teacher", "convnet-small"),
        ("ufc", "generate", "convnet-small"), ("ufc", "integrate", "ufc-3"), ("ufc", "select", "random-3"),
        ("ufc", "select", "real-3"), ("ufc", "label", "ufc-3"), ("ufc", "label", "random-3"),
        ("ufc", "label", "real-3"),
        *(("ufc", "validate", f"{cell}+convnet-small-3") for cell in (
            "ufc+static", "random+static", "real+static", "ufc+dynamic", "random+dynamic", "random+hard")),
        ("ufc", "regions"), ("ufc-report",)]}
"""Of the server, by pipeline, in an order in which they can run."""


def make(pipeline: str, folder: Path, changes: dict[str, Any] | None = None) -> None:
    """Make the workspace of a pipeline, with some parameters changed."""
    content = multimodal() if pipeline == "multimodal" else ufc()
    merge(content, changes or {})
    place(folder, pipeline, content)


def multimodal() -> dict[str, Any]:
    content = read_yaml(ROOT / "params.yaml")
    merge(content, TINY | {"distill": TINY["distill"] | {"cells": {
        name: CELLS[name] for name in ("repblend-8", "repblend+rank-2-8", "lors-8")}}})
    merge(content, {
        "data": {"num_val": 10, "num_test": 12, "max_train": 16}, "encode": {"views": {"num": 1}},
        "experts": {"num": 2, "min_steps": 0, "epochs": 3, "batch_size": 16, "snapshots_every": 1},
        "encoder_experts": {"num": 2, "min_steps": 0, "epochs": 2, "batch_size": 16, "snapshots_every": 1},
        "grid": {"distilled": ["repblend"], "coresets": ["random"]},
        "transfer": {"num_icons": 10},
        "distill": {"common": {"iterations": 3, "validate_every": 2, "expert_span": 1, "max_start": 1}}})
    content["distill"]["cells"]["lors-8"] |= {"iterations": 2, "validate_every": 2, "inner_steps": 1}
    return content


def ufc() -> dict[str, Any]:
    text = params_text(DIGITS).replace("[alpha, beta]", "[convnet-small]").replace("[3, 10]", "[3]")
    text = text.replace("seeds: [1]", "seeds: []")
    return YAML(typ="safe").load(text.replace("[alpha, resnet18]", "[convnet-small]"))


def place(folder: Path, pipeline: str, content: dict[str, Any]) -> None:
    folder.mkdir(parents=True)
    with (folder / "params.yaml").open("w") as file:
        YAML().dump(content, file)
    for name in BESIDE[pipeline]:
        source, target = ROOT / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, target) if source.is_dir() else shutil.copyfile(source, target)
