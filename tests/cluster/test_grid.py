"""Every kind of stage on two false GPUs, by a real SLURM and without one, against one sequential run: the same bytes.

The longest of the proofs, minutes: `make test-cluster`.
"""

import contextlib
import re
from pathlib import Path

import pytest

from repblend.runtime.provenance import read_runs
from repro.cluster.jobs import State, read_jobs
from repro.cluster.settings import On
from repro.pipeline import yaml_text
from tests.cluster.slurm import slurm
from tests.end_to_end.workspace import Workspace

OUTPUTS = ("dvc.lock", "settings", "data/prepared", "features", "experts", "encoder-experts", "sets", "records",
           "metrics", "paper")


pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """What one run makes, stage after stage."""
    workspace = Workspace.create(tmp_path_factory.mktemp("alone") / "alone")
    assert "Report: " in workspace.run_forked("run")
    return workspace


@pytest.mark.parametrize("on", [On.SLURM, On.GPUS])
def test_a_grid_of_jobs_has_the_bytes_of_a_sequential_run(on: On, alone: Workspace, tmp_path: Path) -> None:
    by_jobs = Workspace.create(tmp_path / "by jobs")
    settings = {"gpus": 1} if on is On.SLURM else {"visible_gpus": [0, 1]}
    (by_jobs.folder / "cluster.yaml").write_text(yaml_text({**settings, "poll_seconds": 0.3}))
    with slurm(tmp_path / "slurm") if on is On.SLURM else contextlib.nullcontext() as cluster:
        variables = cluster.environment if cluster else {}
        printed = by_jobs.run("-m", "repro", "run", "--on", on, **variables)
        assert "Report: " in printed
        again = by_jobs.run("-m", "repro", "run", "--on", on, **variables)
    assert not re.search(r": job \d", again)
    expected, found = alone.hashes(*OUTPUTS), by_jobs.hashes(*OUTPUTS)
    for run_page in (expected, found):
        del run_page["paper/run.html"]  # says how it was run
    assert found == expected

    jobs = {job.name: job for job in read_jobs(by_jobs.folder)}
    assert {(job.state, job.submission.attempt) for job in jobs.values()} == {(State.DONE, 1)}
    assert {job.ran.gpus for job in jobs.values()} == {"0", "1"}
    for stage, num in (("experts", 4), ("encoder-experts", 2)):
        numbers = [jobs[f"{stage}.{part}"].submission.id for part in range(num)]
        if on is On.SLURM:  # one array
            assert len({number.partition("_")[0] for number in numbers}) == 1
            assert [number.partition("_")[2] for number in numbers] == [str(part) for part in range(num)]
    runs = [{run.stage: run for run in read_runs(each.folder / "runs.jsonl")} for each in (alone, by_jobs)]
    assert runs[0].keys() == runs[1].keys()
    assert all(runs[1][name].commit and runs[1][name].parameters_sha256 == run.parameters_sha256
               for name, run in runs[0].items())
