"""Outputs against the lock: whether files are those that dvc.lock records, and results those that params.yaml asks for.

DVC looks at an output's size and times before it hashes it, and a report, a release or a comparison may be made without
DVC at all. So whoever uses results checks them here: every byte is hashed. dvc.lock is read as anybody could have
written it: strictly typed, and with outputs nowhere but in the places that pipelines write to.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from repblend.params.reading import explain, read_yaml
from repblend.records.base import Provenance
from repblend.runtime.settings import SETTINGS, Pipeline
from repblend.store import read_json, repository_of

LOCK = "dvc.lock"
FOLDER_SUFFIX = ".dir"
PLACES = ("settings", "data/prepared", "features", "experts", "encoder-experts", "pairs", "initial", "teachers",
          "compensators", "labels", "predictions", "sets", "records", "metrics", "paper/report.html",
          "paper/tables", "paper/figures")
"""Where outputs lie in a workspace."""
RESULTS = ("records", "metrics")
"""What reports are made from: small, so that they are hashed every time."""
SHOWN = 5
"""Files that an error lists; it counts the others."""


def lies_in(path: str, places: Iterable[str]) -> bool:
    """Whether a path is one of these places or inside of one."""
    return any(f"{path}/".startswith(f"{place}/") for place in places)


def plain(path: str) -> str:
    """Return a relative path if it is written as one and stays where it starts, else raise `ValueError`."""
    if (not path.isprintable() or "\\" in path or PurePosixPath(path).as_posix() != path or path.startswith("/")
            or any(part == ".." for part in PurePosixPath(path).parts) or path == "."):
        raise ValueError("expected a plain path without '..', relative to the folder that it is listed for")
    return path


def _output_path(path: str) -> str:
    if not lies_in(plain(path), PLACES):
        raise ValueError(f"expected an output in {', '.join(PLACES)}")
    return path


Plain = Annotated[str, AfterValidator(plain)]


class _Part(BaseModel):
    """Base of what dvc.lock holds; DVC writes more keys than are read here."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")


class Output(_Part):
    """One output of a stage, in the version that dvc.lock records."""

    stage: str = ""
    path: Annotated[str, AfterValidator(_output_path)]
    """In the workspace; a file or a folder."""
    md5: Annotated[str, Field(pattern=rf"^[0-9a-f]{{32}}(\{FOLDER_SUFFIX})?$")]
    """DVC's name of the content; of a folder, that of the list of its files."""
    num_bytes: Annotated[int, Field(ge=0, alias="size")] = 0

    @property
    def is_folder(self) -> bool:
        return self.md5.endswith(FOLDER_SUFFIX)

    def files(self, root: Path) -> dict[str, Path]:
        """Return the output's files in a workspace by their paths there: none if it is not there."""
        top = root / self.path
        found = sorted(top.rglob("*")) if self.is_folder else [top]
        return {path.relative_to(root).as_posix(): path for path in found if path.is_file()}


class Dependency(_Part):
    """What a stage read, in that version."""

    path: str
    md5: str | None = None


class LockedStage(_Part):
    """A stage that has run."""

    cmd: str = ""
    params: dict[str, Any] = {}
    """File -> its keys that the stage depends on."""
    deps: tuple[Dependency, ...] = Field(default=(), strict=False)
    outs: tuple[Output, ...] = Field(default=(), strict=False)


class Lock(_Part):
    """dvc.lock: the stages that have run."""

    stages: dict[str, LockedStage]

    @classmethod
    def read(cls, path: Path) -> "Lock":
        """Read a workspace's dvc.lock.

        Raises:
            ValueError: the file is missing or not of DVC's form, or an output lies where none may.
        """
        try:
            return cls.model_validate(read_yaml(path))
        except ValidationError as error:
            raise ValueError(f"{explain(path, error)}\n{path}: expected DVC's lock file with 'stages'. Bring it back "
                             f"(git checkout HEAD -- {LOCK}), or run `repro run` and commit it") from error

    @cached_property
    def outputs(self) -> dict[str, Output]:
        """Path -> output, in the order of the paths."""
        found = [output.model_copy(update={"stage": name}) for name, stage in self.stages.items()
                 for output in stage.outs]
        return {output.path: output for output in sorted(found, key=lambda output: output.path)}

    def maker(self, path: str) -> Output | None:
        """Return the output that a path is, or lies in."""
        parts = PurePosixPath(path)
        return next((self.outputs[str(place)] for place in (parts, *parts.parents) if str(place) in self.outputs), None)


# Files against it.


def md5(path: Path) -> str:
    """Return the MD5 of a file's bytes, in hexadecimal: DVC's name of it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def md5_of_list(files: Mapping[str, str]) -> str:
    """Return DVC's name of a folder whose files have these MD5, by their paths in it."""
    listed = json.dumps([{"md5": found, "relpath": name} for name, found in sorted(files.items())])
    return hashlib.md5(listed.encode(), usedforsecurity=False).hexdigest() + FOLDER_SUFFIX


def read_list(path: Path) -> dict[str, str]:
    """Return the MD5 of every file that one of DVC's lists names, by its path in the folder.

    Raises:
        ValueError: it is no such list, or names a file outside of the folder.
    """
    class Listed(BaseModel):
        model_config = ConfigDict(strict=True)

        md5: Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
        relpath: Plain

    content = read_json(path)
    try:
        files = [Listed.model_validate(entry) for entry in content]
    except (ValidationError, TypeError) as error:
        raise ValueError(f"{path}: expected DVC's list of a folder's files ({error})") from error
    return {file.relpath: file.md5 for file in files}


def difference(root: Path, output: Output, hash_of: Callable[[Path], str] = md5) -> str | None:
    """Say which file of an output that is in the workspace is not as recorded; None if it is, or is not there.

    Args:
        hash_of: from a file to its MD5.
    """
    files = output.files(root)
    if not files and not (root / output.path).exists():
        return None
    hashes = {name: hash_of(path) for name, path in files.items()}
    if not output.is_folder:
        found = hashes.get(output.path, "something that is no file")
        return None if found == output.md5 else f"{output.path}: expected MD5 {output.md5} ({LOCK}), found {found}"
    hashes = {name.removeprefix(f"{output.path}/"): found for name, found in hashes.items()}
    if md5_of_list(hashes) == output.md5:
        return None
    listing = repository_of(root) / ".dvc/cache/files/md5" / output.md5[:2] / output.md5[2:]
    if listing.is_file() and md5(listing) + FOLDER_SUFFIX == output.md5:
        recorded = read_list(listing)
        wrong = sorted(name for name in recorded.keys() | hashes.keys() if recorded.get(name) != hashes.get(name))
        return f"{output.path}/{wrong[0]}: not the file that {LOCK} records" + _others(len(wrong) - 1)
    return f"{output.path}: one of its {len(hashes)} files is not what {LOCK} records"


def _others(number: int) -> str:
    return f", and {number} more" if number > 0 else ""


def check_outputs(root: Path, lock: Lock, places: Iterable[str] = RESULTS) -> None:
    """Check that outputs which are in the workspace are those of its dvc.lock.

    Raises:
        ValueError: some are not; the message names a file of each.
    """
    wrong = [text for path, output in lock.outputs.items() if lies_in(path, places)
             and (text := difference(root, output))]
    if wrong:
        raise ValueError("\n".join([*wrong[:SHOWN], *[f"and {len(wrong) - SHOWN} more outputs"] * (len(wrong) > SHOWN),
                                    f"Nobody computed this, or {LOCK} is of another run. Bring the files back (git "
                                    f"checkout HEAD -- {LOCK} metrics; repro pull), or make them again: repro run"]))


# Results against the parameters.


def outdated(root: Path, lock: Lock, pipeline: Pipeline) -> dict[str, str]:
    """Return the outputs that are not what params.yaml asks for, by their paths, each with the reason: their stage had
    other parameters, or its inputs are not those that are here now, or are outdated themselves.

    Whether the sources have changed since is not asked: a result may be older than the code that shows it.

    Raises:
        ValueError: `params.yaml` or a record is not as expected.
    """
    params, reasons = pipeline.read(root / "params.yaml"), dict[str, str | None]()

    def reason(name: str) -> str | None:
        if name not in reasons:
            reasons[name] = None  # ends a circle, which only a lock that was made to deceive has
            stage = lock.stages[name]
            reasons[name] = _other_parameters(root, stage, pipeline, params) or next(
                filter(None, (_other_input(root, lock, dep, reason) for dep in stage.deps)), None)
        return reasons[name]

    return {path: why for path, output in lock.outputs.items() if (why := reason(output.stage))}


def _other_input(root: Path, lock: Lock, dep: Dependency, reason: Callable[[str], str | None]) -> str | None:
    maker = lock.maker(dep.path)
    if maker is None or maker.stage == SETTINGS:
        return None
    if maker.path == dep.path:
        now: str | None = maker.md5
    else:
        now = md5(root / dep.path) if (root / dep.path).is_file() else dep.md5
    return f"{dep.path} is another one since" if now != dep.md5 else reason(maker.stage)


def _other_parameters(root: Path, stage: LockedStage, pipeline: Pipeline, params: Any) -> str | None:
    """Name the sections of params.yaml that the records of a stage were not made with."""
    for output in stage.outs:
        for path in output.files(root).values():
            if path.suffix == ".json" and lies_in(output.path, ["records"]):
                content = read_json(path)
                made = Provenance.model_validate(content.get("provenance") if isinstance(content, dict) else None)
                if wrong := sections_since_changed(made, pipeline, params):
                    return f"made with other parameters: {', '.join(wrong)}"
    return None


def sections_since_changed(made: Provenance, pipeline: Pipeline, params: Any) -> list[str]:
    """Return the sections whose values are not those that a record was made with; a default that was added since then
    is the same as its being named.
    """
    try:
        cell = None if made.cell is None else pipeline.parse_cell(made.stage, made.cell)
        now = {name: pipeline.section_of(params, name, cell) for name in pipeline.stages[made.stage].sections}
    except (KeyError, ValueError):
        return [f"none for {made.stage} {made.cell or ''}".rstrip()]
    changed = [name for name, value in now.items() if name in made.parameters
               and not _same(value, made.parameters[name])]
    return [*["seed"] * (made.seed != params.seed), *changed]


def _same(value: Any, recorded: Any) -> bool:
    if not isinstance(value, BaseModel):
        return bool(value == recorded)
    try:
        return value == type(value).model_validate_json(json.dumps(recorded))
    except ValidationError:
        return False


def unfit_records(root: Path, pipeline: Pipeline) -> dict[Path, str]:
    """Return the records in a workspace that are not to be shown as results of its params.yaml, each with the reason:
    `outdated`, or dvc.lock does not know them. Without a dvc.lock there is nothing to ask.

    Raises:
        ValueError: as `check_outputs` and `outdated`.
    """
    if not (root / LOCK).exists():
        return {}
    lock = Lock.read(root / LOCK)
    check_outputs(root, lock)
    reasons, found = outdated(root, lock, pipeline), dict[Path, str]()
    for path in sorted((root / "records").rglob("*.json")):
        maker = lock.maker(path.relative_to(root).as_posix())
        why = reasons.get(maker.path) if maker else f"{LOCK} does not know it: its stage was stopped, or run by hand"
        if why:
            found[path] = why
    return found


def check_fit(root: Path, pipeline: Pipeline, paths: Iterable[Path]) -> None:
    """Check that files and folders in a workspace may be given to others as results of its params.yaml.

    Raises:
        ValueError: dvc.lock is missing or does not know one that is here, or records other bytes; or one is `outdated`.
    """
    lock, here = Lock.read(root / LOCK), [path.relative_to(root).as_posix() for path in paths if path.exists()]
    makers = {path: lock.maker(path) for path in here}
    if unknown := [path for path, maker in makers.items() if maker is None]:
        raise ValueError(f"{root / unknown[0]}: {LOCK} does not know it: its stage was stopped, or run by hand. Run "
                         "`repro run`")
    places = [maker.path for maker in makers.values() if maker]
    check_outputs(root, lock, places)
    reasons = outdated(root, lock, pipeline)
    if wrong := [f"{root / place}: {reasons[place]}" for place in places if place in reasons]:
        raise ValueError("\n".join([*wrong, "These are results of other parameters or data than params.yaml names. Run "
                                    "`repro run`, or bring params.yaml back"]))


def left_out(unfit: Mapping[Path, str]) -> str:
    """Return in words which records are left out and why; empty if none are."""
    reasons: dict[str, list[str]] = {}
    for path, why in unfit.items():
        reasons.setdefault(why, []).append("/".join(path.parts[path.parts.index("records"):]))
    return " ".join(f"Left out, {why}: {', '.join(files[:SHOWN])}{_others(len(files) - SHOWN)}."
                    for why, files in reasons.items()) + " `repro run` makes them again." * bool(unfit)
