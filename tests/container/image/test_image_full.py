"""The whole image, from the project's own lock file. Minutes, and 14 GB of disk meanwhile: `make test-image`."""

import re
import shutil
import subprocess
import time
from pathlib import Path

import docker
import pytest
from packaging.version import Version

from repro.image.build import BuildOptions, build
from repro.image.contents import image_name, inspect
from tests.container.image.workspaces import ROOT, output_of

SITE_AUTHORITIES = Path("/usr/local/share/ca-certificates")
"""Where Debian keeps certificates of one's own."""
SCRIPT = """
import torch, torchvision, timm, open_clip, dvc.repo
assert not torch.cuda.is_available() and torch.ones(2, 2).matmul(torch.ones(2, 2)).sum() == 8
print(torch.__version__, timm.create_model("tf_efficientnet_lite0").num_features)
"""


@pytest.mark.image
def test_the_whole_image_computes_without_a_network(engine: docker.DockerClient, base: str, tmp_path: Path) -> None:
    root = tmp_path / "workspace"
    subprocess.run(["git", "clone", "--quiet", ROOT, root], check=True)
    for name in ("docker", "requirements"):  # as they are here, committed or not
        shutil.copytree(ROOT / name, root / name, dirs_exist_ok=True)
    authorities = SITE_AUTHORITIES if SITE_AUTHORITIES.is_dir() and any(SITE_AUTHORITIES.iterdir()) else None
    began = time.monotonic()
    name = build(root, engine, BuildOptions(base=base, authorities=authorities, network="host"))
    print(f"built in {time.monotonic() - began:.0f} s\n{inspect(root, engine)}")
    assert name == image_name(ROOT)
    assert output_of(engine, name, "python", "-c", SCRIPT).split() == ["2.14.1+cu130", "1280"]


@pytest.mark.image
def test_the_whole_image_has_the_locked_versions(engine: docker.DockerClient) -> None:
    locked = re.findall(r"^([a-zA-Z0-9_.-]+)==([^\s\\;]+)", (ROOT / "requirements/lock.txt").read_text(), re.MULTILINE)
    code = ("import importlib.metadata as m, re; [print(re.sub('[-_.]+', '-', d.name).lower(), d.version) "
            "for d in m.distributions()]")
    found = [line.split() for line in output_of(engine, image_name(ROOT), "python", "-c", code).splitlines()]
    assert sorted((name, Version(version)) for name, version in found) == sorted(  # 1.002 is 1.2
        (re.sub("[-_.]+", "-", name).lower(), Version(version)) for name, version in locked)
