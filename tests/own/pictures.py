"""Small sets of captioned pictures as users have them."""

import csv
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

Rows = Sequence[tuple[str, str]]


def draw(folder: Path, number: int, name: str) -> None:
    """Write a picture that no other number gives."""
    image = Image.new("RGB", (40, 32), (number % 256, 37 * number % 256, 101 * number % 256))
    for column in range(8):
        image.paste((number * (column + 1) * 13 % 256, column * 31, 90), (5 * column, number * (column + 3) % 28,
                                                                         5 * column + 4, 30))
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    image.save(folder / name)


def rows(num: int) -> list[tuple[str, str]]:
    return [(f"pictures/{number}.png", f"picture {number} of a {('dog', 'cat', 'boat')[number % 3]}")
            for number in range(num)]


def with_csv(folder: Path, num: int = 150) -> Path:
    """A folder of pictures and `captions.csv`."""
    found = rows(num)
    for number, (name, _) in enumerate(found):
        draw(folder, number, name)
    with (folder / "captions.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image", "caption"), *found])
    return folder


def with_metadata(folder: Path, splits: dict[str, int]) -> Path:
    """Hugging Face's imagefolder: a `metadata.jsonl` in a folder per split."""
    for split, num in splits.items():
        for number in range(num):
            draw(folder / split, number + 1000 * len(split), f"{number}.png")
        (folder / split / "metadata.jsonl").write_text("".join(
            json.dumps({"file_name": f"{number}.png", "text": f"{split} picture {number}"}) + "\n"
            for number in range(num)))
    return folder


def with_shards(folder: Path, num: int = 60) -> Path:
    """WebDataset: two shards, every picture beside a text of the same name."""
    loose = folder.parent / "loose"
    folder.mkdir(parents=True)
    for shard in range(2):
        with tarfile.open(folder / f"pictures-{shard}.tar", "w") as archive:
            for number in range(shard, num, 2):
                draw(loose, number, f"{number:04}.png")
                (loose / f"{number:04}.txt").write_text(f"picture number {number}\n")
                archive.add(loose / f"{number:04}.png", f"{number:04}.png")
                archive.add(loose / f"{number:04}.txt", f"{number:04}.txt")
    return folder
