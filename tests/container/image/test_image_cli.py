"""`repro image`: every command explains itself, works, and ends with a sentence where it cannot."""

import os
import subprocess
import sys
from pathlib import Path

import docker
import pytest

from repro.image import build as image_base
from repro.image.build import BASE_NAME, make_base
from repro.image.contents import image_name
from repro.workspace import workspace_environment
from tests.container.image.workspaces import ROOT, commit_another, forget, make_workspace

COMMANDS = ("base", "build", "push", "pull", "save", "load", "export", "inspect")


def repro_image(root: Path, *arguments: str | Path, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "repro", "image", *arguments], cwd=root, capture_output=True,
                          text=True, check=False, env=dict(workspace_environment(ROOT)) | environment)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, tmp_path: Path) -> None:
    done = repro_image(tmp_path, command, "--help")
    assert done.returncode == 0 and len(done.stdout.split()) > 12


def test_inspect_says_what_the_size_is_made_of(built: Path, engine: docker.DockerClient) -> None:
    printed = repro_image(built, "inspect").stdout
    image = engine.images.get(image_name(built))
    assert f"{image_name(built)}  {image.id}\nsize {image.attrs['Size'] / 1e6:.1f} MB, user 1000:1000\n" in printed
    layers = [float(line.split()[0]) for line in printed.split("layers (MB):\n")[1].split("\n\n")[0].splitlines()]
    assert len(layers) == 2 and abs(sum(layers) - image.attrs["Size"] / 1e6) < 0.2
    largest = [line.split() for line in printed.split("in all:\n")[1].splitlines()]
    assert [name for _, name, _ in largest] == ["emoji", "setuptools", "antlr4-python3-runtime", "idna"]


def test_build_says_what_it_records_and_leaves_an_image_that_a_container_uses(
        built: Path, base: str, wheelhouse: Path, engine: docker.DockerClient) -> None:
    name = image_name(built)
    replaced = engine.images.get(name).id
    container = engine.containers.create(replaced, network_mode="none")
    commit_another(built, "another note.txt")
    try:
        done = repro_image(built, "build", "--base", base, "--wheelhouse", wheelhouse, "--network", "none")
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[0].startswith("Step 1/")
        assert done.stdout.endswith(f"docker/contents.json: the same contents as before; nothing has to run again.\n"
                                    f"{name} is built. `repro image inspect` says what is in it.\n")
        assert engine.images.get(replaced).tags == [] and engine.images.get(name).id != replaced
    finally:
        container.remove()
        forget(engine, replaced)


def test_export_says_how_apptainer_takes_it(built: Path, engine: docker.DockerClient, tmp_path: Path) -> None:
    done = repro_image(built, "export", tmp_path / "image.tar")
    assert done.returncode == 0, done.stderr
    assert f"apptainer build repblend.sif oci-archive://{tmp_path / 'image.tar'}" in done.stdout


@pytest.mark.parametrize("arguments", [("build",), ("push", "example.org/x"), ("pull", f"x@sha256:{'0' * 64}"),
                                       ("save", "x"), ("load", "x"), ("export", "x"), ("inspect",), ("base",)])
def test_without_an_engine_the_error_is_a_sentence(arguments: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "dvc.yaml").touch()
    done = repro_image(tmp_path, *arguments, DOCKER_HOST=f"unix://{tmp_path}/none.sock")
    assert done.returncode == 1
    assert done.stderr.startswith(f"repro image {arguments[0]}: no Docker engine answers at unix://{tmp_path}/none.sock")
    assert len(done.stderr.splitlines()) == 1 and [path.name for path in tmp_path.iterdir()] == ["dvc.yaml"]


def test_outside_a_workspace_the_error_says_so(engine: docker.DockerClient, tmp_path: Path) -> None:
    done = repro_image(tmp_path, "inspect")
    assert done.returncode == 1 and "Run this in a clone of the repository" in done.stderr


def test_an_image_that_is_not_built_is_named(engine: docker.DockerClient, tmp_path: Path) -> None:
    root = make_workspace(tmp_path / "workspace", "nothing==1\n")
    done = repro_image(root, "inspect")
    assert done.returncode == 1
    assert done.stderr.startswith(f"repro image inspect: {image_name(root)}: the engine has no such image.")


def test_without_debootstrap_the_base_says_what_else_there_is(engine: docker.DockerClient, tmp_path: Path,
                                                              monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_base, "SYSTEM_PATH", str(tmp_path))
    with pytest.raises(ValueError, match=r"debootstrap: not found. `apt-get install debootstrap`.*`repro image build`"):
        make_base(engine)


def test_only_root_can_make_a_base(engine: docker.DockerClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
                                   ) -> None:
    (tmp_path / "debootstrap").touch(mode=0o755)
    monkeypatch.setattr(image_base, "SYSTEM_PATH", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(ValueError, match="has to be run by root: use sudo"):
        make_base(engine)


def test_a_debootstrap_that_fails_is_quoted(engine: docker.DockerClient, tmp_path: Path,
                                            monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "debootstrap").write_text("#!/bin/sh\necho E: no such mirror\nexit 3\n")
    (tmp_path / "debootstrap").chmod(0o755)
    monkeypatch.setattr(image_base, "SYSTEM_PATH", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(ValueError, match="debootstrap stopped with exit code 3: E: no such mirror"):
        make_base(engine)


def test_the_base_has_a_name_that_build_takes(base: str, engine: docker.DockerClient) -> None:
    assert base == BASE_NAME and engine.images.get(base).id.startswith("sha256:")
