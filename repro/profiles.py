"""Profiles: what is run, at which scale, and in which workspace.

`quickstart` and `openmoji` are a part and the whole of the pipeline in the clone's own folder. Every other profile is
declared in `conf/profiles` and has a workspace of its own, `profiles/<name>`: `params.yaml`, composed once and the
user's from then on, `dvc.yaml`, made from the clone's, and all outputs. A suite stands for several profiles.
"""

import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from repblend.params import read_yaml, validated
from repblend.store import JSON, write_bytes
from repro.compose import compose, differences, shipped
from repro.kinds import KINDS, MULTIMODAL, Brought, Kind
from repro.pipeline import pipeline_for, way_to, yaml_text

FOLDER = Path("profiles")
QUICKSTART, WHOLE = "quickstart", "openmoji"
SUITES = {"paper": ("flickr30k", "coco", "cc3m")}
"""Suite -> its profiles, run one after the other."""
SHOWN = 5
"""Edits that are told before every run."""
MADE = "# Made from "
PIPELINE = MADE + "{template} and params.yaml by `repro`, again before every run: what you edit here is lost.\n"
PARAMS = "# Composed from conf/profiles/{name}.yaml, which says where the values come from. Yours to edit.\n"


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

    def in_clone(self, root: Path, other: Path) -> "Profile":
        """Return this profile of the clone at `root` as it is in another clone."""
        return replace(self, workspace=other / self.workspace.relative_to(root))

    def results(self) -> list[str]:
        """Return the DVC stages that write a part's results; what they need is not named. None are all stages, the
        report among them.

        Raises:
            ValueError: `params.yaml` is not as expected.
        """
        if self.name != QUICKSTART:
            return []
        cells = self.params().quickstart
        return ["bounds", *(f"{stage}@{method}-{budget}" for stage, methods in (
            ("evaluate-coreset", cells.coresets), ("evaluate-distilled", cells.distilled))
            for method in methods for budget in cells.budgets)]


def names(root: Path) -> list[str]:
    """Return the names of all profiles and suites of a clone."""
    return [QUICKSTART, WHOLE, *shipped(root), *SUITES]


def profile_of(root: Path, name: str) -> Profile:
    """Return the one profile of that name, as `profiles_of`; raises `ValueError` for a suite as well."""
    if name in SUITES:
        raise ValueError(f"--profile {name}: expected one profile, this is {len(SUITES[name])}: "
                         f"{', '.join(SUITES[name])}")
    return profiles_of(root, name)[0]


def profiles_of(root: Path, name: str) -> list[Profile]:
    """Return the profile of that name, or those of the suite, with their workspaces as they have to be.

    A workspace that is not there is made; an edited `params.yaml` is kept, and what is edited is said. Other workspaces
    that DVC could not load are closed.

    Raises:
        ValueError: there is no such profile, or its parameters are not as expected.
    """
    wanted = members(root, name)
    _close_broken(root, wanted)
    return [_open(root, member) for member in wanted]


def members(root: Path, name: str) -> Sequence[str]:
    """Return the profiles that a name stands for; raises `ValueError` if there is none of that name."""
    if name not in names(root):
        raise ValueError(f"profile {name!r}: expected one of {', '.join(names(root))}. Declare another in "
                         "conf/profiles")
    return SUITES.get(name, (name,))


def is_in_the_clones_folder(name: str) -> bool:
    """Whether a profile's workspace is the clone itself, whose `params.yaml` nothing composes."""
    return name in (QUICKSTART, WHOLE)


def _open(root: Path, name: str) -> Profile:
    if is_in_the_clones_folder(name):
        return Profile(name, KINDS[MULTIMODAL], root)
    kind, composed = compose(root, name)
    profile = Profile(name, kind, root / FOLDER / name)
    if not write_params(profile, composed):
        _tell(f"{FOLDER / name / 'params.yaml'}", edits(profile, composed), name)
    write_pipeline(root, profile)
    return profile


def _close_broken(root: Path, wanted: Collection[str]) -> None:
    """Remove the `dvc.yaml` that was made for other workspaces whose parameters are not as expected: DVC loads every
    one below the clone's folder, whatever it is asked for, and stops at the first that it cannot resolve.
    """
    for pipeline in sorted((root / FOLDER).glob("*/dvc.yaml")):
        name, params = pipeline.parent.name, FOLDER / pipeline.parent.name / "params.yaml"
        if name in wanted or _is_of_some_kind(root / params) or not pipeline.read_text("utf-8").startswith(MADE):
            continue
        pipeline.unlink()
        print(f"{params} is missing or not as expected, so profile {name} is left out: its dvc.yaml was removed, "
              f"which no DVC command here could pass. `repro profile {name}` says what to mend, and then writes it "
              "again.", file=sys.stderr)


def _is_of_some_kind(params: Path) -> bool:
    def fits(kind: Kind) -> bool:
        try:
            validated(kind.params, read_yaml(params), str(params))
        except ValueError:
            return False
        return True

    return any(map(fits, KINDS.values()))


def _tell(file: str, lines: Sequence[str], name: str) -> None:
    for line in lines[:SHOWN]:
        print(f"{file}: {line}")
    if len(lines) > SHOWN:
        print(f"{file}: and {len(lines) - SHOWN} more; `repro profile {name}` lists them")
    sys.stdout.flush()


def write_params(profile: Profile, composed: JSON) -> bool:
    """Write a workspace's `params.yaml` unless it is there; return whether it was written."""
    path = profile.workspace / "params.yaml"
    if path.exists():
        return False
    write_bytes(path, (PARAMS.format(name=profile.name) + yaml_text(composed)).encode())
    return True


def edits(profile: Profile, composed: JSON) -> list[str]:
    """Return what a workspace's `params.yaml` has otherwise than it was composed; raises `ValueError` if it is no YAML
    mapping.
    """
    found = read_yaml(profile.workspace / "params.yaml")
    if not isinstance(found, dict):
        raise ValueError(f"{profile.workspace / 'params.yaml'}: expected a mapping. Remove it to compose it anew")
    return differences(found, composed)


def write_pipeline(root: Path, profile: Profile) -> None:
    """Write a workspace's `dvc.yaml`: the pipeline of its kind, and the user's data that its parameters name.

    Raises:
        ValueError: `params.yaml` is not as expected.
    """
    kind = profile.kind
    pipeline = pipeline_for(root / kind.template, way_to(root, profile.workspace), profile.brought().dependencies)
    text = PIPELINE.format(template=kind.template) + yaml_text(pipeline)
    write_bytes(profile.workspace / "dvc.yaml", text.encode())
