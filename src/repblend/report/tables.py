"""Tables: results by protocol, and where each number comes from; as CSV, Markdown, LaTeX, HTML and plain text."""

import csv
import html
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from repblend.report.metrics import PROTOCOLS, RECALLS, Metrics
from repblend.report.titles import RECALL_TITLES, title
from repblend.store import JSON, write_bytes

NOT_RUN = "not run"


@dataclass(frozen=True)
class Table:
    """A table of text cells."""

    name: str
    """File name without ending."""
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def to_csv(self) -> str:
        buffer = io.StringIO()
        csv.writer(buffer, lineterminator="\n").writerows([self.columns, *self.rows])
        return buffer.getvalue()

    def to_markdown(self) -> str:
        lines = [self.columns, tuple("---" for _ in self.columns), *self.rows]
        return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"

    def to_latex(self) -> str:
        def line(cells: Sequence[str]) -> str:
            return " & ".join(_latex(cell) for cell in cells) + r" \\"

        return "\n".join([r"\begin{tabular}{" + "l" * len(self.columns) + "}", r"\hline", line(self.columns), r"\hline",
                          *map(line, self.rows), r"\hline", r"\end{tabular}", ""])

    def to_html(self) -> str:
        head = "".join(f"<th>{html.escape(column)}</th>" for column in self.columns)
        body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>\n"
                       for row in self.rows)
        return (f"<table><caption>{html.escape(self.caption)}</caption>\n<thead><tr>{head}</tr></thead>\n"
                f"<tbody>\n{body}</tbody></table>")

    def to_text(self) -> str:
        widths = [max(len(line[column]) for line in (self.columns, *self.rows)) for column in range(len(self.columns))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
                 for line in (self.columns, *self.rows)]
        return "\n".join([self.caption, *lines])


FORMATS: dict[str, Callable[[Table], str]] = {"csv": Table.to_csv, "md": Table.to_markdown, "tex": Table.to_latex}
"""File ending -> how a table is written."""


def write_table(folder: Path, table: Table) -> None:
    """Write a table in every format."""
    for ending, write in FORMATS.items():
        write_bytes(folder / f"{table.name}.{ending}", write(table).encode())


def _latex(cell: str) -> str:
    for character in "&%_#$":
        cell = cell.replace(character, "\\" + character)
    return cell.replace("±", r"$\pm$")


def results_table(metrics: Metrics, protocol: str) -> Table:
    """Return the results of every cell of the grid by one protocol, with both bounds.

    Args:
        protocol: `held-out` or `faithful`.
    """
    captions = {
        "held-out": "Recall in percent on the test split, the students' epoch chosen on validation",
        "faithful": "Recall in percent on the test split, the best of the scored epochs on that same split, as published",
    }
    rows = tuple(_row(*line) for line in _result_lines(metrics, protocol))
    return Table(f"results-{protocol}", f"{captions[protocol]} (mean ± standard deviation over the evaluation seeds)",
                 ("Pairs", "Method", *(RECALL_TITLES[name] for name in RECALLS)), rows)


def _result_lines(metrics: Metrics, protocol: str) -> Iterator[tuple[str, str, JSON | None, JSON | None]]:
    """Pairs, method, mean and standard deviation of each row; None where there is none."""
    for budget in metrics.grid.budgets:
        for method in (*metrics.grid.coresets, *reversed(metrics.grid.distilled)):
            yield str(budget), method, *_statistics(metrics.evaluation(f"{method}-{budget}"), protocol)
    full, chance = metrics.evaluation("full-data"), metrics.chance()
    yield str(full["num_pairs"]) if full else "all", "full-data", *_statistics(full, protocol)
    yield "", "chance", chance["expected"] if chance else None, None


def _statistics(evaluation: JSON | None, protocol: str) -> tuple[JSON | None, JSON | None]:
    found = evaluation["protocols"][protocol] if evaluation else {"mean": None, "std": None}
    return found["mean"], found["std"]


def _row(pairs: str, method: str, mean: JSON | None, std: JSON | None) -> tuple[str, ...]:
    return (pairs, title(method), *(_number(name, mean, std) for name in RECALLS))


def _number(name: str, mean: JSON | None, std: JSON | None) -> str:
    if mean is None:
        return NOT_RUN
    return f"{mean[name]:.1f}" if std is None else f"{mean[name]:.1f} ± {std[name]:.1f}"


def storage_table(metrics: Metrics) -> Table:
    """Return what each set stores: pairs, and bytes with its labels and learning rates."""
    rows = []
    for budget in metrics.grid.budgets:
        for method in (*metrics.grid.coresets, *reversed(metrics.grid.distilled)):
            found = metrics.evaluation(f"{method}-{budget}")
            cells = (str(found["num_pairs"]), f"{found['stored_bytes']:,}") if found else (NOT_RUN, NOT_RUN)
            rows.append((str(budget), title(method), *cells))
    return Table("storage", "What each set stores. The parameters of a learned similarity count as one pair",
                 ("Budget", "Method", "Pairs stored", "Bytes stored"), tuple(rows))


def origins_table(metrics: Metrics) -> Table:
    """Return, for every row of the results, the file that holds its numbers and the command that made it."""
    names = [f"{method}-{budget}" for budget in metrics.grid.budgets
             for method in (*metrics.grid.coresets, *reversed(metrics.grid.distilled))]
    found = [(name, metrics.evaluation(name)) for name in (*names, "full-data")] + [("chance", metrics.chance())]
    rows = tuple((name, str(metrics.path("evaluate", name).relative_to(metrics.root)),
                  *((content["provenance"]["command"], content["provenance"]["run"]) if content
                    else (NOT_RUN, NOT_RUN))) for name, content in found)
    return Table("origins", "Where each number comes from. Parameters, library versions and input hashes are in the "
                 "metrics file under 'provenance'; commit, machine, time and memory in the run record",
                 ("Row", "Metrics file", "Command", "Run record"), rows)


def all_tables(metrics: Metrics) -> list[Table]:
    """Return every table of the report."""
    return [*(results_table(metrics, protocol) for protocol in PROTOCOLS), storage_table(metrics),
            origins_table(metrics)]


def results_text(root: Path) -> str:
    """Return both results tables of a workspace as plain text."""
    metrics = Metrics.of(root)
    return "\n\n".join(results_table(metrics, protocol).to_text() for protocol in PROTOCOLS)
