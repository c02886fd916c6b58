"""The whole report, as the pipeline makes it: self-contained, traceable, and the same bytes wherever it is made."""

import base64
import hashlib
import json
import re
import shutil
import stat
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import numpy as np
import pytest

from repblend.report.figures import centred_mean
from repblend.report.page import LeftOut, Shown, render
from repblend.store import sha256
from tests.report.conftest import make_report
from tests.report.synthetic import BUDGETS, ROOT, TRAINED, write_wider, write_workspace

FIGURES = ("mean-recall", "encoder-pairs", "learning-curves", "specimens", "similarity", "collapse", "ablation",
           "sensitivity", "noise", "spheres", "published-similarity", "carried", "blending")
TABLES = ("encoder-pairs", "larger-encoders", "results-held-out", "results-faithful", "inventory", "seeds", "claims",
          "storage", "origins",
          "published-flickr30k", "published-coco", "published-larger-encoders", "published-cross-architecture",
          "published-zero-shot",
          "cross-architecture-held-out", "cross-architecture-faithful", "zero-shot", "efficiency", "collapse-measures",
          "ablation", "sensitivity", "noise", "sets", "carried", "blending")


IN_HTML = ("mean-recall", "specimens")
"""Figures that the page has in a form of its own."""


class Page(HTMLParser):
    """Collects what a browser would load, where links lead, and what is named."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.tags: set[str] = set()
        self.pointed_at: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attributes:
            if name in ("src", "srcset", "data", "poster") or (name == "href" and tag != "a"):
                self.loaded.append(value or "")
            elif name == "href":
                self.links.append(value or "")
            elif name == "id":
                self.ids.append(value or "")
            elif name == "title" and tag == "td":
                self.pointed_at.append(value or "")


def part_of(html: str, table: str) -> str:
    """The HTML of one table."""
    return html.split(f'id="table-{table}"')[1].split("</table>")[0]


def outputs(root: Path) -> dict[str, str]:
    """SHA-256 of every file that the report wrote."""
    paths = [root / "paper" / "report.html", *(root / "paper" / "tables").iterdir(),
             *(root / "paper" / "figures").iterdir()]
    return {str(path.relative_to(root)): sha256(path) for path in paths}


@pytest.fixture(scope="session")
def html(reported: Path) -> str:
    return (reported / "paper" / "report.html").read_text("utf-8")


def test_every_table_and_figure_is_there_in_every_format(reported: Path) -> None:
    tables = {f"paper/tables/{name}.{kind}" for name in TABLES for kind in ("csv", "md", "tex")}
    figures = {f"paper/figures/{name}.{kind}" for name in FIGURES for kind in ("svg", "pdf", "png")}
    assert set(outputs(reported)) == {"paper/report.html"} | tables | figures


def test_the_page_loads_nothing_and_runs_its_own_script_alone(html: str) -> None:
    page = Page(html)
    assert page.loaded and all(address.startswith(("data:image/svg+xml;base64,", "data:image/png;base64,"))
                               for address in page.loaded)
    assert not page.tags & {"link", "iframe", "object", "embed", "base"}
    assert not re.search(r"url\(|@import", html)
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert "default-src 'none'" in html and f"script-src 'sha256-{digest}'\"" in html
    assert html.count("<script") == 1 and not re.search(r"<[a-z][^>]*\son[a-z]+=", html)


def test_embedded_figures_are_the_written_ones_and_load_nothing_either(reported: Path, html: str) -> None:
    figures = [base64.b64decode(address.split(",", 1)[1]) for address in Page(html).loaded if "svg+xml" in address]
    written = {name: (reported / "paper" / "figures" / f"{name}.svg").read_bytes() for name in FIGURES
               if name not in IN_HTML}
    assert sorted(figures) == sorted(written.values())
    for name, figure in written.items():
        addresses = re.findall(rb'href="([^"]*)"', figure)
        assert all(address.startswith((b"#", b"data:image/png;base64,")) for address in addresses), name


def test_every_link_leads_somewhere_and_names_are_unique(reported: Path, html: str) -> None:
    page = Page(html)
    inside = {link.removeprefix("#") for link in page.links if link.startswith("#")}
    assert {"claims", "results", "definitions", "origin", "records-evaluate-repblend-100"} <= inside <= set(page.ids)
    outside = {link for link in page.links if not link.startswith("#")} - {"run.html"}  # `repro` writes that one
    assert "../records/evaluate/repblend-100/record.json" in outside
    assert all((reported / "paper" / link).is_file() for link in outside)
    assert len(page.ids) == len(set(page.ids))


def test_every_number_says_where_it_stands(reported: Path, html: str) -> None:
    pointed_at = Page(html).pointed_at
    rows = len(BUDGETS) * len(TRAINED) + 2
    for table, numbers in (("results-held-out", rows + 2), ("results-faithful", rows + 2), ("seeds", rows * 2 * 5)):
        assert len(Page(part_of(html, table)).pointed_at) == numbers * 7
    ours = [where for where in pointed_at if not where.startswith("paper/published/")]
    for where in ours:
        file, key = where.split(": ")
        value = json.loads((reported / file).read_text("utf-8"))
        for part in key.split("."):
            value = value[int(part)] if isinstance(value, list) else value[part]
        assert isinstance(value, int | float)


def test_the_page_shows_commands_definitions_and_no_code(html: str) -> None:
    assert "python -m repblend.stages evaluate repblend-100" in html
    assert "python -m repblend.stages prepare" in html
    assert "distance of &lt;the&gt; centroids." in html
    assert "show.table" not in html and "In [" not in html


@pytest.mark.parametrize("mark", [b"CreationDate", b"Producer", b"Software", b"<dc:date>", b"Matplotlib v"])
def test_no_figure_carries_a_date_or_a_version(reported: Path, mark: bytes) -> None:
    for path in (reported / "paper" / "figures").iterdir():
        assert mark not in path.read_bytes(), path.name


def test_other_hash_seed_zone_folder_home_and_file_order_give_the_same_bytes(reported: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / ".config" / "matplotlib").mkdir(parents=True)
    (home / ".config" / "matplotlib" / "matplotlibrc").write_text("font.size: 20\nlines.linewidth: 9\n")
    root = tmp_path / "elsewhere" / "deeper"
    write_wider(write_workspace(root))
    shutil.move(root / "records", root / "old")
    for path in sorted((root / "old").rglob("*.*"), reverse=True):  # written again, last first
        target = root / "records" / path.relative_to(root / "old")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    home.chmod(stat.S_IRUSR | stat.S_IXUSR)
    make_report(root, PYTHONHASHSEED="77", TZ="Asia/Tokyo", LC_ALL="C", HOME=str(home), LANG="de_DE.UTF-8")
    assert outputs(root) == outputs(reported)


def test_making_the_report_leaves_the_notebook_without_outputs(reported: Path) -> None:
    source = ROOT / "paper" / "report.ipynb"
    assert (reported / "paper" / "report.ipynb").read_bytes() == source.read_bytes()
    cells = nbformat.read(source, as_version=4).cells
    assert all(not cell.outputs and cell.execution_count is None for cell in cells if cell.cell_type == "code")


def test_a_report_of_nothing_is_made_and_names_what_it_leaves_out(tmp_path: Path) -> None:
    root = write_workspace(tmp_path / "workspace", budgets=())
    shutil.rmtree(root / "records")
    make_report(root)
    page = (root / "paper" / "report.html").read_text("utf-8")
    assert page.count("not run") > 100
    assert ">Modality collapse</h" not in page and "Modality collapse" in page.split("<b>Not in this report:</b>")[1]
    assert (root / "paper" / "figures" / "mean-recall.svg").stat().st_size > 1000


def test_a_failing_cell_is_an_error_that_shows_it(tmp_path: Path) -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("show_me_nothing", id="broken")])
    nbformat.write(notebook, tmp_path / "broken.ipynb")
    with pytest.raises(ValueError, match="show_me_nothing"):
        render(tmp_path / "broken.ipynb", Shown(None, tmp_path, LeftOut((), ())))


def test_a_damaged_notebook_says_how_to_restore_it(tmp_path: Path) -> None:
    (tmp_path / "damaged.ipynb").write_text("{")
    with pytest.raises(ValueError, match=r"git restore .*damaged\.ipynb"):
        render(tmp_path / "damaged.ipynb", Shown(None, tmp_path, LeftOut((), ())))


def test_the_centred_mean_is_the_mean_of_what_is_around() -> None:
    values = np.random.default_rng(0).normal(size=12)
    slow = [values[max(0, place - 2):place + 3].mean() for place in range(12)]
    np.testing.assert_allclose(centred_mean(values, 5), slow, rtol=1e-12)
