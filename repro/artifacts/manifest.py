"""What the pipeline has made: the outputs that dvc.lock names, the groups that one pulls, and the manifest.

DVC names contents by MD5 and does not look again at what a remote sends. The manifest is committed beside dvc.lock. It
has one row for each output that was pushed: the version (DVC's MD5) and the SHA-256 that this version must have. That
of a folder is the hash of the paths and SHA-256 of its files, so a row stays a row however many files there are.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from repblend.params.reading import explain
from repblend.runtime.locked import FOLDER_SUFFIX, LOCK, SHOWN, Lock, Output, Plain, difference, lies_in, md5, read_list
from repblend.runtime.provenance import git_bytes
from repblend.store import fingerprint, read_json, sha256, write_bytes

MANIFEST = "artifacts.sha256.json"
IN_GIT = "metrics"
"""The folder of outputs that git holds and DVC's cache does not."""


class Artifacts(StrEnum):
    """What `repro pull` can bring."""

    METRICS = "metrics"
    DISTILLED = "distilled"
    TRAJECTORIES = "trajectories"
    ALL = "all"


FOLDERS = {
    Artifacts.METRICS: (IN_GIT, "records"),
    Artifacts.DISTILLED: ("sets", "records/distill", "records/select", "records/evaluate", "records/prepare.json",
                          "records/encode.json"),
    Artifacts.TRAJECTORIES: ("features", "experts", "encoder-experts", "pairs", "initial", "teachers", "compensators",
                             "labels", "predictions"),
}
"""Group -> where its outputs lie. The first is enough for every table and figure, the second for releasing a set, whose
card says what its records hold. Only `all` has the rest, which is made again within minutes."""


def outputs(root: Path, wanted: Artifacts) -> list[Output]:
    """Return the outputs of a group in a workspace, in the order of their paths.

    Raises:
        ValueError: as `Lock.read`, or a link stands where one of them lies: what is written there would land elsewhere.
    """
    found = [output for path, output in Lock.read(root / LOCK).outputs.items()
             if wanted is Artifacts.ALL or lies_in(path, FOLDERS[wanted])]
    for output in found:
        for place in (Path(output.path), *Path(output.path).parents[:-1]):
            if (root / place).is_symlink():
                raise ValueError(f"{root / place}: is a link, expected a place of the workspace's own. Move what it "
                                 "names there")
    return found


def is_in_git(output: Output) -> bool:
    """Whether git holds an output, and DVC's cache does not."""
    return lies_in(output.path, [IN_GIT])


@dataclass(frozen=True)
class Failure:
    """Why an output, or a file of it, could not be pulled or pushed."""

    output: Output
    text: str
    """Names the file, what was expected and what was found."""


def explain_failures(failures: Sequence[Failure], mend: str) -> str:
    """Return the failures, output by output, each with how to mend it; `{stage}` in `mend` is the output's stage."""
    lines: list[str] = []
    for output in dict.fromkeys(failure.output for failure in failures):
        texts = [failure.text for failure in failures if failure.output == output]
        lines += [f"{output.path}:", *(f"  {text}" for text in texts[:SHOWN])]
        if len(texts) > SHOWN:
            lines.append(f"  and {len(texts) - SHOWN} more files")
        lines.append(f"  To mend: {mend.format(stage=output.stage)}")
    return "\n".join(lines)


# The manifest.

VERSIONS = TypeAdapter(dict[Plain, Annotated[str, Field(
    pattern=rf"^md5:[0-9a-f]{{32}}(\{FOLDER_SUFFIX})? sha256:[0-9a-f]{{64}}$")]], config=ConfigDict(strict=True))
"""Path of an output -> the version that was pushed: its MD5 as in dvc.lock, its SHA-256 by `content_sha256`."""


def read_manifest(root: Path) -> dict[str, str]:
    """Return the version of every output that was pushed; none if nothing was.

    Raises:
        ValueError: the file is not a manifest.
    """
    path = root / MANIFEST
    try:
        return VERSIONS.validate_python(read_json(path)) if path.exists() else {}
    except ValidationError as error:
        raise ValueError(f"{explain(path, error)}\n{path}: expected 'md5:... sha256:...' of each output. Bring it "
                         f"back: git checkout -- {MANIFEST}") from error


def pushed_sha256(versions: Mapping[str, str], output: Output) -> str | None:
    """Return the SHA-256 of an output if the version that dvc.lock names was pushed."""
    name, _, found = versions.get(output.path, "").partition(" sha256:")
    return found if name == f"md5:{output.md5}" else None


def version(output: Output, files: Mapping[str, Path]) -> str:
    """Return the version of an output for the manifest; arguments as of `content_sha256`."""
    return f"md5:{output.md5} sha256:{content_sha256(output, files)}"


def content_sha256(output: Output, files: Mapping[str, Path]) -> str:
    """Return the SHA-256 of an output: of its file, or of the relative paths and SHA-256 of a folder's files.

    Args:
        files: path in the workspace -> where the bytes of that file are.

    Raises:
        OSError: one of them is not there.
    """
    if not output.is_folder:
        return sha256(files[output.path])
    return fingerprint({name.removeprefix(f"{output.path}/"): sha256(path) for name, path in files.items()})


# Objects: what DVC's cache and its remotes hold. Each is a file named by its MD5; a folder is a list of such files.


@dataclass(frozen=True)
class Object:
    """One file of an output, or the list of a folder's files."""

    output: Output
    name: str
    """For messages: the file's path in the workspace."""
    oid: str
    """Its name in the cache and on a remote."""

    def mismatch(self, path: Path) -> str | None:
        """Return what was expected and found if a file does not hold this object, None if it does."""
        expected = self.oid.removesuffix(FOLDER_SUFFIX)
        if path.is_symlink() or not path.is_file():
            return f"{self.name}: expected a file with MD5 {expected}, found a link or no file"
        if (found := md5(path)) == expected:
            return None
        return f"{self.name}: expected MD5 {expected}, found {path.stat().st_size} bytes with MD5 {found}"


def list_of(folder: Output) -> Object:
    """Return the object that lists the files of a folder."""
    return Object(folder, f"the list of the files in {folder.path}", folder.md5)


def files_of(output: Output, listing: Path) -> Iterator[Object]:
    """Yield the objects of an output's files.

    Args:
        listing: where the folder's list is; not read if the output is a file.
    """
    if not output.is_folder:
        yield Object(output, output.path, output.md5)
        return
    for name, found in read_list(listing).items():
        yield Object(output, f"{output.path}/{name}", found)


# Metrics come with the clone: git holds them, dvc.lock records their MD5. Missing ones are restored from git.

MEND = "bring back the committed files (git checkout HEAD -- dvc.lock metrics), or compute it here: repro run {stage}"


def restore(root: Path, metrics: Sequence[Output]) -> list[Failure]:
    """Check that metrics files have the bytes that dvc.lock records, and restore those that are missing.

    A file that differs is left alone: it may be the only copy of somebody's work.
    """
    def wrong(output: Output) -> str | None:
        path = root / output.path
        if path.exists():
            return (text := difference(root, output)) and f"{text}. It was left as it is"
        try:
            shown = git_bytes(root, "show", f"HEAD:./{output.path}")
        except ValueError as error:
            return f"{output.path}: no such file, and git has none either ({error})"
        found = hashlib.md5(shown, usedforsecurity=False).hexdigest()
        if found != output.md5:
            return f"{output.path}: no such file. Expected MD5 {output.md5} ({LOCK}), but the one in git has {found}"
        write_bytes(path, shown)
        return None

    return [Failure(output, text) for output in metrics if (text := wrong(output))]
