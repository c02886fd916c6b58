"""The page: the notebook executed and turned into one self-contained HTML file by nbconvert.

The kernel is this very Python: no kernel has to be installed and none of the user's is taken. It is spoken to through
files in a private folder, so the report can be made where there is no network at all and no writable home.
"""

import os
import re
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import nbformat
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import KernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbconvert import HTMLExporter

from repblend.report.notebook import FIGURES_VARIABLE, ROOT_VARIABLE

SECONDS_PER_CELL = 120
TEMPLATE = Path(__file__).with_name("template")
PRIVATE_FOLDERS = ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "MPLCONFIGDIR",
                   "XDG_CACHE_HOME")
"""Where the kernel would otherwise read settings from the user's home and write to it."""


class _ThisPython(KernelSpecManager):
    """Knows one kernel, whatever its name: the Python that makes the report."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}",
                   "--HistoryManager.enabled=False"]
        return KernelSpec(argv=command, display_name=kernel_name, language="python")


def render(notebook: Path, root: Path, figures: Path, words: Mapping[str, str]) -> str:
    """Execute the notebook on a workspace's metrics and return the page.

    Args:
        notebook: its source, without outputs. The file is left as it is.
        root: the workspace.
        figures: the folder with the figures as SVG.
        words: passages of its text, as regular expressions -> what to say in their place.

    Raises:
        ValueError: the notebook is missing or damaged, or a cell of it failed; the message is the cell's own.
    """
    source = reworded(_read(notebook), words)
    with tempfile.TemporaryDirectory(prefix="repblend-report-") as private:
        _execute(source, Path(private), root, figures)
    exporter = HTMLExporter(template_name=TEMPLATE.name, extra_template_basedirs=[str(TEMPLATE.parent)],
                            exclude_anchor_links=True)
    page, _ = exporter.from_notebook_node(source)
    return page


def reworded(source: nbformat.NotebookNode, words: Mapping[str, str]) -> nbformat.NotebookNode:
    """Return a notebook with other words; every passage has to be in one of its text cells."""
    texts = [cell for cell in source.cells if cell.cell_type == "markdown"]
    for passage, instead in words.items():
        cell = next(cell for cell in texts if re.search(passage, cell.source))
        cell.source = re.sub(passage, lambda found, instead=instead: instead, cell.source)
    return source


def _read(notebook: Path) -> nbformat.NotebookNode:
    try:
        return nbformat.read(notebook, as_version=4)
    except FileNotFoundError as error:
        raise ValueError(f"{notebook}: no such file. Restore it with `git restore {notebook}`") from error
    except (nbformat.reader.NotJSONError, nbformat.ValidationError) as error:
        raise ValueError(f"{notebook}: expected a Jupyter notebook. "
                         f"Restore it with `git restore {notebook}`") from error


def _execute(source: nbformat.NotebookNode, private: Path, root: Path, figures: Path) -> None:
    """Run all cells of `source` and put their outputs into it."""
    manager = KernelManager(kernel_spec_manager=_ThisPython(), transport="ipc",
                            connection_file=str(private / "kernel.json"))
    client = NotebookClient(source, km=manager, timeout=SECONDS_PER_CELL, record_timing=False,
                            resources={"metadata": {"path": str(root)}})
    try:
        client.execute(env=_environment(private, root, figures), cleanup_kc=True)  # or the kernel would outlive this
    except CellExecutionError as error:
        raise ValueError(f"the notebook could not be executed: {error}") from error


def _environment(private: Path, root: Path, figures: Path) -> dict[str, str]:
    return {**os.environ, **{name: str(private / name.lower()) for name in PRIVATE_FOLDERS},
            ROOT_VARIABLE: str(root), FIGURES_VARIABLE: str(figures),
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
