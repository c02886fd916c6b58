"""How a workspace was run: what computed its results, what the last complete run in a container was isolated by, what
the last verification found, its jobs, and the page that shows all of it.

The page stands beside the report and not in it: the report's bytes follow from its numbers, and come out the same
inside and outside of a container.
"""

from pathlib import Path
from typing import Any

from pydantic import Field

from repblend.escape import html_environment
from repblend.records.base import Record, Run
from repblend.runtime.provenance import read_runs
from repblend.sections import Count
from repblend.store import write_bytes
from repro.cluster.jobs import read_jobs
from repro.engines.records import ContainerRun

CONTAINER, VERIFICATION = Path("container.json"), Path("verification.json")
"""In the workspace: a `ContainerRun` and a `Verification`."""
PAGE = Path("paper/run.html")


class Different(Record):
    """An output that a verification did not get again: MD5 in dvc.lock and after the run, None where there is none."""

    stage: str
    expected: str | None
    found: str | None


class Verification(Record):
    """What came out when every stage ran again in a clean checkout. Hashes are in dvc.lock: different ones are here."""

    commit: str
    started: str
    wall_seconds: float
    outputs: Count
    stages: list[str]
    different: dict[str, Different]
    container: ContainerRun | None = Field(default=None)


PAGE_TEMPLATE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>RepBlend, reproduced: how it was run</title>
<style>
:root { color-scheme: light dark }
body { font: 16px/1.6 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; margin: 0.5rem 0 1.5rem }
th, td { text-align: left; vertical-align: top; padding: 0.2rem 1.2rem 0.2rem 0; border-bottom: 1px solid #8886 }
td { overflow-wrap: anywhere }
</style>
</head>
<body>
{% macro rows(facts, prefix="") %}
{% for key, value in facts.items() %}
{% if value is mapping %}{{ rows(value, prefix ~ key ~ ": ") }}
{% else %}<tr><th>{{ (prefix ~ key) | replace("_", " ") }}</th><td>{{ value | shown }}</td></tr>
{% endif %}{% endfor %}{% endmacro %}
{% macro isolated(record) %}
<table>{{ rows(record | without("containers")) }}</table>
{% for container in record.containers %}
<h3><code>{{ container.command }}</code></h3>
<table>{{ rows(container | without("command")) }}</table>
{% endfor %}{% endmacro %}
<h1>How it was run</h1>
<p>The tables and figures are in <a href="report.html">the report</a>.</p>
<h2>What computed the results</h2>
{% if machines %}<table>
<tr><th>Processor or GPU</th><th>Commit</th><th>Stages</th><th>Seconds</th></tr>
{% for (hardware, commit), runs in machines.items() %}
<tr><td>{{ hardware }}</td><td>{{ commit }}</td><td>{{ runs | length }}</td>
<td>{{ "%.0f" | format(runs | sum("wall_seconds")) }}</td></tr>
{% endfor %}</table>
{% else %}<p>None is recorded. <code>repro run</code> makes them.</p>
{% endif %}
<h2>The last complete run in a container</h2>
{% if container %}{{ isolated(container) }}
{% else %}<p>None is recorded. <code>repro run --engine docker</code> makes one.</p>
{% endif %}
<h2>The last verification</h2>
{% if verified %}<p>{{ verified.outputs }} outputs of {{ verified.stages | length }} stages were made again in a clean
checkout, {{ "in a container" if verified.container else "on the machine itself" }}, and compared with
<code>dvc.lock</code>: {{ verified.different | length }} not the same.</p>
<table>{{ rows(verified | without("different", "container", "outputs", "stages")) }}
{% for path, found in verified.different.items() %}<tr><th>{{ path }}</th>
<td>stage {{ found.stage }}, expected {{ found.expected | shown }}, found {{ found.found | shown }}</td></tr>
{% endfor %}</table>
{% if verified.container %}{{ isolated(verified.container) }}{% endif %}
{% else %}<p>None is recorded. <code>repro verify</code> makes one.</p>
{% endif %}
{% if jobs %}<h2>Jobs of runs with <code>--on</code></h2>
<table>{% for job in jobs %}<tr><th><a href="../{{ job.submission.log | urlencode }}">{{ job.name }}</a></th>
<td>{{ job.state }}</td><td>{{ job.ran.node if job.ran else "" }}</td>
<td>{{ job.ran.hardware if job.ran else "" }}</td><td>{{ "%.0f s" | format(job.seconds) if job.ran else "" }}</td>
<td>attempt {{ job.submission.attempt }}</td></tr>
{% endfor %}</table>{% endif %}
</body>
</html>
"""


def write_run_page(workspace: Path) -> None:
    """Write the page of a workspace from the records that it has; raises `ValueError` if one is not as expected."""
    def record(kind: type[Record], path: Path, command: str) -> Any:
        mend = f"Delete the file; `{command}` writes it anew"
        return kind.read(workspace / path, mend).to_json() if (workspace / path).is_file() else None

    pages = html_environment()
    pages.filters |= {"shown": _shown, "without": lambda facts, *keys: {
        key: value for key, value in facts.items() if key not in keys}}
    machines: dict[tuple[str, str], list[Run]] = {}
    for run in read_runs(workspace / "runs.jsonl"):
        commit = f"{run.commit or 'unknown'}{', with changes' if run.dirty else ''}"
        machines.setdefault((run.computed_on, commit), []).append(run)
    page = pages.from_string(PAGE_TEMPLATE).render(
        machines=machines,
        container=record(ContainerRun, CONTAINER, "repro run --engine docker"),
        verified=record(Verification, VERIFICATION, "repro verify"), jobs=[*read_jobs(workspace)])
    write_bytes(workspace / PAGE, page.encode())


def _shown(value: Any) -> str:
    match value:
        case None | []:
            return "none"
        case bool():
            return "yes" if value else "no"
        case list():
            return ", ".join(map(str, value))
    return str(value)
