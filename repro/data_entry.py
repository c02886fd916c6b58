"""Which dataset a command means: an entry `data` of this clone's parameters, or a published set."""

from pathlib import Path

from repblend.data.known import KNOWN, find_key
from repblend.data_params import Data, RealData
from repblend.params import read_yaml, validated
from repblend.sections import Section

DEFAULT_FOLDER = Path("data")


class _Entry(Section):
    data: Data


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
        content = read_yaml(file) if file.is_file() else {}
        data = content.get("data", {}) if isinstance(content, dict) else {}
        called = {data.get("name"), file.parent.name if file.parent != root else None}
        if name in called and "folder" in data:
            return validated(_Entry, {"data": data}, str(file)).data
    return None


def _published(name: str) -> RealData:
    key = find_key(name)
    if key is None:
        raise ValueError(f"{name}: no parameters here name such a dataset, and none is published under this name; "
                         f"expected {', '.join(KNOWN)}, or data.name of params.yaml, with data.folder")
    return KNOWN[key].data(str(DEFAULT_FOLDER / key))
