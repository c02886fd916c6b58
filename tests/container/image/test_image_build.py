"""Building the image: what is in it, what is not, that it comes out the same, and what is said when it does not."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import docker
import pytest
from docker.errors import ImageNotFound

from repblend.store import sha256
from repro.image.build import BuildOptions, build, labels
from repro.image.contents import image_contents, image_name
from tests.container.image.conftest import OtherBuild
from tests.container.image.workspaces import COMMIT_DATE, commit_another, commit_of, locked, make_workspace, output_of


def test_the_image_is_named_by_its_lock_file(built: Path, engine: docker.DockerClient) -> None:
    assert image_name(built) == f"repblend:{sha256(built / 'requirements/lock.txt')[:12]}"
    assert engine.images.get(image_name(built))


def test_the_locked_packages_come_first_on_the_path(built: Path, engine: docker.DockerClient) -> None:
    code = "import sys, emoji, antlr4; print(sys.prefix, emoji.__version__, emoji.__file__)"
    assert output_of(engine, image_name(built), "python", "-c", code).split() == [
        "/opt/repblend/venv", "2.16.0", "/opt/repblend/venv/lib/python3.11/site-packages/emoji/__init__.py"]


def test_nobody_is_root_in_it(built: Path, engine: docker.DockerClient) -> None:
    assert output_of(engine, image_name(built), "id", "-u") == "1000\n"
    code = "import os; print(os.access('/opt/repblend/venv/lib/python3.11/site-packages', os.W_OK))"
    assert output_of(engine, image_name(built), "python", "-c", code) == "False\n"


def test_a_user_without_an_account_can_work_in_it(built: Path, engine: docker.DockerClient) -> None:
    code = "import emoji, tempfile; tempfile.TemporaryFile(); print(emoji.__version__)"
    assert output_of(engine, image_name(built), "python", "-c", code, user="4321:4321") == "2.16.0\n"


def test_nothing_but_the_environment_is_added_to_the_base(built: Path, engine: docker.DockerClient, base: str) -> None:
    before, after = (set(output_of(engine, image, "find", "/", "-xdev", user="0").splitlines())
                     for image in (base, image_name(built)))
    added = {path for path in after - before if not path.startswith("/opt/repblend/venv/")}
    assert added == {"/opt/repblend", "/opt/repblend/venv", "/opt/repblend/contents.json", "/workspace"}


def test_the_environment_has_no_pip_and_no_archives(built: Path, engine: docker.DockerClient) -> None:
    files = [Path(line).name for line in
             output_of(engine, image_name(built), "find", "/opt/repblend/venv").splitlines()]
    assert [name for name in files if name.endswith(".whl") or name in ("pip", "http-v2", ".cache")] == []


def test_bytecode_is_there_and_has_no_dates(built: Path, engine: docker.DockerClient) -> None:
    code = ("import pathlib, collections as c; print(dict(c.Counter(int.from_bytes(p.read_bytes()[4:8], 'little') "
            "for p in pathlib.Path('/opt/repblend/venv').rglob('*.pyc'))))")
    kinds = eval(output_of(engine, image_name(built), "python", "-c", code))
    assert kinds.keys() == {0b01} and kinds[0b01] > 100  # PEP 552: by hash, never checked


def test_labels_say_what_it_was_made_from(built: Path, engine: docker.DockerClient, base: str) -> None:
    found = engine.images.get(image_name(built)).labels
    assert found["org.opencontainers.image.revision"] == commit_of(built)
    assert found["org.opencontainers.image.created"] == COMMIT_DATE
    assert found["org.opencontainers.image.base.name"] == engine.images.get(base).id
    assert found["repblend.lock.sha256"] == sha256(built / "requirements/lock.txt")
    assert "repblend.build" not in found


def test_labels_say_that_the_recipe_was_edited(tmp_path: Path) -> None:
    root = make_workspace(tmp_path / "workspace", locked(["idna"]))
    (root / "notes.txt").touch()
    assert labels(root, None)["org.opencontainers.image.revision"] == commit_of(root)
    (root / "docker/Dockerfile").write_text((root / "docker/Dockerfile").read_text() + "# edited\n")
    assert labels(root, None)["org.opencontainers.image.revision"] == f"{commit_of(root)}-dirty"


def test_outside_of_a_clone_no_label_names_a_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_workspace(tmp_path / "workspace", locked(["idna"]))
    shutil.rmtree(root / ".git")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    assert not {"org.opencontainers.image.revision", "org.opencontainers.image.created"} & labels(root, None).keys()
    assert labels(root, "sha256:1")["org.opencontainers.image.base.name"] == "sha256:1"


def test_a_gpu_is_asked_for_by_the_environment(built: Path, engine: docker.DockerClient) -> None:
    variables = engine.images.get(image_name(built)).attrs["Config"]["Env"]
    assert {"NVIDIA_VISIBLE_DEVICES=all", "NVIDIA_DRIVER_CAPABILITIES=compute,utility"} <= set(variables)


def test_the_base_of_the_dockerfile_is_pinned_by_digest(tmp_path: Path) -> None:
    root = make_workspace(tmp_path / "workspace", locked(["idna"]))
    name, _, digest = labels(root, None)["org.opencontainers.image.base.name"].partition("@sha256:")
    assert name == "python:3.11-slim-bookworm" and len(digest) == 64 and int(digest, 16)


def test_a_second_build_gives_the_same_contents(built: Path, engine: docker.DockerClient, options: BuildOptions,
                                                capsys: pytest.CaptureFixture[str]) -> None:
    before = (built / "docker/contents.json").read_bytes()
    replaced = engine.images.get(image_name(built)).id
    commit_another(built, "note.txt")
    build(built, engine, options)
    printed = capsys.readouterr().out
    assert "Successfully installed antlr4" in printed  # not taken from the engine's cache
    assert image_contents(engine, image_name(built)) == (built / "docker/contents.json").read_bytes() == before
    assert "docker/contents.json: the same contents as before; nothing has to run again." in printed
    with pytest.raises(ImageNotFound):
        engine.images.get(replaced)


def test_another_lock_file_gives_another_image_and_says_what_changed(built: Path, other_build: OtherBuild) -> None:
    printed = other_build.printed
    assert image_name(other_build.root) != image_name(built)
    assert "docker/contents.json: CHANGED (antlr4-python3-runtime 4" in printed and "-> absent, emoji 2.16.0" in printed
    assert "shortuuid absent -> 1.0.13" in printed
    assert json.loads((other_build.root / "docker/contents.json").read_text())["distributions"]["shortuuid"]


def test_the_early_stage_is_not_left_behind(built: Path, engine: docker.DockerClient) -> None:
    assert engine.images.list(filters={"label": "repblend.build"}) == []


def test_the_history_tells_nothing_of_the_building_machine(built: Path, engine: docker.DockerClient) -> None:
    commands = " ".join(layer["CreatedBy"] for layer in engine.images.get(image_name(built)).history())
    assert "wheelhouse" not in commands and "index" not in commands and "/context" not in commands


def test_certificates_are_used_and_do_not_stay(engine: docker.DockerClient, other_build: OtherBuild) -> None:
    line = other_build.certificate.read_text().splitlines()[5]
    found = output_of(engine, image_name(other_build.root), "sh", "-c",
                      f"grep -rlF '{line}' /etc /opt /usr/local /context 2>&1 || true", user="0")
    assert found == "grep: /context: No such file or directory\n"


def failure(root: Path, engine: docker.DockerClient, options: BuildOptions) -> str:
    with pytest.raises(ValueError) as caught:
        build(root, engine, options)
    assert not (root / "docker/contents.json").exists()
    assert engine.images.list(image_name(root)) == []
    assert engine.images.list(filters={"label": "repblend.build"}) == []
    return str(caught.value)


def test_a_step_that_fails_is_named_with_its_last_lines(engine: docker.DockerClient, options: BuildOptions,
                                                       tmp_path: Path) -> None:
    root = make_workspace(tmp_path / "workspace", locked(["idna", "setuptools", "packaging"]))
    message = failure(root, engine, options)
    assert "docker/Dockerfile: the build stopped at step" in message and "(RUN sh /context/install.sh)" in message
    assert "No matching distribution found for packaging" in message and "--wheelhouse DIR" in message


def test_a_package_with_another_hash_is_refused(engine: docker.DockerClient, options: BuildOptions, tmp_path: Path
                                                ) -> None:
    wheels = shutil.copytree(options.wheelhouse, tmp_path / "wheels")
    wheel, = wheels.glob("idna-*.whl")
    wheel.write_bytes(wheel.read_bytes() + b"\0")
    root = make_workspace(tmp_path / "workspace", locked(["idna", "setuptools"]))
    assert "DO NOT MATCH THE HASHES" in failure(root, engine, replace(options, wheelhouse=wheels))


def test_a_base_that_cannot_be_pulled_is_named(engine: docker.DockerClient, options: BuildOptions, tmp_path: Path
                                               ) -> None:
    root = make_workspace(tmp_path / "workspace", locked(["idna", "setuptools"]))
    absent = f"127.0.0.1:9/python@sha256:{'0' * 64}"
    message = failure(root, engine, replace(options, base=absent))
    assert "127.0.0.1:9" in message and "If the base could not be pulled: --base" in message


def test_a_base_without_a_digest_that_the_engine_lacks_is_refused(engine: docker.DockerClient, options: BuildOptions,
                                                                  tmp_path: Path) -> None:
    root = make_workspace(tmp_path / "workspace", locked(["idna", "setuptools"]))
    message = failure(root, engine, replace(options, base="python:no-such-tag"))
    assert message.startswith("--base python:no-such-tag: a name alone may mean another image tomorrow")
    assert "docker inspect --format '{{index .RepoDigests 0}}' python:no-such-tag" in message


@pytest.mark.parametrize(("field", "option"), [("wheelhouse", "--wheelhouse"), ("authorities", "--ca")])
def test_a_folder_that_is_empty_or_absent_is_refused(field: str, option: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("empty", "absent"):
        with pytest.raises(ValueError, match=f"{option} {tmp_path / name}: expected a folder with files in it"):
            BuildOptions(**{field: tmp_path / name})
