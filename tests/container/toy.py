"""A small workspace whose stages are shell scripts, and a small image with DVC in it, for tests of containers."""

import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import docker
from packaging.requirements import Requirement

from repro.image.build import BASE_NAME
from repro.image.contents import image_name

ROOT = Path(__file__).parents[2]
PACKAGES = ("dvc", "psutil")
"""What `repro.guarded_dvc` imports; the packages that these need come with them."""
DOCKERFILE = f"""FROM {BASE_NAME}
COPY contents.json /opt/repblend/
COPY bin /usr/local/bin
COPY packages /usr/local/lib/python3.11/dist-packages
"""
SOURCES = shutil.ignore_patterns("__pycache__", "*.egg-info")
SLOW = "echo started >> beats; until test -e go; do date >> beats; sleep 0.1; done; echo done > records/slow.txt"
"""A stage that runs until a file `go` is there."""
CONTENTS = b'{"debian": {}, "distributions": {}, "python": "3.11"}\n'
"""What the toy image says of itself, and the toy workspace expects."""
PATIENCE_S = 180
"""A container that takes a second on an idle machine takes a minute beside other work."""


class Toy:
    """A workspace of its own with a git history. It has a stage `prepare`, and those that a test defines."""

    def __init__(self, folder: Path, output: str = "output") -> None:
        """Look at a workspace that is there.

        Args:
            output: what the file beside it is called that takes what commands print.
        """
        self.folder = folder
        self.inside = folder / ".dvc/inside/quickstart"
        """What a container has in the place of the folder, while a run lasts."""
        self._output = folder.parent / output

    @classmethod
    def make(cls, folder: Path) -> Path:
        """Make a workspace in a folder, committed; return the folder. A copy of it is a workspace, too."""
        toy = cls(folder)
        for name in ("repro", "src", "conf"):
            shutil.copytree(ROOT / name, folder / name, ignore=SOURCES)
        shutil.copyfile(ROOT / "params.yaml", folder / "params.yaml")
        write_lock(folder)
        (folder / ".gitignore").write_text("*.txt\n!requirements/lock.txt\n/checkpoints\nbeats\ngo\n")
        toy.define()
        toy.git("init", "--quiet")
        toy.dvc("init", "--quiet")
        with (folder / ".dvc/.gitignore").open("a") as ignored:
            ignored.write("/inside\n")
        toy.commit()
        return folder

    def define(self, **stages: str) -> None:
        """Write dvc.yaml: `prepare` lists the network's interfaces; every stage, name -> shell command, depends on it
        and writes records/NAME.txt.
        """
        lines = ["stages:", "  prepare:", "    cmd: mkdir -p records && ls /sys/class/net > records/prepare.txt",
                 "    outs: [records/prepare.txt]"]
        for name, command in stages.items():
            lines += [f"  {name}:", "    cmd: |-", f"      {command}", "    deps: [records/prepare.txt]",
                      f"    outs: [records/{name}.txt]"]
        (self.folder / "dvc.yaml").write_text("\n".join(lines) + "\n")

    def git(self, *arguments: str) -> None:
        subprocess.run(["git", "-c", "user.name=Test", "-c", "user.email=test@test", *arguments], cwd=self.folder,
                       check=True)

    def dvc(self, *arguments: str) -> None:
        subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=self.folder, check=True)

    def commit(self) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", "Toy")

    def start(self, *arguments: str, **variables: str) -> subprocess.Popen:
        """Start `repro ARGUMENTS` here; its output goes to a file beside the folder."""
        own = {"PYTHONPATH": f"{self.folder / 'src'}:{self.folder}", "REPRO_ENGINE": "auto"}
        environment = os.environ | own | variables
        with self._output.open("w") as output:
            return subprocess.Popen([sys.executable, "-m", "repro", *arguments], cwd=self.folder, env=environment,
                                    stdout=output, stderr=subprocess.STDOUT)

    def run(self, *arguments: str, expect: int = 0, **variables: str) -> str:
        """Run `repro ARGUMENTS` here and return what it printed; its exit code has to be the expected one."""
        code = self.start(*arguments, **variables).wait(timeout=PATIENCE_S)
        assert code == expect, self.output()
        return self.output()

    def output(self) -> str:
        """What the last command printed."""
        return self._output.read_text()

    def read(self, name: str) -> str:
        return (self.folder / name).read_text()

    def containers(self, client: docker.DockerClient) -> list[docker.models.containers.Container]:
        """Containers of this workspace, running or not."""
        return client.containers.list(all=True, filters={"label": f"repblend.workspace={self.folder}"})

    def start_slow(self, client: docker.DockerClient, **variables: str
                   ) -> tuple[subprocess.Popen, docker.models.containers.Container]:
        """Start stage `slow` in a container; return the client's process and the container once the stage runs."""
        self.define(slow=SLOW)
        (self.inside / "beats").unlink(missing_ok=True)  # of a run whose engine went away
        process = self.start("run", "slow", "--engine", "docker", **variables)
        wait_until(lambda: (self.inside / "beats").exists() or process.poll() is not None)
        assert process.poll() is None, self.output()
        return process, self.containers(client)[0]

    def stands_still(self) -> bool:
        """Whether stage `slow` has stopped writing."""
        beats = self.inside / "beats"
        before = beats.stat().st_size if beats.exists() else 0
        time.sleep(0.5)
        return not beats.exists() or beats.stat().st_size == before

    def finish(self, **variables: str) -> str:
        """Let stage `slow` end, and run again: what a user does after any fault."""
        (self.folder / "go").touch()
        output = self.run("run", "slow", "--engine", "docker", **variables)
        assert self.read("records/slow.txt") == "done\n"
        return output


def write_lock(folder: Path) -> None:
    """Write what the image is made of, and the requirements that it is called after: others in every test session."""
    (folder / "docker").mkdir()
    (folder / "docker" / "contents.json").write_bytes(CONTENTS)
    (folder / "requirements").mkdir()
    (folder / "requirements" / "lock.txt").write_text(f"# of the image of tests in process {os.getpid()}\n")


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def build_image(client: docker.DockerClient) -> docker.models.images.Image:
    """Build the image of toy workspaces: the base, and DVC as it is installed here."""
    with tempfile.TemporaryFile() as context, tempfile.TemporaryDirectory() as folder:
        write_lock(Path(folder))
        with tarfile.open(fileobj=context, mode="w") as tar:
            for name, content in (("Dockerfile", DOCKERFILE.encode()), ("contents.json", CONTENTS)):
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                tar.addfile(entry, BytesIO(content))
            link = tarfile.TarInfo("bin/python")
            link.type, link.linkname = tarfile.SYMTYPE, "/usr/bin/python3"
            tar.addfile(link)
            for name in sorted(with_requirements(PACKAGES)):
                add_distribution(tar, name)
        context.seek(0)
        return client.images.build(fileobj=context, custom_context=True, tag=image_name(Path(folder)), rm=True)[0]


def with_requirements(names: tuple[str, ...]) -> set[str]:
    """Return the names of distributions and of all that they need here."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name not in found:
            found.add(name)
            needed = [Requirement(line) for line in importlib.metadata.requires(name) or []]
            waiting += [one.name for one in needed if one.marker is None or one.marker.evaluate({"extra": ""})]
    return found


def add_distribution(tar: tarfile.TarFile, name: str) -> None:
    """Add a distribution's files, and what Python compiled of them: in a read-only image it could not keep that."""
    for file in importlib.metadata.files(name) or []:
        if ".." in file.parts or file.suffix == ".pyc":
            continue
        tar.add(file.locate(), f"packages/{file}")
        compiled = Path(importlib.util.cache_from_source(str(file.locate())))
        if file.suffix == ".py" and compiled.exists():
            tar.add(compiled, f"packages/{file.parent}/__pycache__/{compiled.name}")
