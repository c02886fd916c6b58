"""A workspace of its own for a test: the project's files, a git history, and parameters that make the pipeline tiny."""

import os
import shutil
import subprocess
import sys
from pathlib import Path, PurePosixPath
from typing import Any

from ruamel.yaml import YAML

from repblend.store import sha256
from repro.pipeline import pipeline_for, yaml_text
from tests import forked

ROOT = Path(__file__).parents[2]
COPIED = ("Makefile", "benchmarks", "conf", "docker", "dvc.yaml", "paper/published", "paper/claims.yaml",
          "paper/report.ipynb", "params.yaml", "pyproject.toml", "repro", "requirements", "src", ".dvc/config",
          ".dvc/.gitignore", ".dvcignore", ".gitignore")
TINY: dict[str, Any] = {
    "compute": {"threads": 1},
    "data": {"image_size": 32, "num_val": 12, "num_test": 16, "max_train": 60},
    "encode": {"views": {"num": 2}},
    "heads": {"width": 16},
    "experts": {"num": 4, "min_steps": 0, "epochs": 6, "batch_size": 32, "snapshots_every": 2},
    "encoder_experts": {"num": 2, "min_steps": 0, "epochs": 2, "batch_size": 32, "snapshots_every": 3},
    "grid": {"budgets": [8], "coresets": ["random"], "distilled": ["repblend"], "encoder_distilled": ["lors"],
             "encoder_coresets": ["random"], "compared_budgets": [8], "variants": {"rank": ["repblend+rank-2"]},
             "all_variants": ["repblend+rank-2"], "variants_budget": 8},
    "transfer": {"architectures": ["efficientnet_lite1"], "num_icons": 12},
    "distill": {"common": {"iterations": 30, "inner_steps": 2, "batch_size": 4, "expert_span": 2, "max_start": 2,
                           "validate_every": 10, "checkpoint_every": 1, "validation_seeds": 1}},
    "evaluate": {"num_seeds": 2, "distilled": {"epochs": 4, "scored_intervals": 2},
                 "coresets": {"epochs": 4, "scored_intervals": 2}, "full_data": {"epochs": 2, "scored_intervals": 2},
                 "encoder_students": {"epochs": 1, "scored_intervals": 1}},
}
CELLS: dict[str, Any] = {"repblend-8": {}, "repblend+rank-2-8": {"similarity_rank": 2},
                         "lors-8": {"iterations": 2, "validate_every": 1, "inner_steps": 1, "initial_lr_img": 0.0003,
                                    "expert_span": 1, "max_start": 1}}


class Workspace:
    """A copy of the project in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def create(cls, folder: Path) -> "Workspace":
        """Copy the project's files as they are now, shrink the parameters, and commit."""
        ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
        for name in COPIED:
            source, target = ROOT / name, folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, ignore=ignore)
            else:
                shutil.copyfile(source, target)
        workspace = cls(folder)
        workspace.change(TINY | {"distill": TINY["distill"] | {"cells": CELLS}})
        for arguments in (["init", "--quiet"], ["config", "user.name", "Test"], ["config", "user.email", "test@test"]):
            subprocess.run(["git", *arguments], cwd=folder, check=True)
        workspace.commit("Start")
        return workspace

    def change(self, changes: dict[str, Any]) -> None:
        """Change parameters, and make `dvc.yaml` from them as `repro run` does."""
        yaml = YAML()
        path = self.folder / "params.yaml"
        content = yaml.load(path)
        merge(content, changes)
        yaml.dump(content, path)
        made = pipeline_for(ROOT / "conf/multimodal.dvc.yaml", content, PurePosixPath("."), {})
        (self.folder / "dvc.yaml").write_text(yaml_text(made))

    def edit(self, *sources: str, line: str = "EDITED = True") -> None:
        """Append a line to files: code, since a comment would be no edit."""
        for name in sources:
            with (self.folder / name).open("a") as file:
                file.write(f"{line}\n")

    def commit(self, message: str) -> None:
        subprocess.run(["git", "add", "--all"], cwd=self.folder, check=True)
        subprocess.run(["git", "commit", "--quiet", "--message", message], cwd=self.folder, check=True)

    def start(self, *command: str, **variables: str) -> subprocess.Popen:
        """Start a Python command on this copy's own sources, its output going to `output.txt`."""
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(self.folder / "src"), str(self.folder)]),
                                    "OMP_NUM_THREADS": "1"} | variables
        with (self.folder.parent / f"{self.folder.name}-output.txt").open("w") as output:
            return subprocess.Popen([sys.executable, *command], cwd=self.folder, env=environment, stdout=output,
                                    stderr=subprocess.STDOUT)

    def output(self) -> str:
        """What the last command printed."""
        return (self.folder.parent / f"{self.folder.name}-output.txt").read_text()

    def run(self, *command: str, expect: int = 0, **variables: str) -> str:
        """Run a Python command and return what it printed; its exit code has to be the expected one."""
        code = self.start(*command, **variables).wait(timeout=600)
        assert code == expect, self.output()
        return self.output()

    def run_forked(self, *arguments: str, within: str = "", figures: int | None = None) -> str:
        """As `run("-m", "repro", ...)`, in a folder of this copy, whose sources differ from these in comments alone; no
        interpreter starts, and the report has no more figures than it is asked for.
        """
        code, printed = forked.repro(self.folder / within, *arguments, figures=figures)
        assert code == 0, printed
        return printed

    def hashes(self, *names: str) -> dict[str, str]:
        """SHA-256 of every file below the named files and folders."""
        files = [path for name in names for path in sorted([self.folder / name, *(self.folder / name).rglob("*")])]
        return {str(path.relative_to(self.folder)): sha256(path) for path in files
                if path.is_file()}


def merge(content: dict[str, Any], changes: dict[str, Any]) -> None:
    """Put changes into parameters; a mapping changes what it names, but cells and variants are replaced whole."""
    for key, value in changes.items():
        if isinstance(value, dict) and key in content and key not in ("cells", "variants"):
            merge(content[key], value)
        else:
            content[key] = value
