"""Making a report, whatever it is about: tables, figures, and the page, which nbconvert makes of an executed notebook.

The notebook is executed in this very process: no kernel is started, nothing of the user's is read, and no folder is
needed besides the workspace's own.
"""

import ast
import base64
import hashlib
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import nbformat
from IPython.display import HTML
from markupsafe import Markup
from nbconvert import HTMLExporter
from nbformat.v4 import new_output

from repblend.progress import TerminalHandler, progress
from repblend.records.base import Traced
from repblend.report import screen
from repblend.report.markup import TEMPLATE, part, source_html, table_html
from repblend.report.table import Table, write_table
from repblend.report.verdicts import Claim, claims_table
from repblend.runtime.context import repository_of
from repblend.runtime.locked import left_out
from repblend.runtime.processes import exit_code, stop_with_the_runner
from repblend.store import atomic_path, write_bytes


class Traceable(Protocol):
    """The records of a workspace."""

    @property
    def root(self) -> Path:
        """Return the workspace."""

    @property
    def unfit(self) -> Mapping[Path, str]:
        """Records that are here and not shown, each with the reason."""

    def sources(self) -> Mapping[str, Traced]:
        """Return every record by its path in the workspace."""


Recorded = TypeVar("Recorded", bound=Traceable)
Tables = Mapping[str, Callable[[Recorded], Table]]
Figures = Mapping[str, Callable[[Recorded, Path], None]]
"""Name -> what draws the figure into a folder."""


@dataclass(frozen=True)
class ReportSection:
    """A heading of the notebook, with its tables and figures, that not every workspace has cells or records for."""

    heading: str
    """As in the notebook, without the number signs."""
    tables: tuple[str, ...]
    figures: tuple[str, ...]
    stages: tuple[str, ...] = ()
    """Whose records it shows, names of folders in `records`; without any of them there is nothing to show."""
    has_cells: Callable[[Any], bool] = lambda records: True
    """From the records to whether the workspace's grid has cells that the section shows, run or not."""


@dataclass(frozen=True)
class FirstScreen(Generic[Recorded]):
    """What the first screen of a report shows, made of records; `screen` has what its parts are."""

    claims: Callable[[Recorded], Sequence[Claim]]
    pictured: Callable[[Recorded], Sequence[screen.Picture]]
    picture_words: Sequence[str]
    """What the image before, the one after and the difference are called."""
    figure: str
    """Whose files hold the same pictures."""
    plot: Callable[[Recorded], screen.Plot]


class LeftOut(NamedTuple):
    """Sections that a report leaves out."""

    no_cells: Sequence[ReportSection]
    no_records: Sequence[ReportSection]


@dataclass(frozen=True)
class ReportSpec(Generic[Recorded]):
    """What a report consists of."""

    read: Callable[[Path], Recorded]
    """From a workspace to its records."""
    tables: Tables
    figures: Figures
    notebook: Path
    """The page's source, in the clone."""
    sections: Sequence[ReportSection] = ()
    """What is left out where the workspace has no cells or no records for it; all else is always there."""

    def left_out(self, records: Recorded) -> LeftOut:
        """Return the sections that a workspace has no cells for, and those of whose stages none was run."""
        run = {file.split("/")[1] for file in records.sources()}
        no_cells = [section for section in self.sections if not section.has_cells(records)]
        return LeftOut(no_cells, [section for section in self.sections if section not in no_cells and section.stages
                                  and run.isdisjoint(section.stages)])

    def make(self, root: Path) -> None:
        """Write all tables, all figures and the page of the workspace at `root` into its folder `paper`.

        Raises:
            ValueError: `params.yaml` or a record is not as expected.
        """
        records, paper = self.read(root), root / "paper"
        left = self.left_out(records)
        sections = [*left.no_cells, *left.no_records]
        unwanted = {name for section in sections for name in (*section.tables, *section.figures)}
        with atomic_path(paper / "tables") as folder:
            folder.mkdir()
            for name, build in self.tables.items():
                if name not in unwanted:
                    write_table(folder, build(records))
        with atomic_path(paper / "figures") as folder:
            folder.mkdir()
            wanted = [draw for name, draw in self.figures.items() if name not in unwanted]
            for draw in progress(wanted, "draw figures", "figure"):
                draw(records, folder)
        page = render(repository_of(root) / self.notebook, Shown(records, paper / "figures", left),
                      {section.heading for section in sections})
        write_bytes(paper / "report.html", page.encode())

    def main(self) -> int:
        """Make the report of the current folder; return the exit code."""
        stop_with_the_runner()
        logging.basicConfig(format="%(message)s", handlers=[TerminalHandler()])
        logging.getLogger("repblend").setLevel(logging.INFO)
        return exit_code("report", lambda: self.make(Path.cwd()))


# What a report's notebook calls.


class Shown(NamedTuple):
    """What a notebook is about while a report is made of it."""

    records: Any
    figures: Path
    """Folder with the figures as SVG."""
    left_out: LeftOut


_shown: ContextVar[Shown | None] = ContextVar("shown", default=None)


@dataclass(frozen=True)
class Notebook(Generic[Recorded]):
    """A report's parts as HTML: of the report that is made or, in Jupyter, of the workspace around the notebook."""

    read: Callable[[Path], Recorded]
    tables: Tables
    first: FirstScreen[Recorded]

    def records(self) -> Recorded:
        """Return the workspace's records."""
        shown = _shown.get()
        return shown.records if shown else self.read(Path("..").resolve())  # readers keep what they read, by folder

    @property
    def profile(self) -> str | None:
        """The name of the workspace's profile; None for the default one, in the clone's root."""
        root = self.records().root.resolve()
        return None if repository_of(root) == root else root.name

    def verdicts(self) -> HTML:
        """Show which claims hold here, and, folded, every comparison behind them."""
        claims = self.first.claims(self.records())
        return HTML(screen.verdicts_html(claims, part("folded", summary="Every comparison, with deviations",
                                                      content=table_html(claims_table(claims)))))

    def pictures(self) -> HTML:
        """Show images before and after."""
        return HTML(screen.pictures_html(self.first.pictured(self.records()), self.first.picture_words,
                                         self.first.figure))

    def plot(self) -> HTML:
        """Show what sets reach by budget."""
        return HTML(screen.plot_html(self.first.plot(self.records())))

    def origin(self) -> HTML:
        """Show what computed the records, and how to check them."""
        records = self.records()
        return HTML(screen.origin_html(records.root, records.sources(), self.profile))

    def left_out(self) -> HTML:
        """Show which sections and which records the report leaves out."""
        shown = _shown.get()
        no_cells, no_records = shown.left_out if shown else LeftOut((), ())
        return HTML(part("left_out", "words.html.j2", no_cells=[section.heading for section in no_cells],
                         no_records=[section.heading for section in no_records]) + part(
                             "note", words=left_out(self.records().unfit)) + self.kinds_of_hardware())

    def kinds_of_hardware(self) -> Markup:
        """Return which records were made on which hardware, where several kinds are mixed; else nothing."""
        made: dict[str, list[str]] = {}
        for file, record in self.records().sources().items():
            made.setdefault(record.provenance.device, []).append(str(file))
        if len(made) < 2:
            return Markup("")
        return part("note", words="Results of several kinds of hardware, which differ in last bits: " + "; ".join(
            f"{device}: {', '.join(sorted(files))}" for device, files in sorted(made.items())) + ".")

    def table(self, name: str) -> HTML:
        """Show one table."""
        return HTML(table_html(self.tables[name](self.records())))

    def folded(self, name: str, summary: str) -> HTML:
        """Show one table that opens on a click."""
        return HTML(part("folded", summary=summary, content=table_html(self.tables[name](self.records()))))

    def tabs(self, names: Mapping[str, str]) -> HTML:
        """Show tables of which one is seen at a time, by the titles to choose them by."""
        tables = {title: table_html(self.tables[name](self.records())) for title, name in names.items()}
        return HTML(part("tabs", name="-".join(names.values()), panels=tables))

    def figure(self, name: str, caption: str) -> HTML:
        """Show one figure that was drawn before, embedded in the page."""
        shown = _shown.get()
        path = (shown.figures if shown else Path("figures")) / f"{name}.svg"
        if not path.is_file():  # in Jupyter, a section that the page leaves out
            return HTML(part("note", words=f"{path.name}: not in this report, or the report was not made yet"))
        svg = path.read_bytes()
        data = base64.b64encode(svg).decode("ascii")  # an image: names inside two figures cannot meet
        return HTML(part("figure", name=name, data=data, caption=caption, pictures=b"<image " in svg))

    def sources(self) -> HTML:
        """Show, folded, where every record comes from."""
        sources = [source_html(file, record.provenance) for file, record in self.records().sources().items()]
        return HTML(part("folded", summary=f"All {len(sources)} records", content=Markup("").join(sources))
                    if sources else part("note", words="No stage was run."))


# From the notebook to the page.


def render(notebook: Path, shown: Shown, left_out: Collection[str] = ()) -> str:
    """Execute the notebook and return the page.

    Args:
        notebook: its source, without outputs. The file is left as it is.
        left_out: headings whose sections the page does not have.

    Raises:
        ValueError: the notebook is missing or damaged, or a cell of it failed; the message is the cell's own.
    """
    try:
        source = nbformat.read(notebook, as_version=4)
    except FileNotFoundError as error:
        raise ValueError(f"{notebook}: no such file. Restore it with `git restore {notebook}`") from error
    except (nbformat.reader.NotJSONError, nbformat.ValidationError) as error:
        raise ValueError(f"{notebook}: expected a Jupyter notebook. "
                         f"Restore it with `git restore {notebook}`") from error
    source.cells = without_sections(source.cells, left_out)
    token = _shown.set(shown)
    try:
        names: dict[str, Any] = {}
        for cell in source.cells:
            if cell.cell_type == "code":
                cell.outputs = _outputs(cell.source, names, notebook)
    finally:
        _shown.reset(token)
    script = (TEMPLATE / "report.js").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    source.metadata |= {"script": script, "script_source": f"'sha256-{digest}'"}
    exporter = HTMLExporter(template_name=TEMPLATE.name, extra_template_basedirs=[str(TEMPLATE.parent)],
                            exclude_anchor_links=True)
    page, _ = exporter.from_notebook_node(source)
    return page


def _outputs(code: str, names: dict[str, Any], notebook: Path) -> list[Any]:
    """Run one cell, and return what its last line shows."""
    *lines, last = ast.parse(code).body
    if not isinstance(last, ast.Expr):
        lines.append(last)
    try:
        exec(compile(ast.Module(lines, []), str(notebook), "exec"), names)
        value = eval(compile(ast.Expression(last.value), str(notebook), "eval"), names) if isinstance(
            last, ast.Expr) else None
    except (AttributeError, NameError, KeyError, TypeError) as error:
        raise ValueError(f"{notebook}: the notebook could not be executed at {code!r}: {error!r}") from error
    return [] if value is None else [new_output("execute_result", {
        "text/html": value.data} if isinstance(value, HTML) else {"text/plain": repr(value)})]


def without_sections(cells: Sequence[Any], left_out: Collection[str]) -> list[Any]:
    """Return a notebook's cells without those from a heading that is left out to the next of its level or above."""
    kept, level = [], 0
    for cell in cells:
        signs, _, heading = cell.source.partition("\n")[0].partition(" ")
        is_heading = cell.cell_type == "markdown" and signs and not signs.strip("#")
        if is_heading and (not level or len(signs) <= level):
            level = len(signs) if heading in left_out else 0
        if not level:
            kept.append(cell)
    return kept
