"""`repro new`: a workspace for a captioned set of one's own, checked before anything runs.

Its `params.yaml` holds plain numbers. Those that follow from how many pairs there are stand below a comment that says
how; all others are those of the profile that it is made like.
"""

import re
import shutil
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

from ruamel.yaml.comments import CommentedMap

from repblend.costs import counts_of
from repblend.data.source import KNOWN, DatasetReport, Source, source_of
from repblend.params import Params
from repblend.params.data import OwnData, RealData
from repblend.params.reading import validated
from repblend.sections import Section
from repblend.store import JSON, write_bytes
from repro.fetch.datasets import LABELLED, examine
from repro.own.derive import Derived, derive, held_out
from repro.own.layout import Layout, find_layout
from repro.pipeline import KINDS, MULTIMODAL, WIDTH, yaml_text
from repro.profiles import FOLDER, Profile, compose, names, write_pipeline
from repro.workspace import find_root

HEAD = ("Own data set {name}: {images:,} images in {folder}, {pairs:,} pairs to train on. Made by `repro new`, like "
        "{like} but for what a comment derives from these numbers. Yours to edit; `repro data check {name}` checks it "
        "again.")
MOST_WORDS = 60
"""Of a caption, where the profile that it is made like has no such limit."""
FEW = 100
"""Test images below which a recall moves by more than a point with each."""


class _Entry(Section):
    data: RealData | OwnData


def main(name: str, folder: Path, like: str, captions: str | None) -> int:
    """Check a data set and write the workspace of a new profile; return the exit code.

    Args:
        name: of the profile and of the data set.
        folder: where images and captions lie; they stay there.
        like: the profile whose settings are taken.
        captions: the file of captions in the folder, if it cannot be told.
    """
    try:
        root = find_root()
        check_name(root, name)
        if not folder.is_dir():
            raise ValueError(f"--data {folder}: no such folder. Expected the one with the images and their captions")
        kind, content = compose(root, like)
        if kind is not KINDS[MULTIMODAL]:
            raise ValueError(f"--like {like}: has images with labels, expected a profile of images with captions, for "
                             "example quickstart")
        return _new(root, name, folder.resolve(), like, content, captions)
    except (ValueError, OSError) as error:
        print(f"repro new: {error}", file=sys.stderr)
        return 1


def check_name(root: Path, name: str) -> None:
    """Raise `ValueError` if a new profile cannot be called so."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        raise ValueError(f"{name!r}: expected a name of letters, digits and . _ - that begins with a letter or digit")
    if name in {*names(root), *KNOWN, *LABELLED, *(known.name for known in KNOWN.values())}:
        raise ValueError(f"{name}: is the name of a profile or data set already. Take another, or remove "
                         f"{root / FOLDER / name} to begin anew")
    if (root / FOLDER / name).exists():
        raise ValueError(f"{root / FOLDER / name}: is there already. Take another name, or remove it")


def _new(root: Path, name: str, folder: Path, like: str, content: JSON, captions: str | None) -> int:
    known = counts_of(root / FOLDER / like, validated(Params, content, like))  # of the profile's own data set
    layout = find_layout(folder, captions)
    for note in layout.notes:
        print(note)
    derived, source = _source(root, name, folder, layout, content)
    report = examine(root, source)
    if report.problems:
        print(f"repro new: {len(report.problems)} to mend before a workspace is made", file=sys.stderr)
        return 1
    train = report.counts["train"]
    derived += derive(content, like, known, train["images"], train["captions"])
    validated(Params, content, f"profile {name}").check_sizes(train["images"], train["captions"])
    profile = Profile(name, KINDS[MULTIMODAL], root / FOLDER / name)
    try:
        write_bytes(profile.workspace / "params.yaml", params_text(name, like, content, report, derived).encode())
        write_pipeline(root, profile)
    except BaseException:
        shutil.rmtree(profile.workspace, ignore_errors=True)
        raise
    print(summary(root, profile, report, derived))
    return 0


def _source(root: Path, name: str, folder: Path, layout: Layout, content: JSON) -> tuple[list[Derived], Source]:
    """Put the entry `data` into the parameters; return how its splits were decided, and what it names."""
    before = content["data"]
    shown = folder.relative_to(root) if folder.is_relative_to(root) else folder
    entry: JSON = {"name": name, "folder": shown.as_posix(), **layout.entry, "image_size": before["image_size"],
                   "max_caption_words": before.get("max_caption_words", MOST_WORDS)}
    derived: list[Derived] = []
    if not layout.names_splits:
        found = held_out(_num_images(root, entry))
        entry |= {key: each.value for key, each in found.items()}
        derived = [*found.values()]
    content["data"] = entry
    return derived, source_of(validated(_Entry, {"data": entry}, f"profile {name}").data, root)


def _num_images(root: Path, entry: JSON) -> int:
    """Return how many images the rows name, those with something to mend too: the check names these."""
    data = OwnData.model_validate(entry | {"num_val": 1, "num_test": 1})
    return len({row.image for row, _ in source_of(data, root).captions.checked_rows(lambda error: None)})


# What is written, and told.


def params_text(name: str, like: str, content: JSON, report: DatasetReport, derived: Sequence[Derived]) -> str:
    """Return `params.yaml` with a comment above every derived value."""
    images = sum(split["images"] for split in report.counts.values())
    head = HEAD.format(name=name, images=images, folder=content["data"]["folder"],
                       pairs=report.counts["train"]["captions"], like=like)
    return "\n".join([*_comment(head, ""), with_comments(yaml_text(_section_by_section(content)), derived)])


def _section_by_section(content: JSON, depth: int = 0) -> CommentedMap:
    """Return a mapping that is written with a key per line where it is a section, or holds a mapping."""
    styled = CommentedMap({key: _section_by_section(value, depth + 1) if isinstance(value, dict) else value
                           for key, value in content.items()})
    if depth > 1 and not any(isinstance(value, dict) for value in content.values()):
        styled.fa.set_flow_style()
    else:
        styled.fa.set_block_style()
    return styled


def with_comments(text: str, derived: Sequence[Derived]) -> str:
    """Return a YAML text with a comment above every derived value, or above the line of the mapping it stands in.

    Args:
        text: as `yaml_text` writes it: a key per line, mappings of plain values on one.
    """
    reasons: dict[str, list[str]] = {}
    for each in derived:
        reasons.setdefault(each.key, []).append(each.reason)
    lines: list[str] = []
    above: list[tuple[int, str]] = []
    for line in text.splitlines():
        if key := re.match(r"( *)([^\s:#'\"\[{][^:]*):", line):
            indent = len(key[1])
            above = [*(each for each in above if each[0] < indent), (indent, key[2])]
            path = ".".join(name for _, name in above)
            inside = {found: f"{found.removeprefix(f'{path}.')}: " for found in reasons
                      if found.startswith(f"{path}.") and "{" in line}
            for found, prefix in {**({path: ""} if path in reasons else {}), **inside}.items():
                for reason in reasons.pop(found):
                    lines += _comment(prefix + reason, key[1])
        lines.append(line)
    assert not reasons, f"no line for {', '.join(reasons)}"
    return "\n".join(lines) + "\n"


def _comment(words: str, indent: str) -> list[str]:
    return textwrap.wrap(words, WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ",
                         break_long_words=False, break_on_hyphens=False)


def summary(root: Path, profile: Profile, report: DatasetReport, derived: Sequence[Derived]) -> str:
    """Return what was written, and what comes next."""
    name, file = profile.name, (profile.workspace / "params.yaml").relative_to(root)
    lines = [f"{each.key}: {each.value} ({each.reason})" for each in derived]
    test = report.counts["test"]["images"]
    if test < FEW:
        lines.append(f"note: a recall on {test} test images moves in steps of {100 / max(1, test):.1f} points")
    return "\n".join([*lines, f"{file}: written. Look at the set with `repro data show {name}`, see what a run takes "
                      f"with `repro plan --profile {name}`, start it with `repro run --profile {name}`"])
