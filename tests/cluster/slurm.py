"""A real SLURM on this machine, from Debian's packages: a node with two false GPUs, without any file outside of a
test's folder. Daemons and keys end with the session.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cluster.toy import PATIENCE_S
from tests.remotes.servers import free_port

PACKAGES = "slurmctld, slurmd, slurm-client, munge"
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel", "srun")
CONF = """\
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={daemon}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
GresTypes=gpu
SlurmctldParameters=preempt_send_user_signal
SlurmdParameters=config_overrides
JobRequeue=1
KillWait=3
MinJobAge=300
SchedulerParameters=sched_interval=1,bf_interval=2,batch_sched_delay=1
NodeName=node0 NodeHostname={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory=8000 Gres=gpu:2 State=UNKNOWN
PartitionName=gpu Nodes=node0 Default=YES MaxTime=INFINITE State=UP
"""
GRES = "NodeName=node0 Name=gpu File=/dev/null\nNodeName=node0 Name=gpu File=/dev/zero\n"


def program(name: str) -> str:
    """Return the path of one of SLURM's programs, which Debian calls `*-wlm` as well; skip where there is none, fail in
    CI.
    """
    path = f"{os.environ['PATH']}:/usr/sbin"
    if found := shutil.which(name, path=path) or shutil.which(f"{name}-wlm", path=path):
        return found
    if os.environ.get("CI"):
        pytest.fail(f"CI needs {name} (Debian: {PACKAGES})")
    pytest.skip(f"no {name} here")


@dataclass(frozen=True)
class Cluster:
    """A cluster that runs."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """What its commands find it by."""
        return {"SLURM_CONF": str(self.folder / "slurm.conf")}

    def ask(self, *command: str) -> str:
        """Return what one of its commands prints."""
        return subprocess.run([program(command[0]), *command[1:]], env=os.environ | self.environment, text=True,
                              check=True, capture_output=True).stdout


@contextlib.contextmanager
def slurm(folder: Path) -> Iterator[Cluster]:
    """Run a cluster of one node while the body runs."""
    commands = {name: program(name) for name in PROGRAMS}
    folder.mkdir(parents=True)
    folder.chmod(0o755)
    for name in ("state", "spool"):
        (folder / name).mkdir()
    cluster, host = Cluster(folder), socket.gethostname().partition(".")[0]
    uid = os.getuid()
    (folder / "slurm.conf").write_text(CONF.format(
        folder=folder, host=host, controller=free_port(), daemon=free_port(),
        user="root" if uid == 0 else os.environ.get("USER", str(uid))))
    (folder / "gres.conf").write_text(GRES)
    (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    munged = [commands["munged"], "--foreground", "--force", f"--key-file={key}", f"--socket={folder}/munge.socket",
              f"--pid-file={folder}/munged.pid", f"--log-file={folder}/munged.log", f"--seed-file={folder}/munged.seed"]
    with contextlib.ExitStack() as daemons:
        for command in (munged, [commands["slurmctld"], "-D", "-c"], [commands["slurmd"], "-D", "-N", "node0"]):
            daemons.enter_context(_daemon(command, cluster.environment, folder))
            if command is munged:
                _wait(lambda: (folder / "munge.socket").exists(), folder)
        _wait(lambda: "idle" in cluster.ask("sinfo", "--noheader", "--format=%t"), folder)
        try:
            yield cluster
        finally:  # of a test that failed: jobs outlive their daemons
            cluster.ask("scancel", f"--user={uid}")
            _wait(lambda: not cluster.ask("squeue", "--noheader"), folder)


@contextlib.contextmanager
def _daemon(command: list[str], variables: Mapping[str, str], folder: Path) -> Iterator[None]:
    with (folder / f"{Path(command[0]).name}.output").open("w") as output:
        process = subprocess.Popen(command, env=os.environ | variables, stdout=output, stderr=output)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(is_ready: Callable[[], bool], folder: Path) -> None:
    end = time.monotonic() + PATIENCE_S
    while True:
        with contextlib.suppress(subprocess.CalledProcessError):
            if is_ready():
                return
        assert time.monotonic() < end, "\n".join(
            f"{path.name}: {path.read_text(errors='replace')[-2000:]}"
            for path in (*folder.glob("*.log"), *folder.glob("*.output")))
        time.sleep(0.05)
