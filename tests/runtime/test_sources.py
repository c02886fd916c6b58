"""What of the sources makes a stage run again: their code, and nothing that is written about it."""

import ast
from pathlib import Path

import pytest

from repblend.runtime.sources import code_of, code_sha256

ROOT = Path(__file__).parents[2]
TOLD = '''"""A module
of two lines."""

# Why.
import json  # a comment behind code counts


class Kind:
    """A class."""

    size: int
    """A field."""

    def of(self):
        """A method."""
        # Why again.
        try:
            return json
        except ValueError:
            """Nothing."""
        finally:
            pass; "shares its line"
'''
CODE = """import json  # a comment behind code counts
class Kind:
    size: int
    def of(self):
        try:
            return json
        except ValueError:
        finally:
            pass; "shares its line\""""


def test_what_is_written_about_code_is_no_code() -> None:
    assert code_of(TOLD) == CODE


@pytest.mark.parametrize("text", [
    'a = """\n\n# no comment\n"""', "a = 'b\\\n# no comment'", "a = f'''\n# no comment\n'''", "a = 1  # behind it",
    "'#'.join(a)", "b'# bytes'"])
def test_what_only_looks_like_a_comment_counts(text: str) -> None:
    assert code_of(text) == text.rstrip() and ast.parse(text)


def test_a_folder_changes_by_its_code_and_by_names_alone(tmp_path: Path) -> None:
    module = tmp_path / "a.py"
    module.write_text("a = 1")
    before = code_sha256(tmp_path)
    module.write_text('"""Of one."""\n\n# It is one.\na = 1\n"""How many."""\n')
    assert code_sha256(tmp_path) == before
    module.write_text("a = 2")
    assert code_sha256(tmp_path) != before
    module.write_text("a =")
    with pytest.raises(ValueError, match=r"a\.py: this is no Python .*git restore"):
        code_sha256(tmp_path)


def test_the_code_of_every_source_does_what_the_source_does() -> None:
    for path in sorted((ROOT / "src").rglob("*.py")):
        text = path.read_text("utf-8")
        assert _without_strings(code_of(text)) == _without_strings(text), path


def _without_strings(text: str) -> str:
    """The syntax tree without strings that stand as statements; a block that is left empty is given a `pass` first."""
    lines: list[str] = text.splitlines()
    while True:
        try:
            tree = ast.parse("\n".join(lines))
            break
        except IndentationError as error:
            assert "expected an indented block" in str(error), error
            header = int(str(error.msg).rpartition(" ")[2])
            indent = len(lines[header - 1]) - len(lines[header - 1].lstrip())
            end = next(place for place in range(header, len(lines) + 1) if _closes(lines[header - 1:place]))
            lines.insert(end, " " * (indent + 4) + "pass")
    for node in ast.walk(tree):
        for name in ("body", "orelse", "finalbody"):
            if isinstance(body := getattr(node, name, None), list):
                setattr(node, name, [each for each in body if not isinstance(each, ast.Pass) and not (
                    isinstance(each, ast.Expr) and isinstance(each.value, ast.Constant))])
    return ast.dump(tree)


def _closes(header: list[str]) -> bool:
    """Whether lines are the whole head of a class or function."""
    return header[-1].split("  #")[0].rstrip().endswith(":")
