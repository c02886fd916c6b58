"""A plan as text: a line per stage, the sums, and what the words mean."""

from collections.abc import Sequence
from dataclasses import dataclass

from repblend.report.table import in_columns
from repro.plan_state import PlannedStage, State
from repro.plan_times import ON_A_CPU, Estimate

UNKNOWN = "?"
HEAD = ("stage", "state", "time", "how known", "memory", "writes", "published: time", "GPU memory")
WORDS = """\
Times are for this kind of processor, one stage after the other.
measured: when the stage last ran here. extrapolated: the time of a like stage of the embedded grid, times the ratio of
their multiply-accumulates. Where it could be checked, eight in ten were right within a factor of three, all within 8.
published: by the paper's authors, on GPUs; nothing was measured on a GPU here.
A stage that runs only because one before it does is left out after all if that one gives the same bytes."""

ON_A_GPU = """\
This profile computes on a GPU (compute.device: cuda). Times "extrapolated, CPU" are those of this processor without
one, and so is their sum: they compare stages, and do not say how long a run takes. No GPU's time is known here but
those that were published, or measured on yours."""


@dataclass(frozen=True)
class Row:
    """A stage, what it needs, and the bytes of its large outputs (None: small, or not counted)."""

    stage: PlannedStage
    estimate: Estimate
    output_bytes: float | None


def plan_text(rows: Sequence[Row], words: str = WORDS) -> str:
    """Return the whole plan; `?` is what is not known, and sums are of what is."""
    table = in_columns([HEAD, *(_cells(row) for row in rows), _sums(rows)])
    on_a_cpu = [ON_A_GPU] if any(row.estimate.basis == ON_A_CPU for row in rows) else []
    return "\n".join([*table, "", *on_a_cpu, words])


def _cells(row: Row) -> tuple[str, ...]:
    needs, runs = row.estimate, row.stage.state is State.RUNS
    return (row.stage.name, str(row.stage.state), duration(needs.seconds) if runs else "-", needs.basis if runs else "",
            UNKNOWN if needs.peak_mib is None else f"{needs.peak_mib / 1024:.1f} GiB",
            "" if row.output_bytes is None else size(row.output_bytes),
            "" if needs.published_gpu_seconds is None else duration(needs.published_gpu_seconds),
            "" if needs.published_gpu_gib is None else f"{needs.published_gpu_gib:.1f} GiB")


def _sums(rows: Sequence[Row]) -> tuple[str, ...]:
    runs = [row for row in rows if row.stage.state is State.RUNS]
    known = [row.estimate.seconds for row in runs if row.estimate.seconds is not None]
    unknown = len(runs) - len(known)
    largest = [row.estimate.peak_mib for row in rows if row.estimate.peak_mib is not None]
    of_what = [*(["in all, CPU"] if any(row.estimate.basis == ON_A_CPU for row in runs) else []),
               *([f"and {unknown} not known"] if unknown else [])]
    return (f"{len(rows)} stages", f"{len(runs)} run", duration(sum(known) if known or not runs else None),
            ", ".join(of_what), f"{max(largest) / 1024:.1f} GiB" if largest else UNKNOWN,
            size(sum(row.output_bytes or 0 for row in runs)), "", "")


def duration(seconds: float | None) -> str:
    """Return seconds in words: `40 s`, `12 min`, `3.5 h`, `12 days`; None is not known."""
    if seconds is None:
        return UNKNOWN
    for unit, name, limit in ((1, "s", 100), (60, "min", 100), (3600, "h", 100), (86400, "days", float("inf"))):
        if seconds / unit < limit:
            return f"{seconds / unit:.{0 if name in ('s', 'min') else 1}f} {name}"
    raise AssertionError("the last limit is infinite")


def size(num_bytes: float) -> str:
    """Return bytes in words, decimal: `3 MB`, `15.6 GB`."""
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.0f} MB"
