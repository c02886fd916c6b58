"""What a profile needs that is not here yet: checkpoints of the model hub, and the user's copy of the dataset."""

from pathlib import Path

from repblend.encoders.hub import is_here
from repblend.encoders.pins import Checkpoint, checkpoint_of
from repblend.params import Params
from repblend.sections import Section
from repro.data_entry import how_to_bring
from repro.plan_table import UNKNOWN, size


def missing(params: Section, root: Path) -> list[str]:
    """Return a line for each thing that has to be fetched, with its size and the command.

    Args:
        root: the clone's folder, where both lie.

    Raises:
        ValueError: an encoder's name leads nowhere.
    """
    return [*(_checkpoints(params, root) if isinstance(params, Params) else []), *_dataset(params, root)]


def _checkpoints(params: Params, root: Path) -> list[str]:
    found = {name: checkpoint_of(name) for name in params.encoders}
    absent = {name: checkpoint for name, checkpoint in found.items() if checkpoint and not is_here(checkpoint, root)}
    return [f"checkpoint {name}: {_size_of(checkpoint)}, `repro checkpoints fetch {name}`"
            for name, checkpoint in absent.items()]


def _size_of(checkpoint: Checkpoint) -> str:
    return UNKNOWN if checkpoint.num_bytes is None else size(checkpoint.num_bytes)


def _dataset(params: Params, root: Path) -> list[str]:
    folder = getattr(params.data, "folder", None)
    if folder is None or (root / folder / "manifest.json").is_file():
        return []
    if not isinstance(params, Params):  # no manifest is ever written for it
        absent = not (root / folder).is_dir()
        return [f"dataset {params.data.name}: no folder {root / folder}. "
                f"{how_to_bring(params.data.name, folder)}"] if absent else []
    return [f"dataset {params.data.name}: {root / folder} has no manifest.json. "
            f"{how_to_bring(params.data.name, folder)}"]
