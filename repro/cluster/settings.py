"""`cluster.yaml`: which cluster, and what a job may ask of it. In the clone's own folder and not in git: it belongs to
a place, and cannot change a number. `cluster.example.yaml` shows every key.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field

from repblend.params.reading import read_yaml, validated
from repblend.sections import Count, FilePath, Positive, Section
from repro.engines.base import On

FILE, EXAMPLE = Path("cluster.yaml"), Path("cluster.example.yaml")
"""In the clone."""
Option = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]+$", max_length=1000)]
"""What SLURM is told, on one line."""
Line = Option
"""A line of shell."""


class Cluster(Section):
    """The content of `cluster.yaml`."""

    partition: Option | None = None
    """Where jobs are queued; the cluster's default if none is named."""
    account: Option | None = None
    """Who pays."""
    constraint: Option | None = None
    """Feature that nodes must have, so that all are of one kind: bytes differ between kinds of hardware."""
    time_minutes: Positive = 24 * 60
    """A job that takes longer is stopped, queued again, and goes on where it was."""
    memory_gib: Positive | None = None
    """Of a job; the cluster's default if none is given."""
    cpus: Positive | None = None
    """Processors of a job; the cluster's default if none are given."""
    gpus: Count = 1
    """GPUs of a job; a stage uses one."""
    max_jobs: Positive = 64
    """Jobs that wait or run at once."""
    retries: Count = 3
    """How often a job is submitted again after it was killed, its node failed, or its time was over."""
    options: Mapping[Option, Option | int | bool] = {}
    """Any other option of `sbatch`, by its long name: {qos: normal}."""
    setup: tuple[Line, ...] = Field(default=(), strict=False)
    """Lines of shell that a job begins with: `module load cuda`."""
    image: FilePath | None = None
    """Apptainer's image (`.sif`), on the shared disk; without one, stages run with the Python of `repro` itself."""
    visible_gpus: tuple[Count, ...] | None = Field(default=None, strict=False)
    """For `--on gpus`: which ones, by number. All that `nvidia-smi` lists by default."""
    poll_seconds: Annotated[float, Field(gt=0, le=600)] = 15.0
    """How often the queue is asked."""


def read_cluster(root: Path, on: On) -> Cluster:
    """Return the settings of a clone; on one machine's GPUs none need be written.

    Raises:
        ValueError: the file is missing where it is needed, a key is unknown, or a value is not as expected.
    """
    path = root / FILE
    if not path.exists():
        if on is On.SLURM:
            raise ValueError(f"{path}: no such file, which says where jobs are queued. Copy {EXAMPLE} to {FILE} and "
                             "edit it")
        return Cluster()
    return validated(Cluster, read_yaml(path) or {}, str(path))
