"""`make install`: what it says before it downloads, what it refuses, and the machines that the lock is for."""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections import namedtuple
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement

from tests.docs.documents import ROOT

MACHINES = {"Linux x86_64": ("linux", "x86_64"), "Linux aarch64": ("linux", "aarch64"),
            "Darwin arm64": ("darwin", "arm64")}


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("install", ROOT / "requirements/install.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "index_answers", lambda: True)
    monkeypatch.setattr(module.platform, "system", lambda: "Linux")
    monkeypatch.setattr(module.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: namedtuple("usage", "free")(50e9))
    return module


def locked(name: str) -> list[Requirement]:
    text = (ROOT / "requirements" / name).read_text().replace("\\\n", " ")
    return [Requirement(line.partition(" --hash")[0]) for line in text.splitlines()]


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
@pytest.mark.parametrize("machine", MACHINES)
def test_the_sizes_are_of_what_a_machine_installs(machine: str, python: str) -> None:
    system, processor = MACHINES[machine]
    here = {"sys_platform": system, "platform_machine": processor, "python_version": python,
            "python_full_version": f"{python}.1", "implementation_name": "cpython",
            "platform_python_implementation": "CPython"}
    wanted = {each.name for name in ("lock.txt", "tools.txt") for each in locked(name)
              if each.marker is None or each.marker.evaluate(here)}
    size = json.loads((ROOT / "requirements/download.json").read_text())[machine]
    assert size["packages"] == len(wanted) and size["largest"].keys() <= wanted
    assert ("nvidia-cublas" in wanted) == (system == "linux") and size["bytes"] > sum(size["largest"].values())


def test_the_documents_and_the_project_name_the_same_pythons(install: ModuleType) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["requires-python"] == ">=3.11,<3.14"
    assert install.PYTHONS == ((3, 11), (3, 12), (3, 13))
    assert len(project["tool"]["uv"]["environments"]) == len(MACHINES) == len(install.MACHINES)
    assert "Python 3.11 to 3.13" in (ROOT / "README.md").read_text()


def test_it_says_first_what_it_downloads_and_how_much(install: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert install.check() == 0
    told = capsys.readouterr().out
    assert re.match(r"Downloading once from the package index: \d+ packages, \d\.\d GB \(torch \d+ MB, ", told)
    assert "50 GB are free" in told


@pytest.mark.parametrize(("module", "name", "value", "said"), [
    ("platform", "machine", lambda: "riscv64", "Linux riscv64: the packages are locked for Linux x86_64, "),
    ("sys", "version_info", (3, 10, 1), "expected 3.11, 3.12 or 3.13"),
    ("shutil", "disk_usage", lambda path: namedtuple("usage", "free")(3e9), "3.0 GB free, expected 8 GB")])
def test_what_cannot_work_is_refused_before_anything_is_downloaded(
        module: str, name: str, value: object, said: str, install: ModuleType, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(getattr(install, module), name, value)
    assert install.check() == 1 and said in capsys.readouterr().err


def test_an_offline_machine_is_told_so(install: ModuleType, monkeypatch: pytest.MonkeyPatch,
                                       capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(install, "index_answers", lambda: False)
    assert install.check() == 1 and "is this machine offline?" in capsys.readouterr().err


def test_another_machine_than_the_recorded_one_is_named(install: ModuleType, monkeypatch: pytest.MonkeyPatch,
                                                        capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(install.platform, "machine", lambda: "aarch64")
    assert install.check() == 0
    assert "on Linux aarch64: results were recorded, and tests are run, with Python 3.11" in capsys.readouterr().out


def test_progress_is_shown_and_pips_exit_code_passed_on(tmp_path: Path) -> None:
    """With a pip that prints as pip does."""
    package = tmp_path / "pip"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(
        "import sys\nfor n in range(30):\n    print(f'Collecting p{n}==1 (from -r lock.txt)')\n"
        "    print(f'  Downloading p{n}-1-py3-none-any.whl (3 MB)')\n"
        "print('Installing collected packages: p0')\nsys.exit(int('--fail' in sys.argv))\n")
    lock, root = tmp_path / "lock.txt", tmp_path / "requirements"
    lock.write_text("".join(f"p{n}==1 \\\n    --hash=sha256:00\n" for n in range(30)))
    root.mkdir()
    shutil.copyfile(ROOT / "requirements/install.py", root / "install.py")
    code = ("import sys, runpy; sys.prefix = sys.argv.pop(1); sys.path[0] = sys.prefix\n"
            "runpy.run_path(sys.argv.pop(1), run_name='__main__')")
    for more, expected in (([], 0), (["--fail"], 1)):
        words = [tmp_path, root / "install.py", "pip", "-r", "lock.txt", *more]
        done = subprocess.run([sys.executable, "-c", code, *words], cwd=tmp_path, capture_output=True, text=True,
                              check=False, env={"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin"})
        assert done.returncode == expected, done.stderr
        assert "packages: 25 of at most 30, p24 (3 MB)\n" in done.stdout
        assert ("packages: installed (30 locked)" in done.stdout) == (expected == 0)
        assert ("pip stopped, see above" in done.stderr) == (expected == 1)
    assert "Collecting p3==1" in (tmp_path / "install.log").read_text()


def test_what_was_installed_is_compiled_but_for_what_cannot_be(install: ModuleType, tmp_path: Path,
                                                               capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "package").mkdir()
    (tmp_path / "package/good.py").write_text("a = 1\n")
    (tmp_path / "package/template.py").write_text("{{ name }} = \n")
    assert install.compile_all(tmp_path) == 0
    assert [path.name.split(".")[0] for path in (tmp_path / "package/__pycache__").iterdir()] == ["good"]
    assert capsys.readouterr().out == "packages: compiling what was installed\n"
