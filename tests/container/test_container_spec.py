"""What containers may do, asked for as docker-py takes it: checked without an engine."""

import re
import subprocess
from pathlib import Path

import pytest

from repro.engines.base import Engine, Gpus, Request
from repro.engines.choose import choose
from repro.engines.container import identity, is_gone, isolation, user
from repro.engines.spec import Limits, Setting, create_arguments, device_requests, mounts
from repro.image.contents import image_name
from repro.workspace import lend

LIMITS = Limits(memory_bytes=7 * 1024**3, processes=100, tmp_bytes=1000)
SETTING = Setting("sha256:12", "1000:1001", LIMITS, workspace="/home/a b", client="boot ns 1 2")


def configured(folder: Path, name: str, cache: str) -> Path:
    (folder / ".dvc").mkdir(parents=True, exist_ok=True)
    (folder / ".dvc" / name).write_text(f"[core]\n    analytics = false\n[cache]\n    dir = {cache}\n")
    return folder


def test_a_container_that_computes_may_do_nothing_but_compute(tmp_path: Path) -> None:
    found = create_arguments(SETTING, tmp_path, [], "none", ("repro", "experts"))
    expected = {
        "image": "sha256:12", "user": "1000:1001", "network_mode": "none", "read_only": True, "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"], "mem_limit": 7516192768, "memswap_limit": 7516192768, "pids_limit": 100,
        "tmpfs": dict.fromkeys(("/tmp", "/workspace/.dvc/tmp"), "size=1000,mode=1777"), "init": True, "tty": False,
        "device_requests": [],
        "stop_signal": "SIGTERM", "working_dir": "/workspace", "use_config_proxy": False, "entrypoint": [],
        "labels": {"repblend.workspace": "/home/a b", "repblend.client": "boot ns 1 2"},
        "command": ["python", "-m", "repro.engines.guard", "/run/workspace.lock",
                    "python", "-m", "repro.guarded_dvc", "repro", "experts"]}
    assert {name: found[name] for name in expected} == expected
    assert found.keys() - expected.keys() == {"mounts", "environment"}


def test_nothing_of_the_hosts_environment_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "1")
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    assert create_arguments(SETTING, tmp_path, [], "none", ("repro",))["environment"] == {
        "PYTHONPATH": "/workspace/src:/workspace", "HF_HUB_OFFLINE": "1", "REPBLEND_IMAGE_DIGEST": "sha256:12",
        "HOME": "/tmp", "USER": "repblend", "DVC_SITE_CACHE_DIR": "/tmp/dvc", "LANG": "C.UTF-8"}


@pytest.mark.parametrize("network", ["bridge", "host"])
def test_only_fetching_may_ask_a_model_hub_and_know_the_proxies(network: str, tmp_path: Path) -> None:
    found = create_arguments(SETTING, tmp_path, [], network, ("repro", "prepare"))
    assert (found["network_mode"], found["use_config_proxy"]) == (network, True)
    assert found["environment"]["HF_HUB_OFFLINE"] == "0"


def seen(workspace: Path, inputs: dict | None = None) -> dict[str, tuple[str, bool]]:
    """What a container sees: its path there -> where that lies, and whether it can be written."""
    lend(workspace)
    return {mount["Target"]: (mount["Source"], not mount["ReadOnly"]) for mount in mounts(workspace, inputs or {})}


def clone(folder: Path) -> Path:
    """Make a clone with a profile: sources, some outputs, a user's data."""
    for name in ("src/repblend/store.py", "repro/cli.py", ".git/config", ".dvc/config", "params.yaml", "data/mine/x",
                 "data/prepared/manifest.json", "features/train", "paper/report.ipynb", "paper/report.html",
                 "checkpoints/distill/x", "checkpoints/locks/workspace.lock", "profiles/x/params.yaml",
                 "profiles/x/features/train", "profiles/y/features/train"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def test_of_the_clone_only_the_cache_and_a_containers_own_folder_can_be_written(tmp_path: Path) -> None:
    folder = clone(tmp_path / "a clone:ro, with=all")
    (folder / "linked").symlink_to("/")
    found, inside = seen(folder), folder / ".dvc/inside/quickstart"
    assert {place: source for place, (source, writable) in found.items() if writable} == {
        "/workspace": str(inside), "/workspace/.dvc/cache": f"{folder}/.dvc/cache"}
    assert {place.removeprefix("/workspace/") for place, (_, writable) in found.items() if not writable} == {
        ".dvc", ".git", "src", "repro", "params.yaml", "data/mine", "paper/report.ipynb", "profiles",
        "/run/workspace.lock"}
    lent = ("data/prepared/manifest.json", "features/train", "paper/report.html", "checkpoints/distill/x")
    assert all((inside / name).exists() and not (folder / name).exists() for name in lent)


def test_a_profile_runs_in_its_folder_of_the_clone_and_writes_nothing_of_another(tmp_path: Path) -> None:
    workspace = clone(tmp_path) / "profiles/x"
    assert create_arguments(SETTING, workspace, [], "none", ("repro",))["working_dir"] == "/workspace/profiles/x"
    found, inside = seen(workspace), tmp_path / ".dvc/inside/x"
    assert found["/workspace"] == (str(inside), True) and (inside / "profiles/x/features/train").exists()
    assert {"/workspace/features", "/workspace/profiles/y", "/workspace/profiles/x/params.yaml"} < found.keys()
    assert sum(writable for _, writable in found.values()) == 2


def test_data_outside_of_the_clone_are_mounted_where_the_clone_looks_for_them(tmp_path: Path) -> None:
    found = seen(clone(tmp_path / "clone"), {Path("data/linked"): tmp_path, Path("/else where"): tmp_path})
    assert found["/workspace/data/linked"] == found["/else where"] == (str(tmp_path), False)


@pytest.mark.parametrize(("cache", "source", "target"), [
    ("../../cache", "cache", "/cache"), ("{}/any where", "any where", "{}/any where")])
def test_a_cache_outside_is_mounted_where_the_configuration_leads_to(cache: str, source: str, target: str,
                                                                     tmp_path: Path) -> None:
    folder = configured(clone(tmp_path / "workspace"), "config", "cache")  # the local one comes first
    found = seen(configured(folder, "config.local", cache.format(tmp_path)))
    assert found[target.format(tmp_path)] == (str(tmp_path / source), True) and (tmp_path / source).is_dir()


@pytest.mark.parametrize(("text", "told"), [
    ("dir = x\n", ".dvc: expected DVC's configuration"), ("[cache", ".dvc: expected DVC's configuration"),
    ("[cache]\ntype = symlink,copy\n", "cache.type is symlink,copy, expected 'copy' in it and no 'symlink'"),
    ("[cache]\ntype = hardlink\n", "cache.type is hardlink, expected 'copy'")])
def test_a_dvc_configuration_that_does_not_serve_is_named(text: str, told: str, tmp_path: Path) -> None:
    (clone(tmp_path) / ".dvc/config").write_text(text)
    with pytest.raises(ValueError, match=told):
        seen(tmp_path)


def test_nine_tenths_of_the_memory_are_the_default_limit() -> None:
    total = 1024 * int(re.search(r"MemTotal:\s+(\d+) kB", Path("/proc/meminfo").read_text())[1])
    assert Limits.of(Request()).memory_bytes == pytest.approx(0.9 * total, abs=8192)


CDI = {"DiscoveredDevices": [{"Source": "cdi", "ID": "nvidia.com/gpu=all"}]}
RUNTIME = {"Runtimes": {"runc": {}, "nvidia": {}}}


@pytest.mark.parametrize(("wish", "info", "expected"), [
    (Gpus.AUTO, {}, []), (Gpus.NONE, RUNTIME, []), (Gpus.NONE, CDI, []),
    (Gpus.AUTO, {"Runtimes": {"runc": {}}, "DiscoveredDevices": [{"ID": "vendor.com/net=0"}]}, []),
    (Gpus.AUTO, RUNTIME, [("", -1, None, [["gpu"]])]), (Gpus.ALL, RUNTIME, [("", -1, None, [["gpu"]])]),
    (Gpus.AUTO, CDI, [("cdi", 0, ["nvidia.com/gpu=all"], None)])])
def test_gpus_are_asked_for_where_the_engine_has_them(wish: Gpus, info: dict, expected: list) -> None:
    found = device_requests(Request(gpus=wish), info)
    assert [(one["Driver"] or "", one["Count"] or 0, one["DeviceIDs"] or None, one["Capabilities"] or None)
            for one in found] == expected


def test_gpus_without_fail_are_refused_where_there_are_none() -> None:
    with pytest.raises(ValueError, match=r"--gpus all: the engine has neither .* NVIDIA Container Toolkit"):
        device_requests(Request(gpus=Gpus.ALL), {"Runtimes": {"runc": {}}, "DiscoveredDevices": None})


def test_an_engine_without_root_rights_maps_its_0_to_the_caller() -> None:
    ids = subprocess.run("echo $(id -u):$(id -g)", shell=True, capture_output=True, text=True, check=True).stdout
    assert user({"SecurityOptions": ["name=seccomp,profile=default"]}) == ids.strip()
    assert user({"SecurityOptions": ["name=seccomp,profile=default", "name=rootless"]}) == "0:0"


def test_a_process_is_known_by_more_than_its_number() -> None:
    me = identity()
    boot, namespace, pid, started = me.split()
    assert not is_gone(me)
    assert is_gone(f"{boot} {namespace} {pid} {float(started) - 1}")  # the number was used before
    assert is_gone(f"another-boot {namespace} {pid} {started}")
    assert not is_gone(f"{boot} pid:[1] {pid} {started}")  # cannot be seen from here
    with subprocess.Popen(["sleep", "60"]) as child:
        who = identity(child.pid)
        assert not is_gone(who)
        child.kill()
    assert is_gone(who)


@pytest.mark.parametrize("asked", [Request(Engine.LOCAL, gpus=Gpus.ALL), Request(Engine.LOCAL, memory_gib=2.0)])
def test_what_only_a_container_has_is_refused_without_one(asked: Request, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--gpus all and --memory are for containers"):
        choose(asked, tmp_path)


def test_isolation_is_what_the_engine_reports() -> None:
    host = {"NetworkMode": "none", "ReadonlyRootfs": True, "Privileged": False, "CapDrop": ["ALL"], "CapAdd": None,
            "SecurityOpt": ["no-new-privileges"], "Memory": 5, "PidsLimit": 6, "Tmpfs": {"/tmp": "size=1"}}
    mounts = [{"Destination": "/workspace", "RW": True}, {"Destination": "/certificates", "RW": False}]
    assert isolation({"Config": {"User": "1:2"}, "HostConfig": host, "Mounts": mounts}).to_json() == {
        "user": "1:2", "network": "none", "read_only_root": True, "privileged": False, "capabilities_dropped": ["ALL"],
        "capabilities_added": [], "security_options": ["no-new-privileges"], "memory_bytes": 5, "processes": 6,
        "writable": ["/tmp", "/workspace"], "gpus": False}


def test_the_image_is_called_after_the_locked_requirements(tmp_path: Path) -> None:
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements" / "lock.txt").write_text("numpy==1\n")
    done = subprocess.run(["sha256sum", tmp_path / "requirements/lock.txt"], capture_output=True, text=True, check=True)
    assert image_name(tmp_path) == f"repblend:{done.stdout[:12]}"
