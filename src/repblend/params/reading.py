"""YAML files, read and checked, and what is said where they do not fit.

Parsed by the YAML 1.2 rules that DVC uses (`1e-3` is a number, `on` is text).
"""

from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent

from repblend.params.data import KINDS_OF_DATA
from repblend.sections import Section
from repblend.store import quoted

Model = TypeVar("Model", bound=Section)

SHOWN_PROBLEMS, SHOWN_KEY = 40, 200
"""Lines of an error, and signs of a key in it."""
YAML_BYTES, YAML_VALUES, YAML_DEPTH = 2**20, 100_000, 50
"""What a YAML file may have: bytes; values, those of an alias counted again wherever it stands; levels. The largest
dvc.lock has a quarter of a megabyte and 20,000 values."""


def read_yaml(path: Path) -> Any:
    """Parse a YAML 1.2 file, with DVC's own parser, after its size was looked at.

    Raises:
        ValueError: the file is missing, too large or not YAML; the message names the line.
    """
    try:
        if (size := path.stat().st_size) > YAML_BYTES or not path.is_file():
            raise ValueError(f"{path}: has {size:,} bytes, expected a file of at most {YAML_BYTES:,}. Put one there")
        try:
            text = path.read_text("utf-8-sig")
            _check_size(text)
            return YAML(typ="safe").load(text)
        except (ValueError, TypeError) as error:  # also a number of 5,000 digits, or a thirteenth month
            raise ValueError(f"{path}: expected YAML, {error}") from error
    except FileNotFoundError as error:
        raise ValueError(f"{path}: no such file. Run in the repository's folder") from error
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise ValueError(f"{path}{line}: expected YAML, {getattr(error, 'problem', None) or error}") from error


def _check_size(text: str) -> None:
    """Raise `ValueError` if a text has too many levels or values, before anything is made of it."""
    values, depth = 0, 0
    begun: list[Any] = []
    sizes: dict[Any, int] = {}
    for event in YAML(typ="safe").parse(text):
        if isinstance(event, AliasEvent):  # one that stands inside of what it names has no end
            values += sizes.get(event.anchor, 0 if event.anchor not in dict(begun) else YAML_VALUES)
        elif isinstance(event, CollectionStartEvent):
            depth += 1
            begun.append((event.anchor, values))
        elif isinstance(event, CollectionEndEvent):
            depth -= 1
            anchor, before = begun.pop()
            sizes[anchor] = values - before
        values += 1
        if values > YAML_VALUES or depth > YAML_DEPTH:
            raise ValueError(f"with at most {YAML_VALUES:,} values, those of an alias counted wherever it stands, and "
                             f"{YAML_DEPTH} levels; line {event.start_mark.line + 1} has more. Take out aliases")


def validated(model: type[Model], content: Any, origin: str) -> Model:
    """Return parsed parameters as the typed class of a pipeline; `origin` says in messages where they come from.

    Raises:
        ValueError: as `read_params`.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise ValueError(explain(origin, error)) from error


def explain(origin: Path | str, error: ValidationError) -> str:
    """Return a message that lists every parameter to mend, with the value found and the rule it breaks."""
    lines = [f"{origin}: {error.error_count()} parameter(s) to mend"]
    for problem in error.errors(include_url=False)[:SHOWN_PROBLEMS]:
        key = ".".join(str(part) for part in problem["loc"] if part not in KINDS_OF_DATA) or "(the whole file)"
        key = "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in key[:SHOWN_KEY])
        told = problem["type"] == "missing" or isinstance(problem["input"], dict)
        found = "" if told else f" (found {quoted(problem['input'])})"
        lines.append(f"  {key}: {problem['msg']}{found}")
    if error.error_count() > SHOWN_PROBLEMS:
        lines.append(f"  and {error.error_count() - SHOWN_PROBLEMS} more")
    return "\n".join(lines)
