"""What of the sources the outputs of a stage can depend on: code, and not what is written about it.

A document, a docstring, a comment on lines of its own or an empty line changes no number, so none of them makes a stage
run again. Everything else counts, also a comment behind code. Where a string of several lines is no docstring, comments
and empty lines of its file count as well: a line of such a string may look like one.
"""

import ast
import hashlib
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path

from repblend.store import fingerprint, sha256

MANY_LINES = ('"""', "'''")


def content_sha256(path: Path, hash_of: Callable[[Path], str] = sha256) -> str:
    """Return the hash of a file, or of the names and the hashes of a folder's files, but for documents.

    Args:
        hash_of: from a file to its SHA-256.
    """
    if path.is_file():
        return hash_of(path)
    return fingerprint({file.relative_to(path).as_posix(): hash_of(file) for file in sorted(path.rglob("*"))
                        if file.is_file() and "__pycache__" not in file.parts and file.suffix != ".md"})


def code_sha256(path: Path) -> str:
    """Return `content_sha256` with the code alone of files of Python, as `code_of` has it; raises `ValueError` if one
    is none.
    """
    return content_sha256(path, _sha256_of_code)


def _sha256_of_code(path: Path) -> str:
    if path.suffix != ".py":
        return sha256(path)
    try:
        return _sha256_of_text(path.read_text("utf-8"))
    except (SyntaxError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: this is no Python ({error}). Bring the file back with `git restore {path}`, or mend "
                         "it") from error


@cache
def _sha256_of_text(text: str) -> str:
    return hashlib.sha256(code_of(text).encode()).hexdigest()


def code_of(text: str) -> str:
    """Return the lines of a module without docstrings (also those behind an assignment), comments on lines of their own
    and empty lines; raises `SyntaxError` if the text is no Python.
    """
    told = {line for first, last in _docstrings(ast.parse(text).body) for line in range(first, last + 1)}
    lines = [line for number, line in enumerate(text.splitlines(), 1) if number not in told]
    if any(quotes in line for line in lines for quotes in MANY_LINES):
        return "\n".join(lines)
    kept, goes_on = [], False  # a string that a backslash continues may go on with what looks like a comment
    for line in lines:
        if goes_on or (line.strip() and not line.lstrip().startswith("#")):
            kept.append(line)
        goes_on = line.endswith("\\")
    return "\n".join(kept)


def _docstrings(body: Iterable[ast.stmt]) -> Iterator[tuple[int, int]]:
    """Yield the first and last line of every string that stands as a statement and shares no line with another."""
    statements = list(body)
    for place, statement in enumerate(statements):
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant) and isinstance(
                statement.value.value, str):
            last = statement.end_lineno or statement.lineno
            beside = [other.lineno for other in statements[place + 1:place + 2]] + [
                other.end_lineno for other in statements[max(place - 1, 0):place]]
            if statement.lineno not in beside and last not in beside:
                yield statement.lineno, last
        for name in ("body", "orelse", "finalbody"):
            yield from _docstrings(getattr(statement, name, ()))
        for part in (*getattr(statement, "handlers", ()), *getattr(statement, "cases", ())):
            yield from _docstrings(part.body)
