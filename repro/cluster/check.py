"""`repro cluster check`: is a cluster fit for `repro run --on slurm`? One short job looks around on its node.

What only this machine can say is found out first: the settings, the commands of SLURM. Then a job is queued like any
other, but for a few minutes, and does there what jobs of a run would do: reads the clone, links a file of DVC's cache,
opens the data, asks the image what it is made of, lets torch count GPUs. Findings have the form of `repro doctor`, and
say how to mend what is wrong.
"""

import contextlib
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from repblend.escape import one_line
from repblend.records.base import Record
from repblend.runtime.processes import only_writer
from repblend.runtime.provenance import processor, read_runs
from repblend.store import refuse_links
from repro.cluster.containers import check_contents
from repro.cluster.engines import QUEUE, JobEngine, Queued, open_engine
from repro.cluster.jobs import Hardware
from repro.cluster.node import Task, hardware_here
from repro.cluster.settings import FILE, Cluster, On, read_cluster
from repro.doctor import GIB, Finding, check_encoding, check_memory, check_packages, check_python, found_by
from repro.image.contents import CONTENTS
from repro.profiles import Profile, profiles_of
from repro.workspace import cache_of, environment, find_root, inputs_of

FOLDER, STAGE = Path("logs/cluster-check"), "cluster-check"
"""In the clone: what this machine and the node tell each other by; and what the job is called in the queue."""
LOCK, FOUND = "check.lock", "found.json"
MINUTES = 10
"""Of the job: a short one waits less."""
SECONDS_BETWEEN_LOOKS = 1.0
SECONDS_FOR_A_FILE = 20.0
"""Until a file that another machine wrote is seen here, on a shared disk that is slow to tell."""
CLOCKS_S = 60.0
"""By how much clocks may differ."""
LAST_LINES = 8
IN_TORCH = """\
import torch
num = torch.cuda.device_count()
print(torch.__version__, num, torch.cuda.get_device_name(0) if num else "")"""


@dataclass(frozen=True, kw_only=True)
class Probe(Task):
    """The job that looks around: where, and what it is to find there."""

    token: str
    """What the file in the cache holds that was written for this check."""
    cache: str
    """DVC's, as this machine sees it."""
    folders: tuple[str, ...] = ()
    """What the user brings: data sets, weights."""
    sif: str | None = None
    """Apptainer's image."""
    num_gpus: int = 1
    needs_gpu: bool = True
    """Whether a profile computes on a GPU."""
    earlier: tuple[str, ...] = ()
    """Kinds of hardware that the profiles' last runs were on."""

    @property
    def place(self) -> Path:
        return Path(self.root) / FOLDER

    def __call__(self) -> int:
        """Look around on this node, and write down what was found."""
        findings = [found_by(check, self) for check in ON_THE_NODE]
        Found(token=self.token, seconds=time.time(), findings=[asdict(each) for each in findings]).write(
            self.place / FOUND)
        return 0


class Found(Record):
    """`found.json`, written on the node."""

    token: str
    seconds: float
    """Since 1970, by the clock of the node."""
    findings: list[dict[str, str]]


def main(name: str, on: On) -> int:
    """Print every finding; return 1 if something has to be mended.

    Args:
        name: of the profile or suite whose data, weights and device are asked for.
        on: `slurm`, or `gpus` for the GPUs of this machine.
    """
    broken = []
    try:
        root = find_root()
        for finding in findings_of(root, profiles_of(root, name), on):
            print(finding, flush=True)
            broken += [finding.name] if finding.status == "mend" else []
    except KeyboardInterrupt:
        print("\nStopped; the job was taken out of the queue.", file=sys.stderr)
        return 1
    except (ValueError, OSError) as error:
        print(f"repro cluster check: {error}", file=sys.stderr)
        return 1
    print(f"To mend: {', '.join(broken)}. Then run this again" if broken else
          f"Ready: `repro run --profile {name} --on {on}`")
    return 1 if broken else 0


def findings_of(root: Path, profiles: Sequence[Profile], on: On) -> Iterator[Finding]:
    """Yield what this machine finds, then what the node does; no job is queued while something is wrong here."""
    opened = list[tuple[Cluster, JobEngine]]()

    def check_settings(root: Path) -> Finding:
        cluster = read_cluster(root, on)
        words = ", ".join(f"{key} {value}" for key, value in cluster.model_dump(exclude_defaults=True).items())
        opened.append((cluster, open_engine(on, cluster.model_copy(update={"time_minutes": MINUTES}))))
        return Finding("settings", "ok", f"{FILE}: {words or 'nothing but defaults'}; {opened[0][1].slots} jobs at "
                       "once")

    yield (settings := found_by(check_settings, root))
    if settings.status == "mend":
        return
    cluster, engine = opened[0]
    folders = dict.fromkeys(str(source) for profile in profiles
                            for source in inputs_of(root, profile.brought().folders).values())
    with _left_here(root) as token:
        yield from _on_a_node(engine, Probe(
            root=str(root), workspace=".", stage=STAGE, part=None, attempt=1, snapshot=str(root), expects=None,
            token=token, cache=str(cache_of(root)), folders=tuple(folders), sif=cluster.image,
            num_gpus=cluster.gpus if on is On.SLURM else 1,
            needs_gpu=any(profile.params().compute.device == "cuda" for profile in profiles),
            earlier=tuple(sorted({str(Hardware.of(run)) for profile in profiles
                                  for run in read_runs(profile.workspace / "runs.jsonl")}))))


@contextlib.contextmanager
def _left_here(root: Path) -> Iterator[str]:
    """Leave files for the node to find, and hold a lock, while the body runs; yield what they hold."""
    place, cache, token = refuse_links(root / FOLDER), cache_of(root), secrets.token_hex(8)
    for folder in (place, cache):
        folder.mkdir(parents=True, exist_ok=True)
    (place / FOUND).unlink(missing_ok=True)
    in_cache = cache / f"{STAGE}-{token}"
    with only_writer(place / LOCK, f"the check of {root}", wait_seconds=0.0):
        try:
            in_cache.write_text(token)
            yield token
        finally:
            in_cache.unlink(missing_ok=True)


def _on_a_node(engine: JobEngine, probe: Probe) -> Iterator[Finding]:
    """Queue the job, wait for it, and yield what it found; it is taken back if the caller goes."""
    number = engine.submit([probe])[0]
    print(f"      job {number} is queued; Ctrl-C takes it back", flush=True)
    try:
        came = _wait(engine, probe, number)
    finally:
        engine.cancel([number])
    if came is None:
        yield _nothing_came(probe, number)
        return
    yield from (Finding(**each) for each in came.findings)
    apart = abs(time.time() - came.seconds)
    yield Finding("clocks", "ok", f"within {CLOCKS_S:.0f} s") if apart < CLOCKS_S else Finding(
        "clocks", "mend", f"the node's and this machine's are {apart:.0f} s apart: what has changed is judged by times "
        "of files. Ask an administrator to set them (chrony)")


def _wait(engine: JobEngine, probe: Probe, number: str) -> Found | None:
    """Return what the job found; None if it ended without a word."""
    gone_at = None
    while gone_at is None or time.monotonic() < gone_at + SECONDS_FOR_A_FILE:
        with contextlib.suppress(OSError, StopIteration):
            next(probe.place.iterdir())  # makes a network's file system look again
        if (probe.place / FOUND).is_file():
            found = Found.read(probe.place / FOUND, "Run `repro cluster check` again")
            return found if found.token == probe.token else None
        if gone_at is None and engine.states([number])[number].state is Queued.ENDED:
            gone_at = time.monotonic()
        time.sleep(SECONDS_BETWEEN_LOOKS)
    return None


def _nothing_came(probe: Probe, number: str) -> Finding:
    """Say why a job may have ended without a word: its log has the reason, or there is not even that."""
    logs = sorted((Path(probe.root) / QUEUE).glob(f"{number.partition('-')[0]}*_log.*"))
    lines = [one_line(line) for path in logs for line in path.read_text("utf-8", "replace").splitlines()
             if line.strip()]
    if lines:
        return Finding("job", "mend", f"job {number} ended and found nothing out. Its last words, in {logs[0]}: "
                       f"{' / '.join(lines[-LAST_LINES:])}. Mend that (`setup` in {FILE} has lines that run before)")
    return Finding("shared folder", "mend", f"job {number} ended without a trace in {probe.root}: the node does not "
                   "see that folder, or cannot write there. Put the clone on a disk that nodes share (often /scratch, "
                   f"/work or $HOME); `srun ls {probe.root}` shows what a node sees")


# What is found out on the node.


def check_node(probe: Probe) -> Finding:
    gpus = os.environ.get("CUDA_VISIBLE_DEVICES")
    return Finding("node", "ok", f"{os.uname().nodename}, {processor()}, {len(os.sched_getaffinity(0))} processors, "
                   f"CUDA_VISIBLE_DEVICES {'not set' if gpus is None else gpus or 'empty'}")


def check_shared(probe: Probe) -> Finding:
    """The clone: what is written here, the machine that asks gets."""
    return Finding("shared folder", "ok", f"{probe.root}, {shutil.disk_usage(probe.root).free / GIB:.1f} GiB free")


def check_locks(probe: Probe) -> Finding:
    """The machine that started this holds a lock: it must be held for the node as well."""
    try:
        with only_writer(probe.place / LOCK, "", wait_seconds=0.0):
            return Finding("locks", "note", f"locks of {probe.root} do not reach from one machine to the other. Start "
                           "runs of this clone on one login node alone, or mount the disk with them (Lustre: -o flock)")
    except ValueError:
        return Finding("locks", "ok", "reach from one machine to the other")


def check_cache(probe: Probe) -> Finding:
    """DVC's cache: whether it is the same one, can be written, and gives links."""
    cache, name = Path(probe.cache), f"{STAGE}-{probe.token}"
    if not (cache / name).is_file() or (cache / name).read_text() != probe.token:
        return Finding("cache", "mend", f"{cache}: not seen by the node. Put it on a disk that nodes share: `dvc cache "
                       "dir --local PATH`")
    written = cache / f"{name}-node"
    try:
        written.write_text(probe.token)
    except OSError as error:
        return Finding("cache", "mend", f"{cache}: the node cannot write there ({error.strerror}), and results travel "
                       "by it. Mend its rights, or name another: `dvc cache dir --local PATH`")
    finally:
        written.unlink(missing_ok=True)
    link = probe.place / f"link-{probe.token}"
    try:
        os.link(cache / name, link)
    except OSError as error:
        return Finding("cache", "note", f"{cache}: on another disk than the clone ({error.strerror}), so every job "
                       "copies its inputs. A cache on the clone's disk gives hard links")
    finally:
        link.unlink(missing_ok=True)
    return Finding("cache", "ok", f"{cache}, hard links")


def check_data(probe: Probe) -> Finding:
    """What the user brings."""
    absent = [folder for folder in probe.folders if not os.access(folder, os.R_OK)]
    if absent:
        return Finding("data", "mend", f"{', '.join(absent)}: not seen by the node, or not readable. Move it to a disk "
                       "that nodes share, and say in params.yaml where it lies")
    return Finding("data", "ok", ", ".join(probe.folders) or "comes with packages")


def check_image(probe: Probe) -> Finding:
    """Apptainer's image: that the node can run it, and what it is made of."""
    if probe.sif is None:
        return Finding("image", "ok", f"none is named in {FILE}: stages run with {sys.executable}")
    check_contents(probe.sif, Path(probe.root) / CONTENTS)  # says itself what to mend
    return Finding("image", "ok", f"{probe.sif}, made of what {CONTENTS} says")


def check_torch(probe: Probe) -> Finding:
    """Let torch, where stages would import it, count the GPUs of the job."""
    command = [sys.executable] if probe.sif is None else [
        "apptainer", "exec", "--containall", *(["--nv"] if probe.needs_gpu else []), probe.sif, "python"]
    done = subprocess.run([*command, "-c", IN_TORCH], capture_output=True, text=True, env=environment(), check=False)
    if done.returncode:
        return Finding("torch", "mend", f"cannot be imported ({one_line(done.stderr)[-300:]}); run `make install` on a "
                       f"disk that nodes share, or name an image in {FILE}")
    version, num, *name = done.stdout.split(maxsplit=2)
    found = f"torch {version} finds {num} GPU{'' if num == '1' else 's'}{': ' + name[0].strip() if name else ''}"
    if int(num) == 0 and probe.needs_gpu:
        return Finding("gpu", "mend", f"{found}, but compute.device in params.yaml is 'cuda'. Ask for one (gpus: 1, "
                       f"partition and constraint in {FILE}); `srun --gpus=1 nvidia-smi` shows what a job gets")
    if int(num) > 1:
        return Finding("gpu", "note", f"{found}: a stage uses one. gpus: 1 in {FILE} leaves the others to other jobs")
    return Finding("gpu", "ok", found if probe.needs_gpu else f"{found}; the profile computes on the processor")


def check_hardware(probe: Probe) -> Finding:
    """Whether the node is of the kind that earlier results are from: bytes differ between kinds."""
    here = str(hardware_here(probe.needs_gpu))
    if others := [each for each in probe.earlier if each != here]:
        return Finding("hardware", "note", f"{here}, while earlier runs were on {'; '.join(others)}: a run that keeps "
                       f"results of those takes none from here. `constraint` in {FILE} asks for one kind of node")
    return Finding("hardware", "ok", here)


def _of_the_clone(check: Callable[[Path], Finding]) -> Callable[[Probe], Finding]:
    """Let a check of `repro doctor` look at the clone on the node."""
    def on_the_node(probe: Probe) -> Finding:
        return check(Path(probe.root))

    on_the_node.__name__ = check.__name__
    return on_the_node


ON_THE_NODE: tuple[Callable[[Probe], Finding], ...] = (
    check_node, check_shared, check_locks, check_cache, check_data, *map(_of_the_clone, (
        check_python, check_packages, check_encoding, check_memory)), check_image, check_torch, check_hardware)
