"""A real S3 server on free ports of this machine: OpenStack Swift with its S3 API, in a folder of the test.

Swift is four servers: a proxy that speaks S3, and one each for accounts, containers (buckets) and objects. Rings tell
the proxy where the other three are; here each has one device, a folder. The proxy remembers who is logged in in a
fifth server, memcached. `/etc/swift/swift.conf` is used as Debian installs it: Swift looks nowhere else for it.
"""

import contextlib
import getpass
import json
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.remotes.servers import free_port, program, running

STORES = ("account", "container", "object")
BUCKET, USER, SECRET, REGION = "artifacts", "test:tester", "testing", "us-east-1"
LOG_CHARACTERS = 1500
PYTHON = "/usr/bin/python3"
"""The one that Debian's Swift runs on."""
MAKE_RINGS = """\
import json, sys
from swift.common.ring import RingBuilder
folder, devices = sys.argv[1], json.loads(sys.argv[2])
for kind, device in devices.items():
    builder = RingBuilder(2, 1, 0)  # four partitions, one copy of everything
    builder.add_dev(device)
    builder.rebalance()
    builder.get_ring().save(f"{folder}/{kind}.ring.gz")
"""
SETTINGS = """\
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
workers = 0
user = {user}
swift_dir = {folder}
devices = {folder}/devices
mount_check = false
log_level = WARNING
"""
STORE = """\
[pipeline:main]
pipeline = {kind}-server
[app:{kind}-server]
use = egg:swift#{kind}
fallocate_reserve = 0
disable_fallocate = true
[{kind}-replicator]
[{kind}-updater]
[{kind}-auditor]
"""
PROXY = """\
[pipeline:main]
pipeline = catch_errors gatekeeper proxy-logging cache s3api tempauth bulk slo proxy-logging proxy-server
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:gatekeeper]
use = egg:swift#gatekeeper
[filter:proxy-logging]
use = egg:swift#proxy_logging
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:{memcached}
[filter:s3api]
use = egg:swift#s3api
[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = {secret} .admin
[filter:bulk]
use = egg:swift#bulk
[filter:slo]
use = egg:swift#slo
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
"""


@dataclass(frozen=True)
class Swift:
    """A server that runs, and a bucket in it."""

    address: str
    objects: Path
    """Where the bytes of objects lie."""

    @property
    def url(self) -> str:
        """The remote's address, as repro/README.md writes it."""
        return f"s3://{BUCKET}/repblend"

    @property
    def settings(self) -> dict[str, str]:
        """What DVC has to be told of it."""
        return {"endpointurl": self.address, "access_key_id": USER, "secret_access_key": SECRET, "region": REGION}

    def file_of(self, content: bytes) -> Path:
        """Return the one file on the server's disk that holds these bytes."""
        (found,) = [path for path in self.objects.rglob("*.data") if path.read_bytes() == content]
        return found


@contextlib.contextmanager
def swift(folder: Path) -> Iterator[Swift]:
    """Run Swift with an empty bucket while the body runs; skip where it is not installed, fail in CI."""
    binaries = {kind: program(f"swift-{kind}-server") for kind in (*STORES, "proxy")}
    memcached = program("memcached")
    folder.mkdir()
    _check_attributes(folder)
    ports = {kind: free_port() for kind in (*binaries, "memcached")}
    for kind in STORES:
        (folder / "devices" / kind).mkdir(parents=True)
    _make_rings(folder, ports)
    with contextlib.ExitStack() as stack:
        command = [memcached, "-l", "127.0.0.1", "-p", str(ports["memcached"]), "-U", "0", "-u", getpass.getuser()]
        stack.enter_context(running(command, ports["memcached"], folder / "memcached.log"))
        for kind, binary in binaries.items():  # the proxy last
            settings = folder / f"{kind}.conf"
            settings.write_text((SETTINGS + (PROXY if kind == "proxy" else STORE)).format(
                kind=kind, port=ports[kind], user=getpass.getuser(), folder=folder, secret=SECRET,
                memcached=ports["memcached"]))
            command = [binary, str(settings), "--verbose"]
            stack.enter_context(running(command, ports[kind], folder / f"{kind}.log", _environment()))
        server = Swift(f"http://127.0.0.1:{ports['proxy']}", folder / "devices" / "object")
        _make_bucket(server, folder)
        yield server


def _environment() -> dict[str, str]:
    """The variables of a program of the system's Python: nothing of ours may come before its own packages."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


def _check_attributes(folder: Path) -> None:
    """Swift keeps what it knows of an object in extended attributes of its file."""
    try:
        os.setxattr(folder, "user.swift.test", b"x")
    except OSError as error:
        if os.environ.get("CI"):
            pytest.fail(f"{folder}: CI needs a folder for tests whose files can have attributes ({error})")
        pytest.skip(f"{folder}: files cannot have the attributes that Swift needs here ({error})")


def _make_rings(folder: Path, ports: dict[str, int]) -> None:
    """Write the rings of all stores: Swift's own command does the same, a process for each of three steps."""
    devices = {kind: {"id": 0, "region": 1, "zone": 1, "ip": "127.0.0.1", "port": ports[kind], "device": kind,
                      "weight": 1.0} for kind in STORES}
    subprocess.run([PYTHON, "-c", MAKE_RINGS, str(folder), json.dumps(devices)], check=True, env=_environment())


def _make_bucket(server: Swift, folder: Path) -> None:
    """Create the bucket; the servers accept connections a little before they can answer."""
    from botocore.session import Session

    client = Session().create_client("s3", REGION, endpoint_url=server.address, aws_access_key_id=USER,
                                     aws_secret_access_key=SECRET)
    deadline = time.monotonic() + 60
    while True:
        try:
            client.create_bucket(Bucket=BUCKET)
            return
        except Exception as error:  # of botocore's many kinds
            if time.monotonic() > deadline:
                logs = "\n".join(path.read_text()[-LOG_CHARACTERS:] for path in sorted(folder.glob("*.log")))
                raise AssertionError(f"Swift does not create a bucket: {error}\n{logs}") from error
            time.sleep(0.5)
