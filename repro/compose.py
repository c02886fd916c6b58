"""What a profile says its parameters are: the files in `conf/`, composed by Hydra into what `params.yaml` holds.

Only this side of the project knows Hydra. The stages read the `params.yaml` that came out, with the strict types of
their own.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from repblend.params import validated
from repblend.store import JSON
from repro.kinds import KINDS, MULTIMODAL, Kind

FOLDER = Path("conf")
PROFILES = "profiles"


def shipped(root: Path) -> list[str]:
    """Return the names of the profiles that `conf/profiles` of a clone declares."""
    return sorted(path.stem for path in (root / FOLDER / PROFILES).glob("*.yaml"))


def compose(root: Path, name: str, overrides: Sequence[str] = ()) -> tuple[Kind, JSON]:
    """Return the kind of a profile and the content of its `params.yaml`.

    Args:
        name: one of `shipped`.
        overrides: `KEY=VALUE` as Hydra reads them, for example `distill.common.iterations=100`.

    Raises:
        ValueError: an override names no key, or what comes out is not what the kind's parameters have to be.
    """
    content = _composed(root / FOLDER, f"{PROFILES}/{name}", overrides)
    kind = content.pop("kind", MULTIMODAL)
    if kind not in KINDS:
        raise ValueError(f"{FOLDER / PROFILES / name}.yaml: kind: found {kind!r}, expected one of {', '.join(KINDS)}")
    validated(KINDS[kind].params, content, f"profile {name}, composed from {FOLDER}/")
    return KINDS[kind], content


def _composed(folder: Path, name: str, overrides: Sequence[str]) -> dict[str, Any]:
    from hydra import compose as hydra_compose  # slow to import, and most commands need none of it
    from hydra import initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    try:
        with initialize_config_dir(str(folder.absolute()), version_base="1.3"):
            return OmegaConf.to_container(hydra_compose(name, [*overrides]), resolve=True, throw_on_missing=True)
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        raise ValueError(f"profile {name.removeprefix(f'{PROFILES}/')}: {error}") from error


def differences(found: Mapping[str, Any], composed: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return one line for every key whose value in `params.yaml` is not what was composed."""
    lines = []
    for key in [*composed, *(key for key in found if key not in composed)]:
        here, there = found.get(key, ABSENT), composed.get(key, ABSENT)
        if isinstance(here, Mapping) and isinstance(there, Mapping):
            lines += differences(here, there, f"{prefix}{key}.")
        elif here != there:
            lines.append(f"{prefix}{key}: {here}, in the profile {there}")
    return lines


class _Absent:
    def __str__(self) -> str:
        return "absent"


ABSENT = _Absent()
"""The value of a key that is not there."""
