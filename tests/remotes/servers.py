"""Real servers on free ports of this machine, configured in a folder of the test: nginx and OpenSSH.

`tests/remotes/swift.py` has the one for S3, of several processes.
"""

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

PACKAGES = ("nginx-light, libnginx-mod-http-dav-ext, openssh-server, swift, swift-proxy, swift-account, "
            "swift-container, swift-object, memcached")
PATIENCE_S = 60
DAV_MODULE = Path("/usr/lib/nginx/modules/ngx_http_dav_ext_module.so")
NGINX = """\
load_module {module};
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
{user}
events {{ }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  client_max_body_size 0;
  server {{
    listen 127.0.0.1:{port};
    root "{root}";
    {extra}
  }}
}}
"""
WEBDAV = """\
dav_methods PUT DELETE MKCOL COPY MOVE;
    dav_ext_methods PROPFIND OPTIONS;
    create_full_put_path on;
"""
SSHD = """\
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/user_key.pub
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
Subsystem sftp internal-sftp
"""


def program(name: str) -> str:
    """Return the path of a server; skip where a newcomer may not have it, fail in CI."""
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")
    if found and (name != "nginx" or DAV_MODULE.exists()):
        return found
    if os.environ.get("CI"):
        pytest.fail(f"CI needs {name} (Debian: {PACKAGES})")
    pytest.skip(f"no {name} here")


@contextlib.contextmanager
def nginx(folder: Path, root: Path, extra: str = "") -> Iterator[str]:
    """Serve a folder over HTTP while the body runs; yield the address.

    Args:
        extra: more settings of the server, such as `WEBDAV`.
    """
    binary, port = program("nginx"), free_port()
    folder.mkdir()
    (folder / "nginx.conf").write_text(NGINX.format(
        module=DAV_MODULE, folder=folder, user="user root;" if os.getuid() == 0 else "", port=port, root=root,
        extra=extra))
    with running([binary, "-c", f"{folder}/nginx.conf", "-e", f"{folder}/error.log"], port, folder / "output"):
        yield f"127.0.0.1:{port}"


@contextlib.contextmanager
def sshd(folder: Path) -> Iterator[dict[str, str]]:
    """Run an SSH server for this user while the body runs; yield what DVC has to be told of it."""
    binary, port = program("sshd"), free_port()
    folder.mkdir()
    for key in ("host_key", "user_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / key], check=True)
    (folder / "sshd_config").write_text(SSHD.format(folder=folder, port=port))
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # it insists, and Debian makes it only where the service runs
    with running([binary, "-D", "-e", "-f", f"{folder}/sshd_config"], port, folder / "output"):
        yield {"port": str(port), "user": getpass.getuser(), "keyfile": f"{folder}/user_key"}


@contextlib.contextmanager
def running(command: Sequence[str], port: int, output: Path,
            environment: Mapping[str, str] | None = None) -> Iterator[None]:
    """Run a server while the body runs; `environment` is this process's if it is not given."""
    with output.open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    try:
        wait_until_it_listens(process, port, output)
        yield
    finally:
        process.terminate()
        process.wait()


def wait_until_it_listens(process: subprocess.Popen, port: int, output: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise AssertionError(f"{process.args} does not listen: {output.read_text()}")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
