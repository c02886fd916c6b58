"""Which source code made an output: the workspace's own, and the same from the stage's start to its end.

DVC hashes sources and parameters only when a stage is over. Without a check here, code edited while a stage ran, or the
code of another clone that happens to be installed, would be recorded as what made the outputs.
"""

import sys
from collections.abc import Iterable
from pathlib import Path

import repblend
from repblend.clone import SOURCES, repository_of
from repblend.stages.context import StageContext
from repblend.store import sha256

PACKAGE = Path(repblend.__file__).resolve().parent


def source_hashes() -> dict[str, str]:
    """Return the path in the package and the SHA-256 of every source file of `repblend`."""
    return {str(path.relative_to(PACKAGE)): sha256(path) for path in sorted(PACKAGE.rglob("*.py"))}


def check_sources_are_the_workspaces(root: Path) -> None:
    """Check that a workspace whose clone has sources is run by these.

    Raises:
        ValueError: `repblend` was imported from elsewhere.
    """
    own = repository_of(root.resolve()) / SOURCES
    if own.is_dir() and own != PACKAGE:
        raise ValueError(f"{own}: this clone has sources of its own, but `repblend` was imported from {PACKAGE}. "
                         "Start the pipeline with `repro run`, or run `make install` here and use its .venv")


def refuse_edits(context: StageContext, sections: Iterable[str], before: dict[str, str]) -> None:
    """Check, when a stage is over, that nothing it was made of was edited while it ran.

    Args:
        sections: the parameter sections that the stage uses.
        before: `source_hashes()` from before the stage's module was imported.

    Raises:
        ValueError: a source file that this process imported, or a parameter of the stage, is not what it was.
    """
    sections, after = list(sections), source_hashes()
    edited = [name for name in _imported_sources() if before.get(name) != after.get(name)]
    now = context.reread()
    if (now.params.seed, now.parameters(sections)) != (context.params.seed, context.parameters(sections)):
        edited.append(context.paths.params.name)
    if edited:
        raise ValueError(f"{', '.join(edited)}: edited while stage {context.name} ran, so its outputs may belong to "
                         "neither version. They were not recorded; run the same command again")


def _imported_sources() -> list[str]:
    files = {Path(module.__file__).resolve() for name, module in sys.modules.items()
             if name.split(".")[0] == "repblend" and getattr(module, "__file__", None)}
    return sorted(str(file.relative_to(PACKAGE)) for file in files if file.is_relative_to(PACKAGE))
