"""Run one stage of a pipeline from its command line: `python -m PACKAGE STAGE [CELL]`, in the workspace's folder.
`--only NUMBER` does a part of its work, which the stage then finds: one expert of all.

`dvc.yaml` calls this; nobody has to. The parameters are checked before anything slow, no second process writes the same
outputs, arithmetic is deterministic, the stage stops when the run that started it is gone, what was edited meanwhile is
refused, and `runs.jsonl` gets a line.
"""

import contextlib
import ctypes
import datetime
import gc
import logging
import os
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TextIO

from repblend.progress import TERMINAL, TerminalHandler
from repblend.runtime.context import StageContext
from repblend.runtime.processes import ONLY, LogFile, exit_code, only_writer, stop_with_the_runner
from repblend.runtime.provenance import check_sources_are_the_workspaces, note_run, on_gpu, refuse_edits
from repblend.runtime.settings import SETTINGS, check_written, write_settings
from repblend.store import refuse_links

OUTPUT = (1, 2)
"""Descriptors of standard output and standard error."""


COMMON_INSTRUCTIONS = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}
"""What PyTorch, oneDNN and MKL may use at most of a processor that has AVX-512."""


def common_instructions(cpu_info: Path = Path("/proc/cpuinfo")) -> dict[str, str]:
    """Return the variables that keep sums as they are without AVX-512, where it is there.

    In its wider registers sums are taken in another order, and a distillation carries a last bit far: two generations
    of one make of processor differed by half a point of recall, and now give the same bytes.
    """
    try:
        return COMMON_INSTRUCTIONS if "avx512f" in cpu_info.read_text().split() else {}
    except OSError:  # not Linux
        return {}


def prepare_process() -> None:
    """Set what libraries read when they are first imported; call this first of all."""
    os.environ.update(common_instructions())
    gc.disable()  # until all is imported: nothing of it is garbage
    keep_freed_memory()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    # Read when torch is first imported. Threads wait for one another thousands of times a second: asleep, they make a
    # distillation a third slower; spinning long, seven times slower as soon as another process wants their core. A
    # short spin costs little either way.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    # PyTorch warns of its own use of it, in every stage that takes forward derivatives.
    warnings.filterwarnings("ignore", message="`torch.jit.script` is deprecated")


def keep_freed_memory() -> None:
    """Let the C library keep what is freed for the next tensor, where it is GNU's: its peak stays, and a tenth of a
    distillation's time is not spent on getting the same pages from the system again, filled with zeros.
    """
    if set_option := getattr(ctypes.CDLL(None), "mallopt", None):
        trim_threshold, map_threshold = -1, -3  # as <malloc.h> numbers them
        set_option(trim_threshold, 2**31 - 1)
        set_option(map_threshold, 2**30)


def main(context_type: type[StageContext], usage: str, arguments: Sequence[str]) -> int:
    """Run the stage that the arguments name; return the exit code.

    Args:
        context_type: of the pipeline whose stages they are.
        usage: what is printed after a wrong call.
        arguments: the stage's name and, for a stage that has cells, the cell's; with `--only` and a number at the end,
            that part of its work alone.
    """
    pipeline, named, part = context_type.pipeline, arguments, None
    if len(arguments) > 2 and arguments[-2] == ONLY and arguments[-1].isdecimal():
        named, part = arguments[:-2], int(arguments[-1])
    if len(named) not in (1, 2) or named[0] not in pipeline.names:
        print(usage, file=sys.stderr)
        return 2
    return exit_code(" ".join(arguments), lambda: _run(context_type, part, *named))


def _run(context_type: type[StageContext], part: int | None, stage: str, cell: str | None = None) -> None:
    check_sources_are_the_workspaces(Path.cwd())
    if stage == SETTINGS:
        stop_with_the_runner()
        write_settings(context_type.pipeline, Path.cwd())
        return
    context = replace(context_type.of(Path.cwd(), stage, cell), part=part)
    if part is not None and part >= (num_parts := context.pipeline.stages[stage].parts(context.params)):
        raise ValueError(f"{ONLY} {part}: stage {stage} has {num_parts or 'no'} parts that can be done alone, by these "
                         "parameters. Leave it out, or give a smaller number; the first is 0")
    check_written(context.settings, context.paths.settings(context.stage, context.cell), context.name)
    context.pipeline.check(context.params, context.paths)
    with running(context):
        run_stage = (context.pipeline.function if part is None else context.pipeline.part_function)(context.stage)
        # What was imported stays. Each full collection would look through all of it again: 3 % of a distillation's time
        # on an idle machine, 17 % on a busy one.
        gc.freeze()
        gc.enable()
        run_stage(context)
        refuse_edits(context)


@contextlib.contextmanager
def running(context: StageContext) -> Iterator[None]:
    """Run the body as the stage of `context`; note its run if the body succeeds, unless it is a part.

    Raises:
        ValueError: another process runs the same stage in this workspace, or there is no GPU where one is asked for.
    """
    stop_with_the_runner()
    with only_writer(context.paths.lock(context), f"stage {context.name}"), _logging_to(context.paths.log(context)):
        compute_deterministically(context.params.compute.threads)
        if on_gpu(context):
            prepare_gpu(context.params.compute.arithmetic)
        started, began, begun = datetime.datetime.now(datetime.UTC), time.monotonic(), context.paths.begun(context)
        resumed = begun.is_file()
        if context.part is None:
            refuse_links(begun).touch()
        yield
        if context.part is None:
            note_run(context, started, time.monotonic() - began, resumed)
            begun.unlink()


def compute_deterministically(threads: int) -> None:
    """Make torch give the same bits on every run: a fixed number of threads, deterministic algorithms only."""
    import torch  # after `prepare_process`, and after the parameters were checked

    torch.set_num_threads(threads)
    # As `use_deterministic_algorithms(True)`, which also imports the compiler (for two seconds) to tell it so; nothing
    # here is compiled.
    torch.set_deterministic_debug_mode("error")
    # On top of that, torch would fill new memory with NaN, for programs that read it before they write it: none here
    # does, and the filling costs a tenth of a distillation's time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def prepare_gpu(arithmetic: str) -> None:
    """Make the GPU give the same bits on every run on its kind, with the products that `compute.arithmetic` names.

    Raises:
        ValueError: PyTorch finds no GPU.
    """
    import torch

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when the first product is taken
    if not torch.cuda.is_available():
        raise ValueError("compute.device is 'cuda', but PyTorch finds no GPU here. Check `nvidia-smi`, give the "
                         "container its GPUs (`repro run --gpus all`), or set compute.device to 'cpu'")
    torch.backends.cuda.matmul.allow_tf32 = arithmetic == "tf32"
    torch.backends.cudnn.allow_tf32 = arithmetic in ("tf32", "tf32-convolutions")
    torch.backends.cudnn.benchmark = False


@contextlib.contextmanager
def _logging_to(path: Path) -> Iterator[None]:
    """Send the project's log lines to a file of their own and to the terminal (or whatever collects the output), and
    what libraries print (bars of their own, warnings) to that file alone.
    """
    refuse_links(path).parent.mkdir(parents=True, exist_ok=True)
    log = logging.getLogger("repblend")
    log.setLevel(logging.INFO)
    file = LogFile(path)
    assert file.stream is not None, "it is opened at once"
    with contextlib.closing(file), _output_goes_to(file.stream.fileno()) as terminal:
        handlers: list[logging.Handler] = [file, TerminalHandler(terminal)]
        TERMINAL.append(terminal)
        for handler in handlers:
            log.addHandler(handler)
        try:
            yield
        finally:
            TERMINAL.pop()
            for handler in handlers:
                log.removeHandler(handler)


@contextlib.contextmanager
def _output_goes_to(descriptor: int) -> Iterator[TextIO]:
    """Let standard output and standard error of this process, whoever writes to them, go to an open file while the body
    runs; yield what standard error was before.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    before = [os.dup(number) for number in OUTPUT]
    with os.fdopen(os.dup(OUTPUT[-1]), "w", encoding="utf-8", errors="backslashreplace", buffering=1) as terminal:
        for number in OUTPUT:
            os.dup2(descriptor, number)
        try:
            yield terminal
        finally:
            with contextlib.suppress(OSError):  # the log's disk is full
                sys.stdout.flush()
                sys.stderr.flush()
            for number, earlier in zip(OUTPUT, before, strict=True):
                os.dup2(earlier, number)
                os.close(earlier)
