"""Rows of a JSON file one at a time: annotation files of hundreds of megabytes need not fit into memory."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

CHUNK = 1 << 20
LONGEST_ROW = 1 << 24
"""Characters. Whoever looks for the end of a longer row is looking at something else."""
BETWEEN_ROWS = " \t\r\n,"
AFTER_A_ROW = tuple(BETWEEN_ROWS + "]")
"""Nothing else, and not the end of what was read: there a number may go on."""


def stream_rows(path: Path) -> Iterator[Any]:
    """Yield the elements of the list that a JSON file holds.

    A missing comma between two rows is not noticed; everything else that is no JSON is.

    Raises:
        ValueError: the file is missing, not UTF-8, not JSON, or holds no list; the message names the file and the row
            that could not be read. Rows before it were yielded.
    """
    try:
        with path.open(encoding="utf-8") as file:
            yield from _rows(file, path)
    except FileNotFoundError as error:
        raise ValueError(f"{path}: no such file. Put it there, or correct its name") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected UTF-8 text, byte {error.start} of a part is not") from error


def _rows(file: TextIO, path: Path) -> Iterator[Any]:
    decoder, text, number = json.JSONDecoder(), file.read(CHUNK).lstrip(), 0
    if not text.startswith("["):
        raise ValueError(f"{path}: expected a list of rows, found {text[:20]!r}. Put the rows into one list")
    text = text[1:].lstrip(BETWEEN_ROWS)
    start = 0
    while text[start:start + 1] != "]":
        row, end = _decoded(decoder, text, start)
        if text[end:end + 1] in AFTER_A_ROW:
            yield row
            number, start = number + 1, _skip(text, end)
            continue
        more = file.read(CHUNK)
        if not more or len(text) - start > LONGEST_ROW:
            raise ValueError(f"{path}, row {number}: expected JSON, and a ']' after the last row. Correct the file")
        text, start = (text[start:] + more).lstrip(BETWEEN_ROWS), 0


def _decoded(decoder: json.JSONDecoder, text: str, start: int) -> tuple[Any, int]:
    """The row that begins at `start`, and where it ends: at the end of the text if it goes on."""
    try:
        return decoder.raw_decode(text, start)
    except json.JSONDecodeError:
        return None, len(text)


def _skip(text: str, start: int) -> int:
    while start < len(text) and text[start] in BETWEEN_ROWS:
        start += 1
    return start
