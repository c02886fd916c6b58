"""What a long look at many files has found so far, one JSON line per file: a killed run goes on where it stopped."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from repblend.store import JSON


class Journal:
    """Findings by file name. A finding holds for as long as the file keeps its size and time of change."""

    def __init__(self, path: Path, purpose: Any) -> None:
        """Open a journal, or begin a new one.

        Args:
            path: the journal's file; deleting it only costs time.
            purpose: anything JSON can hold that findings depend on. A journal with another purpose is begun anew.
        """
        self._path = path
        lines = _whole_lines(path)
        if not lines or lines[0] != {"purpose": purpose}:
            lines = [{"purpose": purpose}]
            path.parent.mkdir(parents=True, exist_ok=True)
        self._found = {line["file"]: line for line in lines[1:]}
        path.write_text("".join(map(_line, lines)), encoding="utf-8")  # without what was cut short

    def find(self, name: str, file: Path) -> JSON | None:
        """Return what was found about a file, or None if that is unknown or the file has changed since."""
        line = self._found.get(name)
        return line["finding"] if line and line["state"] == _state(file) else None

    def add(self, findings: Mapping[str, tuple[Path, JSON]]) -> None:
        """Write down what was found about some files: by name, the file and the finding."""
        with self._path.open("a", encoding="utf-8") as journal:
            journal.writelines(_line({"file": name, "state": _state(file), "finding": finding})
                               for name, (file, finding) in findings.items())

    def remove(self) -> None:
        """Delete the journal when the whole is done."""
        self._path.unlink(missing_ok=True)


def _whole_lines(path: Path) -> list[JSON]:
    lines: list[JSON] = []
    if path.is_file():
        with path.open(encoding="utf-8", errors="replace") as journal:
            for text in journal:
                try:
                    lines.append(json.loads(text))
                except ValueError:  # killed while it was written
                    break
    return lines


def _line(content: JSON) -> str:
    return json.dumps(content, ensure_ascii=True) + "\n"


def _state(file: Path) -> list[int]:
    status = file.stat()
    return [status.st_size, status.st_mtime_ns]
