"""Write the dvc.lock that DVC would have written for files that a test made."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from repblend.runtime.locked import LOCK, md5, md5_of_list
from repro.pipeline import yaml_text


def write_lock(root: Path, outs: Mapping[str, Sequence[str]], deps: Mapping[str, Sequence[str]] | None = None) -> None:
    """Record the files and folders of a workspace as they are now.

    Args:
        outs: stage -> paths of its outputs.
        deps: stage -> paths of what it reads.
    """
    def entries(paths: Sequence[str]) -> list[dict[str, str]]:
        return [{"path": path, "hash": "md5", "md5": name_of(root / path)} for path in paths]

    stages = {stage: {"cmd": stage, "deps": entries((deps or {}).get(stage, ())), "outs": entries(paths)}
              for stage, paths in outs.items()}
    (root / LOCK).write_text(yaml_text({"schema": "2.0", "stages": stages}))


def name_of(path: Path) -> str:
    """Return DVC's name of a file's or a folder's content."""
    if path.is_file():
        return md5(path)
    return md5_of_list({file.relative_to(path).as_posix(): md5(file) for file in path.rglob("*") if file.is_file()})


def lock_everything(root: Path) -> None:
    """Record each output of a multimodal workspace as that of a stage of its own."""
    paths = [path for path in ("data/prepared", "features", "experts", "encoder-experts") if (root / path).exists()]
    for folder in ("sets", "records", "metrics"):
        paths += sorted(path.relative_to(root).as_posix() for path in (root / folder).rglob("*") if path.is_file())
    write_lock(root, {path: [path] for path in paths})
