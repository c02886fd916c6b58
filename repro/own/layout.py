"""Which files of a folder hold its captions, and in which form: what an entry `data` of `params.yaml` has to say.

Taken are one file of captions (CSV, JSON or JSON lines), a file per split (the BLIP/Karpathy layout, or the
`metadata.jsonl` in the folders of Hugging Face's `imagefolder`), and WebDataset shards, whose captions are written into
one file first.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from repblend.archives import tar_members
from repblend.data.karpathy import SPLITS
from repblend.data.rows import raw_rows
from repblend.files import LIMITS, named
from repblend.params.data import SplitName
from repblend.store import JSON, write_bytes

SPLIT_OF: dict[str, SplitName] = {"train": "train", "training": "train", "val": "val", "valid": "val", "dev": "val",
                                  "validation": "val", "test": "test", "testing": "test"}
"""How folders, shards and files call a split."""
METADATA = ("metadata.jsonl", "metadata.csv")
USUAL = ("captions.csv", "captions.jsonl", "captions.json", *METADATA)
FORMS = (".csv", ".json", ".jsonl")
NOT_CAPTIONS = ("manifest.json", "fetched.json", "dataset_info.json", "dataset_infos.json")
WRITTEN = "captions.jsonl"
"""In the data set's folder: captions that lie in shards, or in files of two splits of three."""
IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".ppm")
EXPECTED = ("captions.csv with the columns image and caption, captions.json, captions.jsonl or metadata.jsonl; a "
            "metadata.jsonl in folders train, validation and test; or tar shards with a .txt or .json beside each "
            "image")


@dataclass(frozen=True)
class Layout:
    """A folder's files of captions."""

    entry: JSON
    """Fields of `data`: `captions` or `annotations`, and `shards`."""
    names_splits: bool
    """Whether files or rows say which split an image belongs to."""
    notes: list[str] = field(default_factory=list)
    """What was written."""


def find_layout(folder: Path, captions: str | None) -> Layout:
    """Look which of the forms a folder has.

    Args:
        captions: the file of captions in it, where the user names it.

    Raises:
        ValueError: it has none of them, or several files that could be meant.
        OSError: captions have to be written into the folder, and cannot be.
    """
    if captions is None and (split_files := _files_of_splits(folder)):
        if set(split_files) == set(SPLITS):
            entry = {"annotations": {split: split_files[split] for split in SPLITS}}
            return Layout(entry | _shards(folder, split_files["train"]), names_splits=True)
        if len(split_files) > 1 or "train" not in split_files:
            return _collected(folder, split_files)
        captions = split_files["train"]  # as `load_dataset` calls the split of a set that has none
    captions = captions or _only_file(folder)
    if captions is None:
        return _from_shards(folder)
    return Layout({"captions": captions} | _shards(folder, captions), _names_splits(folder, captions))


def _files_of_splits(folder: Path) -> dict[SplitName, str]:
    """Split -> its file: that of a folder of its name, or of the BLIP/Karpathy layout."""
    found: dict[SplitName, str] = {}
    for inside in sorted(path for path in folder.iterdir() if path.is_dir() and path.name.lower() in SPLIT_OF):
        if file := next((inside / name for name in METADATA if (inside / name).is_file()), None):
            split = SPLIT_OF[inside.name.lower()]
            if split in found:
                raise ValueError(f"{folder}: {found[split]} and {file.relative_to(folder)} are both of split {split}. "
                                 "Take one out")
            found[split] = file.relative_to(folder).as_posix()
    if not found:
        for file in sorted(folder.glob("*_train.json")):
            files: dict[SplitName, str] = {split: file.name.replace("_train.", f"_{split}.") for split in SPLITS}
            if all((folder / name).is_file() for name in files.values()):
                return files
    return found


def _only_file(folder: Path) -> str | None:
    if usual := [name for name in USUAL if (folder / name).is_file()]:
        if len(usual) > 1:
            raise ValueError(f"{folder}: has {' and '.join(usual)}. Say with --captions which holds the captions")
        return usual[0]
    found = [path.name for path in sorted(folder.iterdir())
             if path.suffix.lower() in FORMS and path.name not in NOT_CAPTIONS and path.is_file()]
    if len(found) > 1:
        raise ValueError(f"{folder}: has {', '.join(found[:5])}{' and more' * (len(found) > 5)}. Say with --captions "
                         "which holds the captions")
    return found[0] if found else None


def _shards(folder: Path, captions: str) -> JSON:
    """Return the pattern of the shards that images lie in; nothing if the first image is a file."""
    row = next((row for _, row in raw_rows(folder / captions, folder)), None)
    name = row.get("image") if isinstance(row, dict) else None
    if not isinstance(name, str) or (folder / name).is_file() or not (shards := _tars(folder)):
        return {}
    return {"shards": _pattern(folder, shards)}


def _tars(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.tar")) or sorted(folder.glob("*/*.tar"))


def _pattern(folder: Path, shards: list[Path]) -> str:
    above = {shard.parent.relative_to(folder).as_posix() for shard in shards}
    return str(PurePosixPath(above.pop() if len(above) == 1 else "*", "*.tar"))


def _names_splits(folder: Path, captions: str) -> bool:
    return any(isinstance(row, dict) and row.get("split") not in (None, "")
               for _, row in raw_rows(folder / captions, folder))


# Captions that lie elsewhere than in one file or three: they are written into one.


def _collected(folder: Path, files: Mapping[SplitName, str]) -> Layout:
    """Write the rows of one or two splits into one file. Which split they come from is forgotten: the third is missing,
    and a stable hash makes all three.
    """
    rows = [row for name in files.values() for _, row in raw_rows(folder / name, folder)]
    _write(folder, rows)
    return Layout({"captions": WRITTEN} | _shards(folder, WRITTEN), names_splits=False, notes=[
        f"{folder / WRITTEN}: written from {' and '.join(files.values())}. No file is there for "
        f"{' and '.join(split for split in SPLITS if split not in files)}, so all images are split anew"])


def _from_shards(folder: Path) -> Layout:
    if not (shards := _tars(folder)):
        raise ValueError(f"{folder}: no file of captions. Expected {EXPECTED}")
    rows = [row for shard in shards for row in _rows_of_shard(folder, shard)]
    if not rows:
        raise ValueError(f"{folder}: no captions lie in {len(shards)} shards, nor beside them. Expected {EXPECTED}")
    splits = [_split_of(shard) for shard in shards]
    names_splits = set(SPLITS) == set(splits)
    _write(folder, rows if names_splits else [{**row, "split": None} for row in rows])
    return Layout({"captions": WRITTEN, "shards": _pattern(folder, shards)}, names_splits, [
        f"{folder / WRITTEN}: written from {len(shards)} shards"])


def _rows_of_shard(folder: Path, shard: Path) -> Iterator[JSON]:
    """Yield a row for every image of a shard that has a `.txt`, or a `.json` with a caption, of the same name."""
    images: dict[str, str] = {}
    captions: dict[str, Any] = {}
    for _, member in tar_members(shard, folder):
        key, suffix = str(PurePosixPath(member.name).with_suffix("")), PurePosixPath(member.name).suffix.lower()
        if suffix in IMAGES:
            images[key] = member.name
        elif suffix in (".txt", ".json") and key not in captions and member.num_bytes <= LIMITS["attribution"]:
            with named(f"{shard}, member {member.name}", "a caption in UTF-8", "Correct it there"):
                text = member.read().decode("utf-8-sig")
                captions[key] = text.strip() if suffix == ".txt" else _caption_in(json.loads(text))
    for key, name in images.items():
        if captions.get(key):
            yield {"image": name, "caption": captions[key], "split": _split_of(shard)}


def _caption_in(content: Any) -> Any:
    return next((content[key] for key in ("caption", "captions", "text") if content.get(key)), None)


def _split_of(shard: Path) -> SplitName | None:
    """By the first word of the shard's name, `train-000.tar`, or of its folder's."""
    first = (re.split(r"[^a-z]", name.lower(), maxsplit=1)[0] for name in (shard.stem, shard.parent.name))
    return next((SPLIT_OF[word] for word in first if word in SPLIT_OF), None)


def _write(folder: Path, rows: list[Any]) -> None:
    write_bytes(folder / WRITTEN, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
