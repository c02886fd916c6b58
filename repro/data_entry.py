"""Which dataset a command means: an entry `data` of this clone's parameters, or a published set."""

from pathlib import Path

from repblend.data.known import KNOWN, find_key
from repblend.data_params import Data, RealData
from repblend.params import read_yaml, validated
from repblend.sections import Section
from repblend.store import JSON

DEFAULT_FOLDER = Path("data")
_FETCHED = "`python -m repblend.ufc fetch --dataset {name} --data-path {folder}`, from the clone, brings it"
ARCHIVES_OF_CLASSES = {**dict.fromkeys(("cifar10", "cifar100", "tiny-imagenet"), _FETCHED),
                       "imagenet": "Download it from https://image-net.org, with an account, to {folder}: "
                                   "train/CLASS/ and val/CLASS/"}
"""Sets of the unimodal pipeline that lie on the user's disk, and how they get there."""


class _Entry(Section):
    data: Data


def how_to_bring(name: str, folder: str) -> str:
    """Return how the dataset of an entry `data` gets to its folder, in a sentence without its full stop."""
    if name in ARCHIVES_OF_CLASSES:
        return ARCHIVES_OF_CLASSES[name].format(name=name, folder=folder)
    if key := find_key(name):
        return f"`repro data fetch {key}` brings what may be brought, and says what has to be done by hand"
    return f"`repro data check {name}` says what belongs there"


def find_entry(root: Path, name: str, folder: Path | None = None) -> RealData:
    """Return the entry of a dataset in a folder.

    Args:
        name: that of a published dataset, of a profile with a workspace, or `data.name` of one's parameters. One's own
            parameters go before what is published.
        folder: where it lies, if not where the parameters say (a published one: `data/<name>`).

    Raises:
        ValueError: nothing is called so.
    """
    entry = _of_parameters(root, name) or _published(name)
    return entry.model_copy(update={"folder": str(folder.absolute())}) if folder else entry


def _of_parameters(root: Path, name: str) -> RealData | None:
    for file in (root / "params.yaml", *sorted(root.glob("profiles/*/params.yaml"))):
        workspace = file.parent.name if file.parent != root else None
        data = _entry_in(file, broken_is_an_error=workspace in (None, name))
        if name in (data.get("name"), workspace) and data.get("folder") is not None:
            if data.get("name") in ARCHIVES_OF_CLASSES:
                raise ValueError(f"{file}: {data['name']} has single images and no captions, so there is nothing to "
                                 f"check: stage `prepare` reads it. {how_to_bring(data['name'], data['folder'])}")
            return validated(_Entry, {"data": data}, str(file)).data
    return None


def _entry_in(file: Path, broken_is_an_error: bool) -> JSON:
    """Return the entry `data` of a parameters file; an empty one if there is none."""
    try:
        content = read_yaml(file) if file.is_file() else {}
    except ValueError:
        if broken_is_an_error:
            raise
        return {}  # another profile's file, which its own commands complain of
    data = content.get("data") if isinstance(content, dict) else None
    return data if isinstance(data, dict) else {}


def _published(name: str) -> RealData:
    key = find_key(name)
    if key is None:
        raise ValueError(f"{name}: no parameters here name such a dataset, and none is published under this name; "
                         f"expected {', '.join(KNOWN)}, or data.name of params.yaml, with data.folder")
    return KNOWN[key].data(str(DEFAULT_FOLDER / key))
