"""A small workspace whose stages are shell scripts, for tests of jobs."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from repblend.params.reading import read_yaml
from repblend.store import sha256
from repro.cluster.jobs import Job, read_jobs
from repro.pipeline import yaml_text

ROOT = Path(__file__).parents[2]
SOURCES = shutil.ignore_patterns("*.egg-info")
PATIENCE_S = 300
"""How long a test waits for what has to come: on a busy machine, a start of Python alone may take many seconds."""
EXPERTS = '''\
"""Trains three experts, or with --only one of them, in checkpoints of the shared workspace."""
import os, sys, time
from pathlib import Path
kept = Path(os.environ.get("REPBLEND_SHARED_WORKSPACE", "."), "checkpoints/experts")
kept.mkdir(parents=True, exist_ok=True)
wanted = [int(sys.argv[2])] if sys.argv[1:2] == ["--only"] else range(3)
for number in wanted:
    if not (kept / str(number)).exists():
        with Path(kept, "log").open("a") as log:
            log.write(f"{number} {os.environ.get('CUDA_VISIBLE_DEVICES', 'none')} {sys.argv[1:2]}\\n")
        time.sleep(float(Path("input.txt").read_text()))
        (kept / str(number)).write_text(f"expert {number}\\n")
if len(wanted) == 3:
    Path("records").mkdir(exist_ok=True)
    Path("records/experts.txt").write_text("".join((kept / str(number)).read_text() for number in wanted))
'''


class Toy:
    """A workspace of its own, with a cluster's settings."""

    def __init__(self, folder: Path, variables: Mapping[str, str] | None = None) -> None:
        """Make it.

        Args:
            variables: by which commands find a cluster.
        """
        self.folder, self.variables = folder, dict(variables or {})
        for name in ("repro", "src", "conf"):
            shutil.copytree(ROOT / name, folder / name, ignore=SOURCES)
        content = (ROOT / "params.yaml").read_text()
        (folder / "params.yaml").write_text(content.replace("  num: 10", "  num: 3", 1))
        (folder / "input.txt").write_text("0\n")
        (folder / "experts.py").write_text(EXPERTS)
        self.settings()
        subprocess.run([sys.executable, "-m", "dvc", "init", "--quiet", "--no-scm"], cwd=folder, check=True)

    def settings(self, **changes: Any) -> None:
        """Write cluster.yaml."""
        settings = {"gpus": 1, "poll_seconds": 0.5, "visible_gpus": [0, 1], **changes}
        (self.folder / "cluster.yaml").write_text(yaml_text(settings))

    def define(self, **stages: tuple[str, Sequence[str]]) -> None:
        """Write dvc.yaml: stage -> its shell command, and the stages that it needs; it writes records/NAME.txt, and all
        depend on input.txt and experts.py.
        """
        given = ["input.txt", "experts.py"]
        content = {name: {"cmd": command, "deps": [*given, *(f"records/{before}.txt" for before in needs)],
                          "outs": [f"records/{name}.txt"]} for name, (command, needs) in stages.items()}
        (self.folder / "dvc.yaml").write_text(yaml_text({"stages": content}))

    def also_depends(self, stage: str, path: str) -> None:
        """Let a stage depend on one more file."""
        content = read_yaml(self.folder / "dvc.yaml")
        content["stages"][stage]["deps"].append(path)
        (self.folder / "dvc.yaml").write_text(yaml_text(content))

    def start(self, *arguments: str) -> subprocess.Popen:
        """Start `repro run ARGUMENTS`; its output goes to a file beside the folder."""
        own = {"PYTHONPATH": f"{self.folder / 'src'}:{self.folder}", **self.variables}
        with self.output_file.open("w") as output:
            return subprocess.Popen([sys.executable, "-m", "repro", "run", *arguments], cwd=self.folder,
                                    env=os.environ | own, stdout=output, stderr=subprocess.STDOUT,
                                    start_new_session=True)  # as a terminal's Ctrl-C reaches it

    def run(self, *arguments: str, expect: int = 0, patience_s: float = PATIENCE_S) -> str:
        """Run `repro run ARGUMENTS` and return what it printed."""
        code = self.start(*arguments).wait(timeout=patience_s)
        assert code == expect, self.output()
        return self.output()

    @property
    def output_file(self) -> Path:
        return self.folder.with_name(f"{self.folder.name}-output.txt")

    def output(self) -> str:
        return self.output_file.read_text()

    def read(self, name: str) -> str:
        return (self.folder / name).read_text()

    def jobs(self) -> dict[str, Job]:
        return {job.name: job for job in read_jobs(self.folder)}

    def hashes(self) -> dict[str, str]:
        """SHA-256 of dvc.lock and of all outputs."""
        return {path.name: sha256(path) for path in (self.folder / "dvc.lock", *(self.folder / "records").iterdir())}


def wait_until(condition: Callable[[], object], toy: Toy) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, toy.output()
        time.sleep(0.05)
