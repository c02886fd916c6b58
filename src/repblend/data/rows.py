"""Rows of a file of captions, in whichever form they stand: CSV, a JSON list, or a JSON object per line.

All forms give the same: an object with `image` (a path in the data set's folder), `caption`, and whatever else stands
there, and what an error calls the row. A file of Hugging Face's `imagefolder` (`metadata.jsonl` or `metadata.csv`) has
`file_name`, which starts where the file lies, and `text` in their place.
"""

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from repblend.files import Refusal, parse_json, read_text
from repblend.store import quoted, read_json

LINE_ENDS = re.compile(r"\r\n|\r|\n")
FILE_NAME, TEXT = "file_name", "text"
"""What `imagefolder` calls the image, and the caption."""


def raw_rows(file: Path, folder: Path | None) -> Iterator[tuple[str, Any]]:
    """Yield every row of a file, each with what an error calls it.

    Args:
        folder: that of the set, which no link may lead out of; None where the file is our own.

    Raises:
        ValueError: nothing more of the file can be read; the message names it.
    """
    for where, row in _rows(file, folder):
        if isinstance(row, dict) and "image" not in row and isinstance(name := row.get(FILE_NAME), str):
            inside = file.parent.relative_to(folder) if folder else Path()
            others = {key: value for key, value in row.items() if key not in (FILE_NAME, TEXT)}
            row = {"caption": row.get(TEXT), **others, "image": str(PurePosixPath(inside.as_posix(), name))}
        yield where, row


def _rows(file: Path, folder: Path | None) -> Iterator[tuple[str, Any]]:
    if file.suffix.lower() == ".json":
        yield from json_rows(file, folder)
        return
    try:
        text = read_text(file, "text", folder)
    except FileNotFoundError as error:
        raise ValueError(f"{file}: no such file. Put it there, or correct data.captions") from error
    if file.suffix.lower() == ".jsonl":
        yield from ((f"{file}, line {number}", parse_json(line, file, number))
                    for number, line in enumerate(text.split("\n"), start=1) if line.strip())
    else:
        yield from csv_rows(text, file)


def json_rows(path: Path, folder: Path | None = None) -> Iterator[tuple[str, Any]]:
    """Yield the rows of a JSON list, each with the name that an error gives it.

    Args:
        folder: that of the set, which no link may lead out of.

    Raises:
        ValueError: the file is missing, not UTF-8, not JSON, or no list with a row; the message names it.
    """
    rows = read_json(path, folder)
    if not isinstance(rows, list) or not rows:
        raise ValueError(f"{path}: expected a list of rows with at least one row, found "
                         f"{'an empty list' if rows == [] else type(rows).__name__}. Put the rows into one list")
    return ((f"{path}, row {number}", row) for number, row in enumerate(rows))


def csv_rows(text: str, file: Path) -> Iterator[tuple[str, Any]]:
    """Yield the rows of a CSV text with a header, each with what an error calls it: the line that it begins at.

    Raises:
        Refusal: the columns are not as expected, or a quote is not closed; the message names file and line.
    """
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    begins, columns = 1, None
    while True:
        try:
            row = next(reader, None)
        except csv.Error as error:
            if "field limit" in str(error):
                raise Refusal(f"{file}, line {begins}: a field has more than {csv.field_size_limit():,} characters. "
                              "Close the quote that is opened there, or cut the caption") from error
            raise Refusal(f"{file}, line {begins}: expected fields between commas, each whole between quotes or "
                          f"without any ({error}). Close the quote that is opened there, and double those inside of a "
                          "caption") from error
        if row is None:
            if columns is None:
                _check_columns([], f"{file}, line 1")
            return
        where = f"{file}, line {begins}"
        begins = reader.line_num + 1
        if columns is None:
            columns = row
            _check_columns(columns, where)
        elif len(row) > len(columns):
            raise Refusal(f"{where}: has more fields than the first line. Put captions with commas between quotes")
        elif any(_may_hold_rows(field, len(columns) - 1 - column, len(columns)) for column, field in enumerate(row)):
            raise Refusal(f"{where}: a field goes on over further rows. Close the quote that is opened there, or, if "
                          "none is missing, take the line breaks out of the field")
        elif row:
            yield where, dict(zip(columns, row, strict=False))


def _may_hold_rows(field: str, num_behind: int, num_columns: int) -> bool:
    """Whether a field with line breaks may have swallowed a row: its first line has commas for the rest of its own, of
    `num_behind` fields, or another line has those of a whole one.
    """
    first, *others = LINE_ENDS.split(field)
    return bool(others) and (0 < num_behind <= first.count(",")
                             or any(line.count(",") >= num_columns - 1 for line in others))


def _check_columns(columns: list[str], where: str) -> None:
    if columns and columns[0].lstrip().startswith(("[", "{")):
        raise Refusal(f"{where}: begins as JSON, expected CSV with a header. Call a list of rows `.json`, and a row "
                      "per line `.jsonl`")
    for name, sign in (("semicolons", ";"), ("tabs", "\t"), ("bars", "|")):
        if len(columns) == 1 and sign in columns[0]:
            raise Refusal(f"{where}: the columns are separated by {name}, expected commas. Save the file with commas, "
                          "and captions that have some between quotes")
    if twice := [name for name in dict.fromkeys(columns) if columns.count(name) > 1]:
        raise Refusal(f"{where}: the column {twice[0]!r} stands there twice. Take one out, or write each caption into "
                      "a row of its own")
    if not ({"image", "caption"} <= set(columns) or (FILE_NAME in columns and {TEXT, "caption"} & set(columns))):
        raise Refusal(f"{where}: expected the columns image and caption, found {quoted(', '.join(columns))}. Name the "
                      "columns so in the first line, in small letters and without spaces")
