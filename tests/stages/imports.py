"""Which of the project's modules a module imports, directly or through others, read from the source."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "src"


def path_of(module: str) -> Path | None:
    """The source file of one of the project's modules."""
    base = SOURCES / Path(*module.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


def imported_by(path: Path) -> set[str]:
    """Names of the project's modules that a source file imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in names if name.split(".")[0] == "repblend"}


def sources_of(module: str) -> set[Path]:
    """Source files that running a module needs, with the packages they lie in."""
    found: set[Path] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        path = path_of(name)
        if path and path not in found:
            found.add(path)
            waiting += [*imported_by(path), *_packages(name)]
    return found


def _packages(module: str) -> list[str]:
    parts = module.split(".")
    return [".".join(parts[:length]) for length in range(1, len(parts))]
