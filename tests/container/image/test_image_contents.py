"""What an image says it is made of, against the image itself; and the check that a runner makes before it uses one."""

import hashlib
import json
import shutil
from pathlib import Path

import docker
import pytest

from repro.image.contents import check_contents, differences, image_contents, image_name, record_contents
from tests.container.image.workspaces import PACKAGES, output_of

OLD = {"python": "3.11.2", "debian": {"libc6": "2.36-9"},
       "distributions": {"idna": {"version": "3.1", "record_sha256": "aa" * 32, "bytes": 1}}}


def changed(**parts: object) -> bytes:
    return json.dumps(OLD | parts).encode()


def test_contents_are_those_of_the_image(built: Path, engine: docker.DockerClient) -> None:
    found = json.loads(image_contents(engine, image_name(built)))
    record = output_of(engine, image_name(built), "cat",
                       "/opt/repblend/venv/lib/python3.11/site-packages/idna-3.20.dist-info/RECORD")
    rows = sorted(line.split(",") for line in record.splitlines() if ".pyc," not in line)
    assert found["distributions"].keys() == set(PACKAGES)
    assert found["distributions"]["idna"] == {
        "version": "3.20", "bytes": sum(int(size or 0) for *_, size in rows),
        "record_sha256": hashlib.sha256("\n".join(map(",".join, rows)).encode()).hexdigest()}
    assert f"Python {found['python']}\n" == output_of(engine, image_name(built), "python", "--version")
    packages = output_of(engine, image_name(built), "dpkg", "--list").splitlines()
    assert len([line for line in packages if line.startswith("ii")]) == len(found["debian"])


def test_the_image_that_was_recorded_passes(built: Path, engine: docker.DockerClient) -> None:
    check_contents(built, engine, image_name(built))


def test_reading_the_contents_leaves_no_container(built: Path, engine: docker.DockerClient) -> None:
    image_contents(engine, image_name(built))
    assert engine.containers.list(all=True, filters={"ancestor": image_name(built)}) == []


def test_another_image_is_refused_and_the_difference_named(built: Path, other: Path, engine: docker.DockerClient
                                                          ) -> None:
    with pytest.raises(ValueError) as caught:
        check_contents(built, engine, image_name(other))
    message = str(caught.value)
    assert f"{image_name(other)} is not made of what {built / 'docker/contents.json'} says (antlr4" in message
    assert "shortuuid absent -> 1.0.13 (files " in message and "`repro image build`" in message


def test_a_workspace_without_contents_is_told_how_to_get_them(built: Path, engine: docker.DockerClient, tmp_path: Path
                                                              ) -> None:
    with pytest.raises(ValueError, match=r"contents.json: missing, .*`repro image build`"):
        check_contents(tmp_path, engine, image_name(built))


def test_an_image_that_is_not_there_is_named(engine: docker.DockerClient) -> None:
    with pytest.raises(ValueError, match=r"repblend:absent: the engine has no such image. Make it with `repro image"):
        image_contents(engine, "repblend:absent")


def test_an_image_of_something_else_is_refused(engine: docker.DockerClient, base: str) -> None:
    with pytest.raises(ValueError, match=f"{base}: expected /opt/repblend/contents.json in it"):
        image_contents(engine, base)


def test_every_kind_of_difference_is_named() -> None:
    idna = OLD["distributions"]["idna"]
    assert differences(changed(), changed()) == []
    assert differences(changed(), changed(python="3.11.9")) == ["python 3.11.2 -> 3.11.9"]
    assert differences(changed(), changed(debian={"libc6": "2.36-10", "git": "1"})) == [
        "Debian's git absent -> 1", "Debian's libc6 2.36-9 -> 2.36-10"]
    assert differences(changed(), changed(distributions={"idna": idna | {"record_sha256": "bb" * 32}})) == [
        "idna 3.1 (files aaaaaaaa) -> 3.1 (files bbbbbbbb)"]
    assert differences(changed(), changed(distributions={})) == ["idna 3.1 (files aaaaaaaa) -> absent"]


def test_the_same_contents_leave_the_file_alone(tmp_path: Path) -> None:
    assert "docker/contents.json: written. Commit it" in record_contents(tmp_path, changed())
    file = tmp_path / "docker/contents.json"
    before = file.stat().st_mtime_ns
    assert "the same contents as before" in record_contents(tmp_path, changed())
    assert (file.stat().st_mtime_ns, file.read_bytes()) == (before, changed())


def test_a_long_list_of_differences_is_cut_and_counted(tmp_path: Path) -> None:
    record_contents(tmp_path, changed())
    many = changed(debian={f"package-{index:02}": "1" for index in range(20)})
    sentence = record_contents(tmp_path, many)
    assert "Debian's package-08 absent -> 1, and 11 more)" in sentence and "package-09" not in sentence
    assert (tmp_path / "docker/contents.json").read_bytes() == many


def test_the_contents_of_an_image_do_not_depend_on_its_commit(built: Path, engine: docker.DockerClient, tmp_path: Path
                                                              ) -> None:
    clone = shutil.copytree(built, tmp_path / "clone")
    (clone / "notes.txt").touch()
    check_contents(clone, engine, image_name(clone))
