"""Every command that is named to users exists, with the options that it is given."""

import argparse
import contextlib
import importlib.util
import io
import re
from unittest import mock

import pytest
from dvc.cli import DvcParserError
from dvc.cli.parser import get_main_parser
from typer.core import TyperCommand, TyperGroup
from typer.exceptions import TyperException
from typer.main import get_command

from repblend.ufc.__main__ import parser as ufc_parser
from repro.cli import app
from repro.profiles import names
from tests.docs.documents import ROOT, Command, commands, documents, sources, tracked

FOREIGN = {"pip download", "docker image", "docker inspect", "docker login", "docker save", "apptainer build",
           "apptainer exec", "git checkout", "git tag", "git verify-tag"}
"""What is mentioned of programs that are not ours."""


def test_every_command_exists_with_its_options() -> None:
    named = {(*command.words, command.whole): (command, path)
             for path in (*documents(), *sources()) for command in commands(path)}
    assert len(named) > 100
    wrong = {f"{path.relative_to(ROOT)}: {' '.join(command.words)}": problem
             for command, path in named.values() if (problem := _problem(command))}
    assert wrong == {}


def _problem(command: Command) -> str | None:
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as said:
            _check(command)
    except (AssertionError, TyperException, DvcParserError) as error:
        return str(error) or type(error).__name__
    except SystemExit as error:
        return said.getvalue() if error.code else None
    return None


def _check(command: Command) -> None:
    match command.words:
        case ["repro", *arguments]:
            _check_repro(get_command(app), "repro", arguments, command.whole)
        case ["make", *arguments]:
            assert {word for word in arguments if "=" not in word} <= set(re.findall(
                r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
        case ["python", "-m", "repblend.ufc", *arguments]:
            _check_parsed(ufc_parser(), arguments, command.whole)
        case ["python", "-m", module, *_]:
            assert module == "PACKAGE" or importlib.util.find_spec(module) is not None
        case ["dvc", *arguments]:
            with mock.patch("sys.argv", ["dvc"]):  # its parser looks there as well
                _check_parsed(get_main_parser(), arguments, command.whole)
        case [program, part, *_]:
            assert f"{program} {part}" in FOREIGN


def _check_repro(command: TyperGroup | TyperCommand, name: str, arguments: list[str], whole: bool) -> None:
    """Parse as the command would, without running it; COMMAND stands for any of a group's commands."""
    if "--help" in arguments or arguments[:1] == ["COMMAND"]:
        return
    if isinstance(command, TyperGroup):
        if arguments and arguments[0] in command.commands:
            _check_repro(command.commands[arguments[0]], arguments[0], arguments[1:], whole)
            return
        assert command.invoke_without_command or not (whole or arguments), f"{name} has no command {arguments}"
        if not command.invoke_without_command:
            return
    try:
        profile = command.make_context(name, list(arguments)).params.get("profile") or "quickstart"
    except TyperException as error:
        if whole or type(error).__name__ != "MissingParameter":
            raise
    else:
        assert profile in (*names(ROOT), "NAME"), f"no profile is called {profile}"


def _check_parsed(parser: argparse.ArgumentParser, arguments: list[str], whole: bool) -> None:
    """Let argparse parse a whole command; of one that is only named, see that it has a help text."""
    if arguments[:1] != ["COMMAND"]:
        parser.parse_args(arguments if whole else [*arguments, "--help"])


@pytest.mark.parametrize("words", ["repro run --everything", "repro walk", "repro image", "repro report --profile none",
                                   "repro export repblend-100", "make nothing", "python -m repblend.nothing",
                                   "python -m repblend.ufc fetch --dataset none", "dvc metrics shew", "docker run"])
def test_what_is_not_there_is_found(words: str) -> None:
    assert _problem(Command(words.split(), whole=True))


def test_commands_are_found_where_they_are_written() -> None:
    found = {name: {" ".join(command.words) for command in commands(ROOT / name)}
             for name in ("README.md", "repro/README.md", "conf/profiles/flickr30k.yaml")}
    assert {"make reproduce", "repro run --profile openmoji"} <= found["README.md"]
    assert "dvc remote modify store verify true" in found["repro/README.md"]
    assert "repro profile flickr30k" in found["conf/profiles/flickr30k.yaml"]


def test_no_text_names_an_option_that_was_renamed() -> None:
    renamed = "--" + "grid"
    assert [str(path.relative_to(ROOT)) for path in tracked("*.md", "*.ipynb", "*.py", "*.yaml", "*.toml", "Makefile")
            if path.name != "CHANGELOG.md" and renamed in path.read_text("utf-8")] == []
