"""What a search found, written into `params.yaml`: where a setting stands, and the study's name behind it."""

from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap

from repblend.grid import Cell
from repblend.store import write_bytes
from repro.pipeline import WIDTH


def place_of(cell: Cell, key: str, content: Mapping[str, Any]) -> list[str]:
    """Return where a setting of a cell stands in `params.yaml`: of the method, or of the cell if it has its own."""
    if not cell.is_coreset:
        *sections, last = key.split(".")
        own: Any = content["distill"]["cells"].get(str(cell)) or {}
        for section in sections:
            own = own.get(section) or {}
        of_cell = last in own or "+" in cell.method
        return ["distill", "cells" if of_cell else "methods", str(cell) if of_cell else cell.method, *key.split(".")]
    return ["evaluate", "encoder_coresets", key] if cell.trains_encoder else ["select", key, cell.base_method]


def write_values(file: Path, cell: Cell, values: Mapping[str, Any], source: str) -> None:
    """Write settings into a `params.yaml`, `source` behind each; every other value and all comments stay.

    What an alias stands for is not changed for others: a method gets settings of its own.
    """
    yaml = YAML()
    yaml.width, yaml.preserve_quotes = WIDTH, True
    yaml.representer.add_representer(type(None), lambda representer, value: representer.represent_scalar(
        "tag:yaml.org,2002:null", "null"))
    content = yaml.load(file.read_text("utf-8"))
    for key, value in values.items():
        place, above, section = place_of(cell, key, content), content, content
        for name in place[:-1]:
            section[name] = _own_copy(content, section, name)
            above, section = section, section[name]
        section[place[-1]] = value
        if section.fa.flow_style():
            _comment(above, place[-2], f"{place[-1]}: {source}", beside=True)
        else:
            _comment(section, place[-1], source)
    text = StringIO()
    yaml.dump(content, text)
    write_bytes(file, text.getvalue().encode())


def _comment(section: CommentedMap, key: str, words: str, beside: bool = False) -> None:
    """Put a comment behind a value, in the place of the one there; lines of comments below it stay.

    Args:
        beside: let other parts of the one there stay, as `a: x` beside `b: y`.
    """
    tokens = section.ca.items.get(key)
    before, newline, below = (tokens[2].value if tokens and tokens[2] else "").partition("\n")
    name = words.partition(": ")[0]
    others = [part for part in before.removeprefix("# ").split("; ") if part and part.partition(": ")[0] != name]
    section.yaml_add_eol_comment("; ".join([*others, words]) if beside else words, key)
    token = section.ca.items[key][2]
    token.value = token.value.rstrip("\n") + (newline + below or "\n")


def _own_copy(content: CommentedMap, section: CommentedMap, name: str) -> CommentedMap:
    """Return a section's mapping, in its place: a block of its own, if it is shared by an alias or written as `{}`."""
    found = section.get(name)
    if found is None or (not found and isinstance(found, CommentedMap)):
        return CommentedMap()
    if _times(content, found) > 1:
        copied = CommentedMap(found)
        copied.fa.set_block_style()
        return copied
    return found


def _times(content: Any, wanted: CommentedMap) -> int:
    """How often a mapping stands in another."""
    return sum((value is wanted) + _times(value, wanted) for value in content.values() if isinstance(value, dict))
