"""Profiles: what is run, at which scale, and in which workspace.

A profile is a file of `conf/profiles`, composed by Hydra from the files that it names; only this module knows Hydra. Or
it is a workspace that `repro new` has made for a data set, which has nothing but its `params.yaml`.
Its workspace is `profiles/NAME`, that of `quickstart` the clone's root. There lie `params.yaml`, composed once and the
user's from then on, `dvc.yaml`, made from the template of the profile's kind before every run, and all outputs. A suite
stands for several profiles. `repro profile` lists, writes and compares them.
"""

import itertools
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from repblend.params.reading import read_yaml, validated
from repblend.store import JSON, write_bytes
from repro import QUICKSTART
from repro.pipeline import KINDS, MULTIMODAL, Brought, Kind, pipeline_for, way_to, yaml_text
from repro.workspace import MARKER, find_root

CONF, DECLARED = Path("conf"), "profiles"
"""Where profiles and what they are composed from lie in a clone, and the folder of the profiles there."""
FOLDER = Path("profiles")
"""Of all workspaces but the root's."""
SUITES = {"paper": ("flickr30k", "coco", "cc3m")}
"""Suite -> its profiles, run one after the other."""
SHOWN = 5
"""Edits of params.yaml that every run lists."""
MADE = "# Made from "
PIPELINE = MADE + "{template} and params.yaml by `repro`, again before every run: what you edit here is lost.\n"
PARAMS = "# Composed from conf/profiles/{name}.yaml, which says where the values come from. Yours to edit.\n"
ABSENT = "absent"


@dataclass(frozen=True)
class Profile:
    """A profile and its workspace."""

    name: str
    kind: Kind
    workspace: Path

    def params(self) -> Any:
        """Return `params.yaml` as the class of the profile's kind; raises `ValueError` if it is not as expected."""
        path = self.workspace / "params.yaml"
        return validated(self.kind.params, read_yaml(path), str(path))

    def brought(self) -> Brought:
        """Return what the user brings for the profile; raises `ValueError` as `params`."""
        return self.kind.brought(self.params())

    def parts(self, stage: str) -> int:
        """Return how many parts of a stage's work (named without its cell) can be done apart; 0 if it has none."""
        declared = self.kind.pipeline.stages.get(stage)
        return declared.parts(self.params()) if declared else 0

    def in_clone(self, root: Path, other: Path) -> "Profile":
        """Return this profile of the clone at `root` as it is in another clone."""
        return replace(self, workspace=other / self.workspace.relative_to(root))


def names(root: Path) -> list[str]:
    """Return the names of all profiles and suites of a clone, the default first."""
    declared = sorted(path.stem for path in (root / CONF / DECLARED).glob("*.yaml"))
    own = sorted(path.parent.name for path in (root / FOLDER).glob("*/params.yaml"))
    return list(dict.fromkeys([QUICKSTART, *declared, *SUITES, *own]))


def is_declared(root: Path, name: str) -> bool:
    """Whether a profile is composed from `conf/profiles`; others were made by `repro new`, and have no more than their
    `params.yaml`.
    """
    return (root / CONF / DECLARED / f"{name}.yaml").is_file()


def members(root: Path, name: str) -> Sequence[str]:
    """Return the profiles that a name stands for; raises `ValueError` if there is none of that name."""
    if name not in names(root):
        raise ValueError(f"profile {name!r}: expected one of {', '.join(names(root))}. Declare another in "
                         "conf/profiles, or make one for a data set of yours with `repro new`")
    return SUITES.get(name, (name,))


def workspace_of(root: Path, name: str) -> Path:
    """Return the folder of the one profile of that name, whether it is there or not.

    Raises:
        ValueError: there is no such profile, or the name is that of a suite.
    """
    if len(members(root, name)) > 1:
        raise ValueError(f"--profile {name}: expected one profile, this is {len(SUITES[name])}: "
                         f"{', '.join(SUITES[name])}")
    return root if name == QUICKSTART else root / FOLDER / name


def profile_of(root: Path, name: str) -> Profile:
    """Return the one profile of that name, with its workspace made or brought up to date: `params.yaml` if it is not
    there, else a line for each of its edits; and `dvc.yaml`.

    Raises:
        ValueError: as `workspace_of`, or the profile's parameters are not as expected.
    """
    workspace = workspace_of(root, name)
    if not is_declared(root, name):
        profile = Profile(name, KINDS[MULTIMODAL], workspace)
        write_pipeline(root, profile)
        return profile
    kind, composed = compose(root, name)
    profile = Profile(name, kind, workspace)
    if not write_params(profile, composed):
        lines, file = edits(profile, composed), (workspace / "params.yaml").relative_to(root)
        more = [f"and {len(lines) - SHOWN} more; `repro profile {name}` lists them"] if len(lines) > SHOWN else []
        for line in [*lines[:SHOWN], *more]:
            print(f"{file}: {line}", flush=True)
    write_pipeline(root, profile)
    return profile


def profiles_of(root: Path, name: str) -> list[Profile]:
    """Return the profile of that name, or those of the suite, as `profile_of`."""
    return [profile_of(root, member) for member in members(root, name)]


def opened(root: Path, name: str) -> list[Profile]:
    """Return the profiles of a name, or of the suite, whose workspaces are there, as they are: nothing is composed or
    written. Each is of the kind whose sections its parameters have.

    Raises:
        ValueError: there is no such profile, or a `params.yaml` is no YAML mapping.
    """
    found = []
    for member in members(root, name):
        path = workspace_of(root, member) / "params.yaml"
        if path.is_file():
            content = read_yaml(path)
            if not isinstance(content, dict):
                raise ValueError(f"{path}: expected a mapping. Bring it back with `git restore {path}`")
            kind = next((each for each in KINDS.values() if content.keys() <= each.params.model_fields.keys()),
                        KINDS[MULTIMODAL])
            found.append(Profile(member, kind, path.parent))
    return found


def compose(root: Path, name: str, changes: Sequence[str] = ()) -> tuple[Kind, JSON]:
    """Return the kind of a profile and the content of its `params.yaml`.

    Args:
        changes: `KEY=VALUE` as Hydra reads them, for example `distill.common.iterations=100`.

    Raises:
        ValueError: the profile is not declared, a change names no key, or what comes out is not what the kind's
            parameters have to be.
    """
    from hydra import compose as hydra_compose  # slow to import, and half of the commands need none of it
    from hydra import initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    try:
        with initialize_config_dir(str((root / CONF).absolute()), version_base="1.3"):
            composed = hydra_compose(f"{DECLARED}/{name}", [*map(as_typed, changes)])
        content: Any = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        raise ValueError(f"profile {name}: {error}") from error
    kind = content.pop("kind", MULTIMODAL)
    if kind not in KINDS:
        raise ValueError(f"{CONF / DECLARED / name}.yaml: kind: found {kind!r}, expected one of {', '.join(KINDS)}")
    validated(KINDS[kind].params, content, f"profile {name}, composed from {CONF}/")
    return KINDS[kind], content


def as_typed(change: str) -> str:
    """Return `KEY=VALUE` for Hydra so that a text is what was typed, whatever signs it has: only numbers, `true`,
    `false`, `null`, and what stands in quotes or brackets is for Hydra to read.
    """
    key, equals, value = change.partition("=")
    if not key.strip("+~ "):
        raise ValueError(f"{change!r}: expected KEY=VALUE, for example seed=1")
    if not equals or re.fullmatch(r"""true|false|null|[+-]?[0-9.]+(e[+-]?[0-9]+)?|".*"|'.*'|\[.*\]|\{.*\}|""", value,
                                  re.IGNORECASE | re.DOTALL):
        return change
    quoted = re.sub(r"(\\+)('|$)", r"\1\1\2", value)  # Hydra halves backslashes only before a quote and at the end
    return f"{key}='" + quoted.replace("'", "\\'").replace("${", "\\${") + "'"


def write_params(profile: Profile, composed: JSON) -> bool:
    """Write a workspace's `params.yaml` unless it is there; return whether it was written."""
    path = profile.workspace / "params.yaml"
    if path.exists():
        return False
    write_bytes(path, (PARAMS.format(name=profile.name) + yaml_text(composed)).encode())
    return True


def edits(profile: Profile, composed: JSON) -> list[str]:
    """Return where a workspace's `params.yaml` differs from what the profile composes, a line for each key; raises
    `ValueError` if it is no YAML mapping.
    """
    found = read_yaml(profile.workspace / "params.yaml")
    if not isinstance(found, dict):
        raise ValueError(f"{profile.workspace / 'params.yaml'}: expected a mapping. Remove it to compose it anew")
    return differences(found, composed)


def differences(found: Mapping[str, Any], composed: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return a line for every key whose value in `params.yaml` is not what was composed."""
    lines = []
    for key in [*composed, *(key for key in found if key not in composed)]:
        here, there = found.get(key, ABSENT), composed.get(key, ABSENT)
        if isinstance(here, Mapping) and isinstance(there, Mapping):
            lines += differences(here, there, f"{prefix}{key}.")
        elif here != there:
            lines.append(f"{prefix}{key}: {here}, in the profile {there}")
    return lines


def write_pipeline(root: Path, profile: Profile) -> None:
    """Write a workspace's `dvc.yaml`: the pipeline of its kind, with the cells and the user's data that its parameters
    name. One that does not begin as those written here is the user's own, and stays.

    Raises:
        ValueError: `params.yaml` is not as expected.
    """
    path = profile.workspace / MARKER
    before = path.read_text("utf-8") if path.exists() else MADE
    if before.startswith(MADE) and (text := pipeline_text(root, profile)) != before:
        write_bytes(path, text.encode())


def pipeline_text(root: Path, profile: Profile) -> str:
    """Return what a workspace's `dvc.yaml` has to be; raises as `write_pipeline`."""
    template, workspace = profile.kind.template, profile.workspace
    pipeline = pipeline_for(root / template, read_yaml(workspace / "params.yaml"), way_to(root, workspace),
                            profile.brought().dependencies)
    return PIPELINE.format(template=template) + yaml_text(pipeline)


def main(name: str | None, changes: Sequence[str]) -> int:
    """`repro profile`: write a profile's workspace, or each of a suite; without a name list all. Return the exit code.

    Args:
        changes: `KEY=VALUE`, applied to what the profile composes.
    """
    try:
        root = find_root()
        if name is None:
            print("\n".join(f"{each:<18} {_meaning(root, each)}" for each in names(root)))
            return 0
        return max(_write(root, member, changes) for member in members(root, name))
    except (ValueError, OSError) as error:
        print(f"repro profile: {error}", file=sys.stderr)
        return 1


def _meaning(root: Path, name: str) -> str:
    """The first sentence of the comment at the top of a profile's file, or the profiles of a suite."""
    if name in SUITES:
        return f"{', '.join(SUITES[name])}, one after the other"
    declared = is_declared(root, name)
    path = root / CONF / DECLARED / f"{name}.yaml" if declared else workspace_of(root, name) / "params.yaml"
    lines = path.read_text("utf-8").splitlines()[1 if declared else 0:]
    comment = itertools.takewhile(lambda line: line.startswith("# "), lines)
    return re.split(r"[.;] ", " ".join(line[2:] for line in comment), maxsplit=1)[0] or str(workspace_of(root, name))


def _write(root: Path, name: str, changes: Sequence[str]) -> int:
    """Write one workspace. Parameters that are there stay: changes that would alter them are refused."""
    if not is_declared(root, name):
        raise ValueError(f"{name}: was made by `repro new`, and no profile of conf/profiles stands behind it. Edit "
                         f"{(workspace_of(root, name) / 'params.yaml').relative_to(root)}")
    kind, composed = compose(root, name, changes)
    profile = Profile(name, kind, workspace_of(root, name))
    file = (profile.workspace / "params.yaml").relative_to(root)
    written = write_params(profile, composed)
    write_pipeline(root, profile)
    if written:
        print(f"{file}: written. Edit it, then `repro run --profile {name}`")
        return 0
    different = edits(profile, composed)
    for line in different:
        print(f"{file}: {line}")
    print(f"{file}: {'left as it is; remove it to compose it anew' if different else 'as the profile composes it'}")
    return 1 if different and changes else 0
