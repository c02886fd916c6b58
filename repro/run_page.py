"""`paper/run.html`: what the last run in a container was isolated by, and what the last verification found.

It stands beside the report and not in it: the report's bytes are those of its numbers, and come out the same inside
and outside of a container. Both records lie in `metrics/runs/`.
"""

import html
from collections.abc import Iterable, Mapping
from pathlib import Path
from string import Template
from typing import Any

from repblend.store import JSON, read_json, write_bytes

CONTAINER, VERIFICATION = Path("metrics/runs/container.json"), Path("metrics/runs/verify.json")
PAGE = Path("paper/run.html")

WHOLE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>RepBlend, reproduced: how it was run</title>
<style>
body { font: 16px/1.5 sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; margin: 0.5rem 0 1.5rem }
th, td { text-align: left; vertical-align: top; padding: 0.2rem 1.2rem 0.2rem 0; border-bottom: 1px solid #ddd }
td { overflow-wrap: anywhere }
</style>
</head>
<body>
<h1>How it was run</h1>
<p>The tables and figures are in <a href="report.html">the report</a>.</p>
<h2>The last complete run in a container</h2>
$container
<h2>The last verification</h2>
$verification
</body>
</html>
""")
NO_CONTAINER = "<p>None is recorded. <code>repro run --engine docker</code> makes one.</p>"
NO_VERIFICATION = "<p>None is recorded. <code>repro verify</code> makes one.</p>"


def write_run_page(root: Path) -> None:
    """Write the page of a workspace from the records that it has; raises `ValueError` if one is no JSON."""
    container, verification = (read_json(root / path) if (root / path).is_file() else None
                               for path in (CONTAINER, VERIFICATION))
    page = WHOLE.substitute(container=_container(container) if container else NO_CONTAINER,
                            verification=_verification(verification) if verification else NO_VERIFICATION)
    write_bytes(root / PAGE, page.encode())


def _container(record: JSON) -> str:
    facts = {key: value for key, value in record.items() if key != "containers"}
    parts = [_table(_flat(facts))]
    for container in record["containers"]:
        parts += [f"<h3><code>{html.escape(container['command'])}</code></h3>",
                  _table(_flat({key: value for key, value in container.items() if key != "command"}))]
    return "\n".join(parts)


def _verification(record: JSON) -> str:
    different, container = record["different"], record["container"]
    facts = {key: record[key] for key in record.keys() - {"different", "container", "outputs", "stages"}}
    facts |= {"stages": len(record["stages"]), "place": "in a container" if container else "on the machine itself"}
    parts = [f"<p>{record['outputs']} outputs were made again in a clean checkout and compared with "
             f"<code>dvc.lock</code>: {len(different)} not the same.</p>", _table(_flat(dict(sorted(facts.items()))))]
    if different:
        parts.append(_table((path, "stage {stage}, expected {expected}, found {found}".format_map(verdict))
                            for path, verdict in different.items()))
    if container:
        parts.append(_container(container))
    return "\n".join(parts)


def _flat(facts: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    for key, value in facts.items():
        name = f"{prefix}{key}".replace("_", " ")
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}: ")
        else:
            yield name, _shown(value)


def _shown(value: Any) -> str:
    match value:
        case None | []:
            return "none"
        case bool():
            return "yes" if value else "no"
        case list():
            return ", ".join(map(str, value))
    return str(value)


def _table(rows: Iterable[tuple[str, str]]) -> str:
    cells = (f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>" for name, value in rows)
    return "\n".join(["<table>", *cells, "</table>"])
