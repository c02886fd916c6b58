"""The image as a file: saved and loaded again, and exported as an OCI archive that says what the specification asks."""

import hashlib
import json
import tarfile
from pathlib import Path

import docker
import pytest

from repblend.store import sha256
from repro.image.contents import image_contents, image_name
from repro.image.transfer import export, load, save
from tests.container.image.workspaces import forget


@pytest.fixture(scope="module")
def saved(built: Path, engine: docker.DockerClient, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("saved") / "repblend.tar"
    assert save(built, engine, file) == sha256(file)
    return file


def test_a_saved_image_comes_back(built: Path, engine: docker.DockerClient, saved: Path) -> None:
    name = image_name(built)
    before = engine.images.get(name).id
    forget(engine, name)
    assert load(built, engine, saved) == f"{name} is now {before}. It is made of what docker/contents.json says."
    assert engine.images.get(name).id == before
    assert image_contents(engine, name) == (built / "docker/contents.json").read_bytes()


def test_a_file_with_another_image_gives_it_no_name(built: Path, other: Path, engine: docker.DockerClient,
                                                    tmp_path: Path) -> None:
    save(other, engine, tmp_path / "other.tar")
    before = engine.images.get(image_name(built)).id
    with pytest.raises(ValueError, match=r"is not made of what .*shortuuid absent -> 1.0.13"):
        load(built, engine, tmp_path / "other.tar")
    assert engine.images.get(image_name(built)).id == before


@pytest.mark.parametrize("damage", ["cut short", "flipped bit", "something else"])
def test_a_damaged_file_is_refused(damage: str, built: Path, engine: docker.DockerClient, saved: Path, tmp_path: Path
                                   ) -> None:
    name, content = image_name(built), bytearray(saved.read_bytes())
    before = engine.images.get(name).id
    if damage == "flipped bit":
        content[content.index(b"An emoji") + 3] ^= 1
    file = tmp_path / "damaged.tar"
    file.write_bytes({"cut short": content[:len(content) // 2], "something else": b"no archive"}.get(damage, content))
    forget(engine, name)  # or the engine would believe the layers that it has
    try:
        with pytest.raises(ValueError, match=f"{file}: the engine does not take it"):
            load(built, engine, file)
        assert engine.images.list(name) == []
    finally:
        load(built, engine, saved)
    assert engine.images.get(name).id == before


def test_a_file_that_is_not_there_is_named(built: Path, engine: docker.DockerClient, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"{tmp_path / 'absent.tar'}: cannot be read .No such file"):
        load(built, engine, tmp_path / "absent.tar")


@pytest.mark.parametrize("write", [save, export])
def test_nothing_is_written_where_there_is_no_image(write: object, engine: docker.DockerClient, tmp_path: Path) -> None:
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements/lock.txt").write_text("nothing==1\n")
    with pytest.raises(ValueError, match="the engine has no such image"):
        write(tmp_path, engine, tmp_path / "out" / "repblend.tar")
    assert list((tmp_path / "out").iterdir()) == []


def blob(archive: tarfile.TarFile, descriptor: dict) -> bytes:
    """What a descriptor points to, after checking its size and hash."""
    content = archive.extractfile(f"blobs/sha256/{descriptor['digest'].removeprefix('sha256:')}").read()
    assert len(content) == descriptor["size"]
    assert f"sha256:{hashlib.sha256(content).hexdigest()}" == descriptor["digest"]
    return content


def test_an_export_is_an_oci_image_layout(built: Path, engine: docker.DockerClient, tmp_path: Path) -> None:
    export(built, engine, tmp_path / "repblend.oci.tar")
    assert [path.name for path in tmp_path.iterdir()] == ["repblend.oci.tar"]
    image = engine.images.get(image_name(built))
    with tarfile.open(tmp_path / "repblend.oci.tar") as archive:
        assert json.load(archive.extractfile("oci-layout")) == {"imageLayoutVersion": "1.0.0"}
        index = json.load(archive.extractfile("index.json"))
        entry, = index["manifests"]
        assert (index["schemaVersion"], entry["mediaType"]) == (2, "application/vnd.oci.image.manifest.v1+json")
        assert entry["annotations"] == {"org.opencontainers.image.ref.name": image_name(built).split(":")[1]}
        manifest = json.loads(blob(archive, entry))
        assert manifest["config"]["mediaType"] == "application/vnd.oci.image.config.v1+json"
        assert manifest["config"]["digest"] == image.id
        config = json.loads(blob(archive, manifest["config"]))
        assert [layer["digest"] for layer in manifest["layers"]] == config["rootfs"]["diff_ids"]
        assert {layer["mediaType"] for layer in manifest["layers"]} == {"application/vnd.oci.image.layer.v1.tar"}
        assert config["config"]["User"] == "1000:1000"
        blobs = [json.dumps(descriptor) for descriptor in (entry, manifest["config"], *manifest["layers"])]
        assert len(archive.getnames()) == len(blobs) + 2


def test_the_layers_of_an_export_hold_the_files_of_the_image(built: Path, engine: docker.DockerClient, tmp_path: Path
                                                             ) -> None:
    export(built, engine, tmp_path / "repblend.oci.tar")
    rootfs = tmp_path / "rootfs"
    with tarfile.open(tmp_path / "repblend.oci.tar") as archive:
        index = json.load(archive.extractfile("index.json"))
        for layer in json.loads(blob(archive, index["manifests"][0]))["layers"]:
            with tarfile.open(fileobj=archive.extractfile(f"blobs/sha256/{layer['digest'][7:]}")) as files:
                wanted = [member for member in files if member.name.startswith("opt/repblend/") and member.isfile()]
                files.extractall(rootfs, wanted, filter="data")
    assert (rootfs / "opt/repblend/contents.json").read_bytes() == (built / "docker/contents.json").read_bytes()
    assert len(list((rootfs / "opt/repblend/venv").rglob("*.py"))) > 100
