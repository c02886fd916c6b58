"""What surrounds every stage: its lock, its guard, deterministic arithmetic, its log, and its run record."""

import contextlib
import datetime
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from repblend.stages.context import StageContext
from repblend.stages.guard import stop_with_the_runner
from repblend.stages.lock import only_writer
from repblend.stages.provenance import on_gpu, run_record
from repblend.store import write_json


@contextlib.contextmanager
def running(context: StageContext) -> Iterator[None]:
    """Run the body as the stage of `context`; write its run record if the body succeeds.

    Raises:
        ValueError: another process runs the same stage in this workspace, or there is no GPU where one is asked for.
    """
    stop_with_the_runner()
    with only_writer(context.paths.lock(context), f"stage {context.name}"), _logging_to(context.paths.log(context)):
        compute_deterministically(context.params.compute.threads)
        if on_gpu(context):
            # The unimodal pipeline has no such setting.
            prepare_gpu(tf32=getattr(context.params.compute, "tf32", False))
        started, began = datetime.datetime.now(datetime.UTC), time.monotonic()
        yield
        write_json(context.paths.run_record(context), run_record(context, started, time.monotonic() - began))


def compute_deterministically(threads: int) -> None:
    """Make torch give the same bits on every run: a fixed number of threads, deterministic algorithms only."""
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    # On top of that, torch would fill new memory with NaN, for programs that read it before they write it: none here
    # does, and the filling costs a tenth of a distillation's time.
    torch.utils.deterministic.fill_uninitialized_memory = False


def prepare_gpu(tf32: bool) -> None:
    """Make the GPU give the same bits on every run on its kind, in float32 unless TF32 is asked for.

    Raises:
        ValueError: PyTorch finds no GPU.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when the first product is taken
    if not torch.cuda.is_available():
        raise ValueError("compute.device is 'cuda', but PyTorch finds no GPU here. Check `nvidia-smi`, give the "
                         "container its GPUs (`repro run --gpus all`), or set compute.device to 'cpu'")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cudnn.benchmark = False


@contextlib.contextmanager
def _logging_to(path: Path) -> Iterator[None]:
    """Send the project's log lines to a file of their own and to the terminal (or whatever collects the output)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    log = logging.getLogger("repblend")
    log.setLevel(logging.INFO)
    handlers = [logging.FileHandler(path, mode="w", encoding="utf-8"), logging.StreamHandler()]
    handlers[0].setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    for handler in handlers:
        log.addHandler(handler)
    try:
        yield
    finally:
        for handler in handlers:
            log.removeHandler(handler)
            handler.close()
