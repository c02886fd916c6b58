"""Rows of a JSON list one at a time, compared with reading the whole file."""

import json
import random
from pathlib import Path

import pytest

from repblend.data import json_rows
from repblend.data.json_rows import stream_rows


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 50, 1 << 20])
@pytest.mark.parametrize("indent", [None, 2])
def test_rows_are_those_of_the_whole_file_whatever_is_read_at_once(
        chunk: int, indent: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_rows, "CHUNK", chunk)
    generator = random.Random(chunk)
    words = ["plain", 'quo"te', "back\\slash", "é", "]", "[,", "line\nbreak", ""]
    rows = [generator.choice([12345, 1.5e-3, None, True, words[:2], {"a": generator.choice(words), "b": [1, {}]}])
            for _ in range(30)]
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(rows, indent=indent, ensure_ascii=False), "utf-8")
    assert list(stream_rows(path)) == rows


@pytest.mark.parametrize(("content", "rows", "words"), [
    ("[]", 0, None), (' [ {"a": 1} ]\n', 1, None), ("{}", 0, "expected a list"), ("", 0, "expected a list"),
    ('[{"a": 1}, {"b"', 1, "row 1: expected JSON"), ('[{"a": 1}', 0, "row 0: expected JSON"),
    ('[{"a": 1}, oops, {"b": 2}]', 1, "row 1: expected JSON"), (b'[{"a": "\xff"}]', 0, "UTF-8")])
def test_rows_before_a_fault_are_read_and_the_fault_is_named(content, rows, words, tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    found = []
    if words is None:
        found.extend(stream_rows(path))
    else:
        with pytest.raises(ValueError, match=words):
            found.extend(stream_rows(path))
    assert len(found) == rows
