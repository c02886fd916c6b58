"""`repro rehearse`: a few real steps of every kind of a profile's work, before days are spent on it.

Each kind has a process of its own (`repblend.rehearsal`), watched for the memory that it takes. One that takes more
than there is, is stopped, which is a finding: the parameter that cures it is named and tried. `rehearsal.json` in the
workspace has what was found; `repro plan` reads it.
"""

import importlib.metadata
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from repblend.costs import (
    DISTILL,
    ENCODER_EXPERT,
    ENCODER_STUDENT,
    EXPERT,
    IMAGE,
    OUT_OF_MEMORY,
    REHEARSAL,
    STUDENT,
    Counts,
    Rehearsal,
    Rehearsed,
    counts_of,
    kinds_of,
    setting_of,
)
from repblend.params import Params
from repblend.report.table import in_columns
from repblend.runtime.harness import prepare_process
from repblend.runtime.provenance import machine_here, processor
from repblend.store import JSON
from repro.profiles import Profile, profiles_of
from repro.workspace import find_root, workspace_environment

KILLED, TIMED_OUT = -9, -15
SHARE_OF_FREE_MEMORY = 0.9
SECONDS_BETWEEN_LOOKS = 0.05
ATTEMPTS = 5
CHUNK, GRAPH = "compute.encoder_chunk", "distill.common.encoder_graph"
CURES = {
    IMAGE: (CHUNK,), EXPERT: (CHUNK, "experts.batch_size"), ENCODER_EXPERT: ("encoder_experts.batch_size",),
    DISTILL["heads"]: (GRAPH, CHUNK), DISTILL["constant-memory"]: ("distill.common.batch_size",),
    DISTILL["unrolled"]: ("distill.methods.mtt-vl.batch_size",), STUDENT: ("evaluate.batch_size",),
    ENCODER_STUDENT: ("evaluate.batch_size",)}
"""Kind of row -> what to lower, in this order, where it does not fit: numbers are halved down to one, `keep` becomes
`recompute`."""
CHANGE_NO_RESULT = (CHUNK, GRAPH)
"""But for last bits. A smaller batch is another experiment: lower it only if no larger machine is at hand."""


def main(name: str, steps: int, minutes: float, memory_gib: float | None, kinds: Sequence[str]) -> int:
    """Rehearse a profile, or each of a suite; return the exit code.

    Args:
        steps: of each kind, after one to warm up.
        minutes: of steps, for each kind; one step is taken however long it takes, up to three times this.
        memory_gib: what a process may take; nine tenths of what is free by default.
        kinds: names of kinds, or words; only those kinds, or those that have a word in their names. All by default.
    """
    prepare_process()  # what the processes inherit, and read when they import torch
    try:
        root = find_root()
        limit = memory_gib * 2**30 if memory_gib else SHARE_OF_FREE_MEMORY * psutil.virtual_memory().available
        for profile in profiles_of(root, name):
            print(f"Profile {profile.name}: {steps} steps of each kind, up to {minutes:g} min and "
                  f"{limit / 2**30:.1f} GiB each", flush=True)
            print(_table(rehearse(profile, steps, 60 * minutes, limit, kinds)), end="\n\n")
    except (ValueError, OSError) as error:
        print(f"repro rehearse: {error}", file=sys.stderr)
        return 1
    return 0


def rehearse(profile: Profile, steps: int, seconds: float, limit: float, words: Sequence[str]) -> Rehearsal:
    """Rehearse a profile's kinds and write `rehearsal.json`, again after each; kinds that were left out now stay as an
    earlier rehearsal of the same setting found them.

    Raises:
        ValueError: the size of the profile's data set is not known.
    """
    params, gpu = profile.params(), _gpu()
    counts = counts_of(profile.workspace, params)
    if counts is None and isinstance(params, Params):
        raise ValueError(f"the size of data set {params.data.name} is not known; run `repro run --profile "
                         f"{profile.name} prepare` first")
    content = params.model_dump()
    if params.compute.device == "cuda" and not gpu:
        print("compute.device is cuda, but PyTorch finds no GPU here: these are times of the processor, and say "
              "nothing about one.", flush=True)
        content["compute"]["device"] = "cpu"
        params = type(params).model_validate(content)
    for left_over in profile.workspace.glob("checkpoints/rehearsal-*"):  # of one that was killed
        shutil.rmtree(left_over)
    path = profile.workspace / REHEARSAL
    rehearsal = Rehearsal(setting=setting_of(params), device=gpu if params.compute.device == "cuda" else processor(),
                          machine=machine_here(),
                          torch=importlib.metadata.version("torch"), found=[])
    if path.is_file() and (before := Rehearsal.read(path)).setting == rehearsal.setting:
        rehearsal = rehearsal.model_copy(update={"found": before.found})
    names = [f"{stage}@{cell}" if cell else stage for stage, cell in profile.kind.pipeline.cells(params)]
    kinds = kinds_of(names, params, counts)
    for kind in kinds:
        if not words or any(word == kind if word in kinds else word in kind for word in words):
            print(f"{kind} ...", flush=True)
            found = _with_cures(profile, kind, content, counts, steps, seconds, limit)
            others = [each for each in rehearsal.found if each.kind != kind]
            rehearsal = rehearsal.model_copy(update={"found": [*others, found]})
            rehearsal.write(path)
    return rehearsal


def _gpu() -> str:
    """Return the name of the GPU, asked in another process: torch takes seconds to import, and memory."""
    question = "import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else '')"
    return subprocess.run([sys.executable, "-c", question], capture_output=True, text=True).stdout.strip()


def _with_cures(profile: Profile, kind: str, content: JSON, counts: Counts | None, steps: int, seconds: float,
                limit: float) -> Rehearsed:
    """Rehearse a kind with the profile's parameters, and with cure after cure until it fits."""
    cure: dict[str, Any] = {}
    findings: list[str] = []
    for _ in range(ATTEMPTS):
        code, found, peak = _in_a_process(profile, kind, _changed(content, cure), counts, steps, seconds, limit)
        if code == 0 and found:
            if cure:
                findings.append("cured by " + ", ".join(f"{key}={value}" for key, value in cure.items()))
            return found.model_copy(update={"cure": cure, "finding": "; ".join(findings) or None})
        if code not in (OUT_OF_MEMORY, KILLED):
            findings.append("no step was over in time" if code == TIMED_OUT else f"failed with exit code {code}")
            break
        findings.append(f"out of memory at {peak / 2**30:.1f} GiB")
        print(f"  {findings[-1]}", flush=True)
        if not (lowered := _lowered(kind, content, cure)):
            break
        cure |= lowered
        (key, value), = lowered.items()
        meaning = "changes no result" if key in CHANGE_NO_RESULT else "changes results"
        print(f"  trying {key}={value} ({meaning})", flush=True)
    return Rehearsed(kind=kind, what="no step came to its end", rows=1, steps=0, seconds=None, memory_mib=peak / 2**20,
                     finding="; ".join(findings), cure=cure)


def _in_a_process(profile: Profile, kind: str, content: JSON, counts: Counts | None, steps: int, seconds: float,
                  limit: float) -> tuple[int, Rehearsed | None, int]:
    """Return a process's exit code, what it found, and the most memory it was seen to hold."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder, "found.json")
        request = {"kind": kind, "params": content, "counts": asdict(counts) if counts else None, "steps": steps,
                   "seconds": seconds, "result": str(result)}
        process = subprocess.Popen([sys.executable, "-m", profile.kind.rehearsal, json.dumps(request)],
                                   cwd=profile.workspace, env=workspace_environment(profile.workspace))
        began, peak, stopped = time.monotonic(), 0, 0
        try:
            while process.poll() is None and not stopped:
                peak = max(peak, _resident(process.pid))
                if peak > limit:
                    stopped = KILLED
                elif time.monotonic() - began > 120 + 3 * seconds:
                    stopped = TIMED_OUT
                time.sleep(SECONDS_BETWEEN_LOOKS)
        finally:
            process.kill()
            process.wait()
        code = stopped or process.returncode
        return code, Rehearsed.read(result) if code == 0 else None, peak


def _resident(pid: int) -> int:
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


def _lowered(kind: str, content: JSON, cure: JSON) -> JSON:
    """Return the next thing to lower, with its new value; nothing where all are as low as they can be."""
    for key in CURES.get(kind, ()):
        section, last = _section(_changed(content, cure), key)
        if section[last] == "keep":
            return {key: "recompute"}
        if isinstance(section[last], int) and section[last] > 1:
            return {key: section[last] // 2}
    return {}


def _changed(content: JSON, changes: JSON) -> JSON:
    copy: JSON = json.loads(json.dumps(content))
    for key, value in changes.items():
        section, last = _section(copy, key)
        section[last] = value
        if key.startswith("distill.common"):  # for all cells, whatever they say of it
            for of in (*copy["distill"]["methods"].values(), *copy["distill"]["cells"].values()):
                of.pop(last, None)
    return copy


def _section(content: JSON, key: str) -> tuple[JSON, str]:
    """Return the mapping that has a key, and the key's last word."""
    *sections, last = key.split(".")
    for name in sections:
        content = content[name]
    return content, last


HEAD = ("kind of row", "rows a step", "a step", "rows a second", "memory", "GPU memory", "written a step", "finding")


def _table(rehearsal: Rehearsal) -> str:
    lines = [(each.kind, str(each.rows), "?" if each.seconds is None else f"{each.seconds:.3g} s",
              "?" if not each.seconds else f"{each.rows / each.seconds:.3g}", f"{each.memory_mib / 1024:.1f} GiB",
              "" if each.gpu_memory_mib is None else f"{each.gpu_memory_mib / 1024:.1f} GiB",
              f"{each.bytes_written / 1e6:.3g} MB", each.finding or "") for each in rehearsal.found]
    return "\n".join([f"On {rehearsal.device}", *in_columns([HEAD, *lines])])
