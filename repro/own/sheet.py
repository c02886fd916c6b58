"""`repro data show`: one HTML page of a data set: pictures with their captions, and what one would not want to miss.

The page holds everything itself and runs nothing. Captions and names are other people's words: every value is escaped,
and pictures are decoded, made small and encoded anew. Near-duplicates are found by the difference hash of Krawetz (64
signs of neighbouring grey levels, 9 x 8), of which seven may differ, and by their colours (8 x 8).
"""

import base64
import hashlib
import io
import statistics
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from repblend.data.image_index import NUM_THREADS, index_images
from repblend.data.image_store import FolderStore, ImageStore, ShardStore, checked_images, open_image
from repblend.data.karpathy import SPLITS
from repblend.data.source import Source, recorded_images, source_of
from repblend.escape import html_environment
from repblend.params.data import SplitName
from repblend.progress import progress
from repblend.store import write_bytes
from repro import QUICKSTART
from repro.fetch.datasets import JOURNALS, find_entry, misfit
from repro.profiles import workspace_of
from repro.workspace import find_root

Made = TypeVar("Made")
PAGE = Path("paper/data.html")
"""In the workspace of the profile that has the data set."""
TEMPLATE = Path(__file__).with_name("sheet.html.j2")
PICTURES = 60
"""Of each split that are shown."""
MOST_IMAGES = 20_000
"""That are looked at: of a larger set a share that follows from the images' names."""
THUMBNAIL, QUALITY = 160, 80
"""Pixels of its longer side, and of JPEG."""
HASH_BITS, BANDS, MOST_DIFFERENT_BITS, MOST_DIFFERENT_COLOUR = 64, 8, 7, 40
"""Two hashes that differ in seven bits agree in one band of eight. Colours differ in levels of 255, where most."""
WINDOW = 64
"""Of images whose hashes agree in a band, each is compared with so many next ones in order of brightness."""
GROUPS, MEMBERS, PROBLEMS, REPEATS = 40, 6, 200, 40
"""Shown at most: groups of near-duplicates, images of a group, things to mend, captions of several images."""


@dataclass(frozen=True)
class Look:
    """What is remembered of an image that was looked at."""

    width: int
    height: int
    bits: int
    """Difference hash."""
    colours: np.ndarray
    """(8, 8, 3) uint8."""


@dataclass(frozen=True)
class Contents:
    """What the files of captions say."""

    captions: Mapping[str, list[str]]
    """Image -> its captions as they stand there, those to mend left out."""
    split: Mapping[str, SplitName]
    problems: list[str]


def main(name: str, folder: Path | None, output: Path | None) -> int:
    """Write the page of a data set; return the exit code.

    Args:
        name: of a profile, of its data set, or of a published one.
        folder: where it lies, if not where the parameters say.
        output: the file; by default in the workspace of the profile `name`, or of the clone.
    """
    try:
        root = find_root()
        source = source_of(find_entry(root, name, folder), root)
        own = root / "profiles" / name
        page = output or (own if (own / "params.yaml").is_file() else workspace_of(root, QUICKSTART)) / PAGE
        try:
            unfit = misfit(root, name, folder)
        except ValueError as error:  # a row that is to mend: the page lists all
            unfit = str(error)
        write_bytes(page, page_of(source, unfit, root / JOURNALS).encode())
        print(f"{page}: written")
        return 0
    except (ValueError, OSError) as error:
        print(f"repro data show: {error}", file=sys.stderr)
        return 1


def page_of(source: Source, unfit: str | None, journals: Path) -> str:
    """Return the page of a data set.

    Args:
        unfit: what the parameters ask of it that it does not have; None if nothing.
        journals: folder for what is done of the hashing, if images lie in shards that nobody has checked yet.

    Raises:
        ValueError: no shard is where the parameters say.
    """
    contents = read(source)
    store = _store(source, contents.captions, journals)
    names = sorted(contents.captions, key=lambda name: hashlib.sha256(name.encode()).digest())
    looks, damaged = look_at(store, names[:MOST_IMAGES])
    groups = sorted(near_duplicates(looks), key=lambda group: len({contents.split[name] for name in group}) == 1)
    shown = {split: [name for name in names if contents.split[name] == split and name in looks][:PICTURES]
             for split in SPLITS}
    wanted = list(dict.fromkeys(name for names_shown in (*(group[:MEMBERS] for group in groups[:GROUPS]),
                                                         *shown.values()) for name in names_shown))
    pictures = dict(zip(wanted, _each(lambda name: thumbnail(open_image(store, name)), wanted), strict=True))
    problems = [*contents.problems, *damaged]
    return html_environment().from_string(TEMPLATE.read_text("utf-8")).render(
        name=source.name, folder=source.folder, unfit=unfit, num_images=len(contents.captions), num_looked=len(looks),
        problems=problems[:PROBLEMS], num_problems=len(problems), table=table(contents, looks), splits=contents.split,
        captions=contents.captions, looks=looks, shown=shown, pictures=pictures, members=MEMBERS,
        num_groups=len(groups),
        groups=[(group, len({contents.split[name] for name in group}) > 1) for group in groups[:GROUPS]],
        repeats=repeats(contents.captions)[:REPEATS], num_repeats=len(repeats(contents.captions)))


def read(source: Source) -> Contents:
    """Return what the captions say, with everything that is to mend in it."""
    captions: dict[str, list[str]] = {}
    named: dict[str, SplitName | None] = {}
    problems: list[str] = []
    for row, good in source.captions.checked_rows(lambda error: problems.append(str(error))):
        named[row.image] = row.split
        captions.setdefault(row.image, []).extend(caption for caption, _ in good)
    return Contents(captions, {image: split for image, split in source.captions.split_of(named).items() if split},
                    problems)


def _store(source: Source, names: Iterable[str], journals: Path) -> ImageStore:
    if source.shards is None:
        return FolderStore(source.folder)
    found = recorded_images(source)
    if not found:
        journal = journals / f"{source.name}-show.jsonl"
        index = index_images(source.folder, source.shards, names, journal, decoded=False)
        found = checked_images(index.images, source.folder)
        journal.unlink(missing_ok=True)
    return ShardStore(source.folder, found)


def look_at(store: ImageStore, names: Sequence[str]) -> tuple[dict[str, Look], list[str]]:
    """Look at images; return what was seen of each, and what is wrong with those that cannot be seen."""

    def look(name: str) -> Look | str:
        try:
            return look_of(open_image(store, name))
        except ValueError as error:
            return str(error)

    found = dict(zip(names, progress(_each(look, names), "look at images", "image", total=len(names)), strict=True))
    return ({name: seen for name, seen in found.items() if isinstance(seen, Look)},
            [seen for seen in found.values() if isinstance(seen, str)])


def _each(make: Callable[[str], Made], names: Sequence[str]) -> Iterator[Made]:
    with ThreadPoolExecutor(NUM_THREADS) as threads:
        for start in range(0, len(names), 64):  # so that few are in memory
            yield from threads.map(make, names[start:start + 64])


def look_of(image: Image.Image) -> Look:
    """Return what is remembered of an image."""
    grey = np.asarray(image.convert("L").resize((9, 8), Image.Resampling.BOX), np.int16)
    signs = (grey[:, 1:] > grey[:, :-1]).ravel()
    colours = np.asarray(image.resize((8, 8), Image.Resampling.BOX))
    return Look(*image.size, int.from_bytes(np.packbits(signs).tobytes(), "big"), colours)


def near_duplicates(looks: Mapping[str, Look]) -> list[list[str]]:
    """Return groups of images that look alike, larger ones first; each image is in one at most."""
    above = {name: name for name in looks}

    def top(name: str) -> str:
        while above[name] != name:
            above[name] = name = above[above[name]]
        return name

    width = HASH_BITS // BANDS
    for band in range(BANDS):
        buckets: dict[int, list[str]] = defaultdict(list)
        for name, look in looks.items():
            buckets[look.bits >> (band * width) & (1 << width) - 1].append(name)
        for bucket in buckets.values():
            ordered = sorted(bucket, key=lambda name: (looks[name].colours.mean(), name))
            for place, name in enumerate(ordered):
                for other in ordered[place + 1:place + 1 + WINDOW]:
                    if top(name) != top(other) and alike(looks[name], looks[other]):
                        above[top(other)] = top(name)
    groups: dict[str, list[str]] = defaultdict(list)
    for name in looks:
        groups[top(name)].append(name)
    return sorted((sorted(group) for group in groups.values() if len(group) > 1),
                  key=lambda group: (-len(group), group))


def alike(one: Look, other: Look) -> bool:
    """Whether two images look alike: the same edges, the same colours."""
    return ((one.bits ^ other.bits).bit_count() <= MOST_DIFFERENT_BITS
            and int(np.abs(one.colours.astype(int) - other.colours).max()) <= MOST_DIFFERENT_COLOUR)


def thumbnail(image: Image.Image) -> str:
    """Return a small copy of an image as an address that holds it."""
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def repeats(captions: Mapping[str, Sequence[str]]) -> list[tuple[str, int]]:
    """Return captions that several images have, with the number of images, those of most first."""
    images = Counter(words for found in captions.values()
                     for words in {" ".join(each.lower().split()) for each in found})
    return sorted(((words, num) for words, num in images.items() if num > 1), key=lambda each: (-each[1], each[0]))


def table(contents: Contents, looks: Mapping[str, Look]) -> list[tuple[str, ...]]:
    """Return a row of numbers per split: images, captions, words of a caption, width and height."""
    rows = []
    for split in SPLITS:
        names = [name for name, found in contents.split.items() if found == split]
        captions = [caption for name in names for caption in contents.captions[name]]
        sizes = [looks[name] for name in names if name in looks]
        rows.append((split, f"{len(names):,}", f"{len(captions):,}",
                     _spread([len(caption.split()) for caption in captions]),
                     _spread([look.width for look in sizes]), _spread([look.height for look in sizes])))
    return rows


def _spread(values: Sequence[int]) -> str:
    return f"{min(values)} / {statistics.median(values):g} / {max(values)}" if values else "none"
