"""What containers may do, asked for as docker-py takes it: checked without an engine."""

import re
import subprocess
from pathlib import Path

import pytest

from repro.container import isolation, user
from repro.container_client import identity, is_gone
from repro.container_gpus import device_requests
from repro.container_spec import Limits, Setting, View, cache_mounts, create_arguments
from repro.image import image_name
from repro.runner import Engine, Gpus, Wishes, choose

LIMITS = Limits(memory_bytes=7 * 1024**3, processes=100, tmp_bytes=1000)
SETTING = Setting("sha256:12", "1000:1001", LIMITS, workspace="/home/a b", client="boot ns 1 2")


def configured(folder: Path, name: str, cache: str) -> Path:
    (folder / ".dvc").mkdir(parents=True, exist_ok=True)
    (folder / ".dvc" / name).write_text(f"[core]\n    analytics = false\n[cache]\n    dir = {cache}\n")
    return folder


def test_a_container_that_computes_may_do_nothing_but_compute(tmp_path: Path) -> None:
    found = create_arguments(SETTING, View(tmp_path), "none", ("repro", "experts"))
    expected = {
        "image": "sha256:12", "user": "1000:1001", "network_mode": "none", "read_only": True, "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"], "mem_limit": 7516192768, "memswap_limit": 7516192768, "pids_limit": 100,
        "tmpfs": {"/tmp": "size=1000,mode=1777"}, "init": True, "tty": False, "device_requests": [],
        "stop_signal": "SIGTERM", "working_dir": "/workspace", "use_config_proxy": False, "entrypoint": [],
        "labels": {"repblend.workspace": "/home/a b", "repblend.client": "boot ns 1 2"},
        "command": ["python", "-m", "repro.container_guard", "checkpoints/locks/workspace.lock",
                    "python", "-m", "repro.guarded_dvc", "repro", "experts"]}
    assert {name: found[name] for name in expected} == expected
    assert found.keys() - expected.keys() == {"mounts", "environment"}


def test_nothing_of_the_hosts_environment_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "1")
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    assert create_arguments(SETTING, View(tmp_path), "none", ("repro",))["environment"] == {
        "PYTHONPATH": "/workspace/src:/workspace", "HF_HUB_OFFLINE": "1", "REPBLEND_IMAGE_DIGEST": "sha256:12",
        "HOME": "/tmp", "USER": "repblend", "DVC_SITE_CACHE_DIR": "/tmp/dvc", "LANG": "C.UTF-8"}


@pytest.mark.parametrize("network", ["bridge", "host"])
def test_only_fetching_may_ask_a_model_hub_and_know_the_proxies(network: str, tmp_path: Path) -> None:
    found = create_arguments(SETTING, View(tmp_path), network, ("repro", "prepare"))
    assert (found["network_mode"], found["use_config_proxy"]) == (network, True)
    assert found["environment"]["HF_HUB_OFFLINE"] == "0"


def test_a_folder_with_spaces_and_colons_is_mounted_as_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "a folder:ro, with=all"
    assert create_arguments(SETTING, View(folder), "none", ())["mounts"] == [
        {"Target": "/workspace", "Source": str(folder), "Type": "bind", "ReadOnly": False}]


def test_a_profile_runs_in_its_folder_of_the_clone_and_holds_the_clones_lock(tmp_path: Path) -> None:
    (tmp_path / "src/repblend").mkdir(parents=True)
    found = create_arguments(SETTING, View(tmp_path / "profiles/x"), "none", ("repro",))
    assert found["working_dir"] == "/workspace/profiles/x" and found["command"][3] == (
        "../../checkpoints/locks/workspace.lock")
    assert [mount["Source"] for mount in found["mounts"]] == [str(tmp_path)]


def test_data_outside_of_the_clone_are_mounted_where_the_clone_looks_for_them(tmp_path: Path) -> None:
    clone, here, elsewhere = tmp_path / "clone", tmp_path / "here", tmp_path / "elsewhere"
    for folder in (clone / "src/repblend", clone / "data/inside", here, elsewhere):
        folder.mkdir(parents=True)
    (clone / "data/linked").symlink_to(here)
    inputs = (Path("data/inside"), Path("data/linked"), elsewhere, tmp_path / "absent")
    _, *found = View(clone / "profiles/x", inputs).mounts()
    assert found == [{"Target": str(path), "Source": str(path), "Type": "bind", "ReadOnly": True}
                     for path in (here, elsewhere)]


@pytest.mark.parametrize(("cache", "source", "target"), [
    ("../../cache", "cache", "/cache"), ("{}/any where", "any where", "{}/any where")])
def test_a_cache_outside_is_mounted_where_the_configuration_leads_to(cache: str, source: str, target: str,
                                                                     tmp_path: Path) -> None:
    folder = configured(tmp_path / "workspace", "config", cache.format(tmp_path))
    mount, = cache_mounts(folder)
    assert (mount["Source"], mount["Target"]) == (str(tmp_path / source), target.format(tmp_path))
    assert (tmp_path / source).is_dir()


def test_a_cache_inside_needs_no_mount_and_the_local_configuration_comes_first(tmp_path: Path) -> None:
    assert cache_mounts(configured(tmp_path, "config", "cache")) == []
    assert len(cache_mounts(configured(tmp_path, "config.local", str(tmp_path / "other")))) == 1


def test_a_broken_dvc_configuration_is_named(tmp_path: Path) -> None:
    configured(tmp_path, "config", "x")
    (tmp_path / ".dvc" / "config").write_text("dir = x\n")
    with pytest.raises(ValueError, match=f"{tmp_path}/.dvc: expected DVC's configuration"):
        cache_mounts(tmp_path)


def test_nine_tenths_of_the_memory_are_the_default_limit() -> None:
    total = 1024 * int(re.search(r"MemTotal:\s+(\d+) kB", Path("/proc/meminfo").read_text())[1])
    assert Limits.of_host().memory_bytes == pytest.approx(0.9 * total, abs=8192)


CDI = {"DiscoveredDevices": [{"Source": "cdi", "ID": "nvidia.com/gpu=all"}]}
RUNTIME = {"Runtimes": {"runc": {}, "nvidia": {}}}


@pytest.mark.parametrize(("wish", "info", "expected"), [
    (Gpus.AUTO, {}, []), (Gpus.NONE, RUNTIME, []), (Gpus.NONE, CDI, []),
    (Gpus.AUTO, {"Runtimes": {"runc": {}}, "DiscoveredDevices": [{"ID": "vendor.com/net=0"}]}, []),
    (Gpus.AUTO, RUNTIME, [("", -1, None, [["gpu"]])]), (Gpus.ALL, RUNTIME, [("", -1, None, [["gpu"]])]),
    (Gpus.AUTO, CDI, [("cdi", 0, ["nvidia.com/gpu=all"], None)])])
def test_gpus_are_asked_for_where_the_engine_has_them(wish: Gpus, info: dict, expected: list) -> None:
    found = device_requests(wish, info)
    assert [(one["Driver"] or "", one["Count"] or 0, one["DeviceIDs"] or None, one["Capabilities"] or None)
            for one in found] == expected


def test_gpus_without_fail_are_refused_where_there_are_none() -> None:
    with pytest.raises(ValueError, match=r"--gpus all: the engine has neither .* NVIDIA Container Toolkit"):
        device_requests(Gpus.ALL, {"Runtimes": {"runc": {}}, "DiscoveredDevices": None})


def test_an_engine_without_root_rights_maps_its_0_to_the_caller() -> None:
    ids = subprocess.run("echo $(id -u):$(id -g)", shell=True, capture_output=True, text=True, check=True).stdout
    assert user({"SecurityOptions": ["name=seccomp,profile=default"]}) == ids.strip()
    assert user({"SecurityOptions": ["name=seccomp,profile=default", "name=rootless"]}) == "0:0"


def test_a_process_is_known_by_more_than_its_number() -> None:
    me = identity()
    boot, namespace, pid, started = me.split()
    assert not is_gone(me)
    assert is_gone(f"{boot} {namespace} {pid} {int(started) - 1}")  # the number was used before
    assert is_gone(f"another-boot {namespace} {pid} {started}")
    assert not is_gone(f"{boot} pid:[1] {pid} {started}")  # cannot be seen from here
    with subprocess.Popen(["sleep", "60"]) as child:
        who = identity(child.pid)
        assert not is_gone(who)
        child.kill()
    assert is_gone(who)


@pytest.mark.parametrize("wishes", [Wishes(Engine.LOCAL, gpus=Gpus.ALL), Wishes(Engine.LOCAL, memory_gib=2.0)])
def test_what_only_a_container_has_is_refused_without_one(wishes: Wishes, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--gpus all and --memory are for containers"):
        choose(wishes, tmp_path)


def test_isolation_is_what_the_engine_reports() -> None:
    host = {"NetworkMode": "none", "ReadonlyRootfs": True, "Privileged": False, "CapDrop": ["ALL"], "CapAdd": None,
            "SecurityOpt": ["no-new-privileges"], "Memory": 5, "PidsLimit": 6, "Tmpfs": {"/tmp": "size=1"}}
    mounts = [{"Destination": "/workspace", "RW": True}, {"Destination": "/certificates", "RW": False}]
    assert isolation({"Config": {"User": "1:2"}, "HostConfig": host, "Mounts": mounts}) == {
        "user": "1:2", "network": "none", "read_only_root": True, "privileged": False, "capabilities_dropped": ["ALL"],
        "capabilities_added": [], "security_options": ["no-new-privileges"], "memory_bytes": 5, "processes": 6,
        "writable": ["/tmp", "/workspace"], "gpus": False}


def test_the_image_is_called_after_the_locked_requirements(tmp_path: Path) -> None:
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements" / "lock.txt").write_text("numpy==1\n")
    done = subprocess.run(["sha256sum", tmp_path / "requirements/lock.txt"], capture_output=True, text=True, check=True)
    assert image_name(tmp_path) == f"repblend:{done.stdout[:12]}"
