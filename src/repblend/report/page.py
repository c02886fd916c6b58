"""The page: the notebook executed and turned into one self-contained HTML file by nbconvert."""

import html
import os
import sys
import tempfile
from pathlib import Path

import nbformat
from nbconvert import HTMLExporter
from nbconvert.preprocessors import ExecutePreprocessor
from traitlets.config import Config

from repblend.report.show import FIGURES_VARIABLE, ROOT_VARIABLE

TITLE = "RepBlend, reproduced"
STYLE = """
body { font: 16px/1.5 "DejaVu Sans", Verdana, sans-serif; color: #222; margin: 2rem auto; max-width: 62rem;
       padding: 0 1rem; }
h1, h2 { line-height: 1.2; } h2 { margin-top: 2.5rem; border-bottom: 1px solid #ccc; }
a.anchor-link { display: none; }
table { border-collapse: collapse; font-size: 0.8rem; margin: 1rem 0; }
caption { caption-side: top; text-align: left; font-weight: bold; padding-bottom: 0.4rem; }
th, td { padding: 0.25rem 0.6rem; border-bottom: 1px solid #ddd; text-align: left; white-space: nowrap; }
thead th { border-bottom: 2px solid #444; }
figure { margin: 1rem 0; } figure img { max-width: 100%; } figcaption { font-size: 0.85rem; color: #555; }
pre { font-size: 0.75rem; overflow-x: auto; background: #f6f6f6; padding: 0.6rem; }
dt { font-weight: bold; } dd { margin: 0 0 0.5rem 1rem; }
"""
SECONDS_PER_CELL = 120
NO_NETWORK = Config({"KernelManager": {"transport": "ipc"}})
"""The kernel is spoken to through files, so that the report can be made where there is no network at all."""


def render(notebook: Path, root: Path, figures: Path) -> str:
    """Execute the notebook on a workspace's metrics and return the page.

    Args:
        notebook: its source, without outputs.
        root: the workspace.
        figures: the folder with the figures as SVG.

    Raises:
        ValueError: a cell of the notebook failed; the message is the cell's own.
    """
    source = nbformat.read(notebook, as_version=4)
    with tempfile.TemporaryDirectory(prefix="repblend-report-") as private:
        _execute(source, Path(private), root, figures)
    exporter = HTMLExporter(template_name="basic", exclude_input=True, exclude_input_prompt=True,
                            exclude_output_prompt=True)
    body, _ = exporter.from_notebook_node(source)
    return (f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{html.escape(TITLE)}</title>\n'
            f"<style>{STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n")


def _execute(source: nbformat.NotebookNode, private: Path, root: Path, figures: Path) -> None:
    """Run all cells in a kernel of this very Python; nothing is read from or written to the user's home."""
    variables = {ROOT_VARIABLE: str(root), FIGURES_VARIABLE: str(figures), "IPYTHONDIR": str(private / "ipython"),
                 "JUPYTER_DATA_DIR": str(private / "data"), "JUPYTER_CONFIG_DIR": str(private / "config"),
                 "JUPYTER_RUNTIME_DIR": str(private / "runtime"), "MPLCONFIGDIR": str(private / "matplotlib"),
                 "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        ExecutePreprocessor(timeout=SECONDS_PER_CELL, kernel_name="python3", record_timing=False,
                            config=NO_NETWORK).preprocess(source, {"metadata": {"path": str(root)}})
    except Exception as error:  # nbclient raises several kinds; each message holds the cell and its traceback
        raise ValueError(f"the notebook could not be executed: {error}") from error
    finally:
        os.environ.clear()
        os.environ.update(before)
