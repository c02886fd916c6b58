"""Which of the project's modules a module imports, directly or through others, read from the source."""

import ast
from functools import cache
from pathlib import Path

from repblend.runtime.settings import Pipeline

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "src"


def path_of(module: str) -> Path | None:
    """The source file of one of the project's modules."""
    base = SOURCES / Path(*module.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


@cache
def imported_by(path: Path) -> set[str]:
    """Names of the project's modules that a source file imports, wherever in it, but for those of types alone."""
    names: set[str] = set()
    tree = ast.parse(path.read_text())
    tree.body = [node for node in tree.body if not (isinstance(node, ast.If) and ast.unparse(node.test)
                                                    == "TYPE_CHECKING")]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in names if name.split(".")[0] == "repblend"}


@cache
def sources_of(module: str) -> set[Path]:
    """Source files that running a module needs, with the packages they lie in."""
    found: set[Path] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        path = path_of(name)
        if path and path not in found:
            found.add(path)
            # The table of a pipeline only names cells: what it imports for that decides nothing.
            waiting += [*([] if path.name == "pipeline.py" else imported_by(path)), *_packages(name)]
    return found


def _packages(module: str) -> list[str]:
    parts = module.split(".")
    return [".".join(parts[:length]) for length in range(1, len(parts))]


PACKAGE = SOURCES / "repblend"
CANNOT_CHANGE_A_BYTE = {*(f"params/{path.name}" for path in (PACKAGE / "params").glob("*.py")), "sections.py",
                        "ufc/params.py", "stages/pipeline.py", "ufc/stages/pipeline.py", "progress.py"}
"""Modules whose code decides nothing: the values that parameters have are in the settings."""


def sources_of_stage(pipeline: Pipeline, stage: str) -> set[Path]:
    """Source files that running a stage needs."""
    module, function = pipeline.stages[stage].module, pipeline.stages[stage].function or stage.replace("-", "_")
    first = f"{module}.__main__" if module else f"{pipeline.package}.{function.partition('.')[0]}"
    return sources_of(first) | (set() if module else sources_of("repblend.runtime.harness"))


def undeclared(pipeline: Pipeline, stage: str) -> list[str]:
    """Sources that a stage imports and that its entry in the pipeline's table does not name."""
    declared = [PACKAGE / source for source in pipeline.stages[stage].sources]
    missing = [path.relative_to(PACKAGE).as_posix() for path in sources_of_stage(pipeline, stage)
               if not any(path == source or source in path.parents for source in declared)]
    return sorted(name for name in missing if name not in CANNOT_CHANGE_A_BYTE and not name.endswith("__init__.py"))


def unneeded(pipeline: Pipeline, stage: str) -> list[str]:
    """Sources that a stage's entry names and that it does not import."""
    needed = sources_of_stage(pipeline, stage)
    return [source for source in pipeline.stages[stage].sources
            if not any(path == PACKAGE / source or PACKAGE / source in path.parents for path in needed)]
