"""A real dataset in its folder: the published ones, how stage `prepare` takes one over, and how it is checked.

Annotations are cleaned, cut and written anew; images stay where they are. What is written says of every image how many
bytes it has and their SHA-256, so that a changed image is noticed when it is read.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from repblend.data.image_index import index_images
from repblend.data.image_store import IMAGES_FILE, Found, checked_images
from repblend.data.karpathy import (
    SPLITS,
    Annotations,
    CaptionRow,
    Captions,
    LayoutCaptions,
    annotation_file,
    write_annotations,
)
from repblend.data.own import OwnCaptions
from repblend.files import named, read_text
from repblend.params.data import ExpectedCounts, OwnData, RealData, SplitName
from repblend.records.outputs import PairCounts
from repblend.store import JSON, atomic_path, folder_sha256, read_json, sha256, write_bytes, write_json

PUBLISHED_IMAGE_SIZE = 224
MANIFEST = "manifest.json"
"""In a dataset's folder: what `repro data check` found there, and the hash of every image."""
MANIFEST_KEYS = {"name", "counts", "images", "annotations"}
COUNTS = TypeAdapter(dict[SplitName, PairCounts])
SHOWN_PROBLEMS = 10


@dataclass(frozen=True)
class KnownSet:
    """A published dataset."""

    title: str
    name: str
    """Prefix of its annotation files, and `data.name`."""
    entry: Mapping[str, object]
    """Fields of `RealData` that are this dataset's, whoever uses it."""
    terms: str
    """Whose it is and what may be done with it, Markdown."""
    license_name: str
    """Of the terms: the Hugging Face hub has no identifier for any of them."""
    license_link: str

    def data(self, folder: str) -> RealData:
        """Return the entry for a copy in a folder."""
        return RealData.model_validate({"name": self.name, "folder": folder, "image_size": PUBLISHED_IMAGE_SIZE,
                                        **self.entry})


KNOWN = {
    "flickr30k": KnownSet(
        "Flickr30K", "flickr30k",
        {"max_caption_words": 60,
         "expected": {"train": {"images": 29_000, "captions": 145_000}, "val": {"images": 1_014, "captions": 5_070},
                      "test": {"images": 1_000, "captions": 5_000}}},
        "Flickr30K (Young et al., 2014), in the split of Karpathy and Fei-Fei. The images are from Flickr and belong "
        "to their authors; the dataset is for non-commercial research and education, by request. What is made of the "
        "images may fall under the same terms.",
        "non-commercial-research-and-education", "https://shannon.cs.illinois.edu/DenotationGraph/"),
    "coco": KnownSet(
        "MS-COCO", "coco_karpathy",
        {"max_caption_words": 60, "max_caption_words_of": {"val": 30, "test": 30},
         "expected": {"train": {"images": 113_287, "captions": 566_747}, "val": {"images": 5_000, "captions": 25_010},
                      "test": {"images": 5_000, "captions": 25_010}}},
        "Microsoft COCO 2014 (Lin et al., 2014), in the split of Karpathy and Fei-Fei. Annotations are CC BY 4.0; the "
        "images are from Flickr, belong to their authors and fall under Flickr's terms of use.",
        "flickr-terms-of-use", "https://cocodataset.org/#termsofuse"),
    "cc3m": KnownSet(
        "LLaVA-cc3m", "cc3m",
        {"max_caption_words": 30, "max_val": 10_000, "max_test": 10_000,
         "annotations": {split: f"captions_{split}zx2025.json" for split in ("train", "val", "test")}},
        "Images of Conceptual Captions 3M (Sharma et al., 2018) as LLaVA selected them. Google lets the captions be "
        "used for any purpose and asks to be named as their source; the images are from the web and belong to their "
        "authors.",
        "conceptual-captions", "https://ai.google.com/research/ConceptualCaptions/"),
}
"""The datasets of the paper, by the name that commands and profiles give them: counts, files and caption lengths are
those of the released annotation files. Nobody has published counts for LLaVA-cc3m."""


def find_key(name: str) -> str | None:
    """Return the key in `KNOWN` of the dataset that is called so, by it or by the name of its annotation files."""
    return next((key for key, known in KNOWN.items() if name in (key, known.name)), None)


def find_known(name: str) -> KnownSet | None:
    """Return the dataset that is called so, likewise."""
    return KNOWN[key] if (key := find_key(name)) else None


def attribution(name: str, folder: Path) -> str:
    """Return whom a real dataset is from and under which terms, Markdown.

    A file `ATTRIBUTION.md` in the dataset's folder goes before what is known here.
    """
    own, known = folder / "ATTRIBUTION.md", find_known(name)
    if own.exists() or own.is_symlink():
        return read_text(own, "attribution", folder)
    stated = f"{known.terms}\n\nTerms: {known.license_link}" if known else (
        f"Nobody has stated whose data `{name}` is: its folder has no ATTRIBUTION.md. Find out before you give away "
        "what was made of it.")
    return f"# Attribution\n\n{stated}\n"


@dataclass(frozen=True)
class Source:
    """A dataset in its folder."""

    name: str
    folder: Path
    captions: Captions
    expected: Mapping[SplitName, ExpectedCounts]
    shards: str | None

    @property
    def manifest(self) -> Path:
        return self.folder / MANIFEST

    def captions_sha256(self) -> dict[str, str]:
        """Return the SHA-256 of every file of captions, by its path in the folder."""
        return {path.relative_to(self.folder).as_posix(): sha256(path) for path in self.captions.files}


def source_of(data: RealData, repository: Path) -> Source:
    """Return what an entry `data` of `params.yaml` names.

    Args:
        repository: what a relative folder starts at.

    Raises:
        ValueError: there is no such folder.
    """
    folder = repository / data.folder
    if not folder.is_dir():
        raise ValueError(f"data.folder: {folder} is no folder; expected the dataset {data.name} there. Put it there (a "
                         f"published one with `repro data fetch {data.name}`), or correct the path")
    words = dict.fromkeys(SPLITS, data.max_caption_words) | data.max_caption_words_of
    captions: Captions
    if isinstance(data, OwnData):
        captions = OwnCaptions(words, [folder / data.captions], data.num_val, data.num_test, folder=folder)
    else:
        files = [folder / data.annotations[split] if split in data.annotations
                 else annotation_file(folder, data.name, split) for split in SPLITS]
        captions = LayoutCaptions(words, files, folder=folder)
    return Source(data.name, folder, captions, data.expected, data.shards)


def count_problems(source: Source, found: JSON) -> list[str]:
    """Return which counts are not the expected ones, one message each.

    Args:
        found: as `Annotations.counts` gives them.
    """
    return [f"{source.folder}: {split} has {found[split][what]:,} {what}, expected {number:,}. Fetch the annotations "
            "again, or correct data.expected"
            for split, expected in source.expected.items() for what, number in expected.model_dump().items()
            if number is not None and found[split][what] != number]


def kept_of(whole: Annotations, data: RealData) -> Annotations:
    """Return the images that the parameters keep of each split."""
    return Annotations(whole.train[:data.max_train], whole.val[:data.max_val], whole.test[:data.max_test])


def build(prepared: Path, source: Source, data: RealData, journal: Path) -> JSON:
    """Write what the other stages read of a real dataset: annotations, attribution, where images lie, a manifest.

    Args:
        prepared: the folder to write, all of it or nothing; replaced if it exists.
        data: the entry that `source` was made of.
        journal: where to keep what is done of the hashing, if it has to be done.

    Returns:
        The manifest: counts, the SHA-256 of the original annotation files and of every file written.

    Raises:
        ValueError: rows, counts or images are not as they should be.
    """
    whole = source.captions.read()
    if wrong := count_problems(source, whole.counts()):
        raise ValueError("\n".join(wrong))
    kept = kept_of(whole, data)
    names = sorted({image.image for split in SPLITS for image in getattr(kept, split)})
    images = _known_images(source, names, journal)
    with atomic_path(prepared) as aside:
        aside.mkdir(parents=True)
        write_annotations(aside, source.name, kept)
        write_bytes(aside / "ATTRIBUTION.md", attribution(source.name, source.folder).encode())
        write_json(aside / IMAGES_FILE, {"folder": data.folder, "images": images})
        manifest = {"name": source.name, "folder": data.folder, "image_size": data.image_size, "counts": kept.counts(),
                    "packages": {}, "sources": source.captions_sha256(),
                    "sha256": folder_sha256(aside)}
        write_json(aside / MANIFEST, manifest)
    return manifest


def recorded_images(source: Source) -> dict[str, Found]:
    """Return what `repro data check` wrote down of every image; nothing if it did not.

    Raises:
        ValueError: the file of that name was not written by it.
    """
    if not source.manifest.exists():
        return {}
    content = read_json(source.manifest, source.folder)
    if not isinstance(content, dict) or not content.keys() >= MANIFEST_KEYS:
        raise ValueError(f"{source.manifest}: expected what `repro data check` writes, found another file. "
                         "Rename it")
    return checked_images(content["images"], source.manifest)


def recorded_counts(folder: Path) -> dict[SplitName, PairCounts]:
    """Return what `repro data check` counted in a data set's folder; nothing if it did not."""
    path = folder / MANIFEST
    content = read_json(path, folder) if path.is_file() else {}
    if not isinstance(content, dict) or not content.keys() >= MANIFEST_KEYS:
        return {}
    with named(path, "the counts that `repro data check` writes", "Run it again"):
        return COUNTS.validate_python(content["counts"])


def _known_images(source: Source, names: list[str], journal: Path) -> Mapping[str, Found | JSON]:
    """Return the record of every image: from the folder's manifest if that may hold, else by looking at the images."""
    recorded = recorded_images(source)
    known = {name: recorded[name] for name in names if name in recorded}
    if len(known) == len(names) and all(_has_its_size(source, name, record) for name, record in known.items()):
        return known
    index = index_images(source.folder, source.shards, names, journal, decoded=False)
    shown = list(index.problems.values())[:SHOWN_PROBLEMS]
    if more := len(index.problems) - len(shown):
        shown.append(f"and {more} more: `repro data check {source.name}` lists all")
    if shown:
        raise ValueError("\n".join(shown))
    return index.images


def _has_its_size(source: Source, name: str, record: Found) -> bool:
    """Whether an image may still be the recorded one; its hash is compared when it is read."""
    if source.shards is not None:
        return "shard" in record and (source.folder / record["shard"]).is_file()
    path = source.folder / name
    return "shard" not in record and path.is_file() and path.stat().st_size == record["bytes"]


@dataclass(frozen=True)
class DatasetReport:
    """What is wrong with a dataset."""

    counts: JSON
    """Images and captions of every split."""
    problems: list[str]
    """Everything that has to be mended, one message each."""
    notes: list[str]
    """What is odd, but as published."""
    images: dict[str, JSON]
    """Of every image that is right: bytes and SHA-256, and its place in a shard."""


def check(source: Source, journal: Path) -> DatasetReport:
    """Look at every row and every image of a dataset, and say everything that is wrong with it.

    Args:
        journal: where to keep which images are right already; the next look goes on there.

    Raises:
        ValueError: the pattern of shards fits no file, or the folder has another file of the manifest's name.
    """
    recorded_images(source)  # what the manifest would replace must not be somebody's own
    problems: list[str] = []
    try:
        attribution(source.name, source.folder)
    except (ValueError, OSError) as error:
        problems.append(str(error))
    first_row: dict[str, CaptionRow] = {}
    num_captions: Counter[str] = Counter()  # of every image
    repeats: dict[SplitName | None, list[str]] = defaultdict(list)
    seen: set[tuple[str, str]] = set()
    for row, good in source.captions.checked_rows(lambda error: problems.append(str(error))):
        first_row.setdefault(row.image, row)
        num_captions[row.image] += len(row.captions)
        for caption, _ in good:
            if (row.image, caption) in seen:
                repeats[row.split].append(f"{row.where}: image '{row.image}' has the caption {caption!r} already. "
                                          "Remove one")
            seen.add((row.image, caption))
    counts: JSON = {split: {"images": 0, "captions": 0} for split in SPLITS}
    for image, split in source.captions.split_of({name: row.split for name, row in first_row.items()}).items():
        assert split
        counts[split]["images"] += 1
        counts[split]["captions"] += num_captions[image]
    wrong_counts = count_problems(source, counts)
    as_published = set(source.expected) if not wrong_counts else set()
    notes = [each for split in repeats if split in as_published for each in repeats[split]]
    problems += [each for split in repeats if split not in as_published for each in repeats[split]] + wrong_counts
    problems += [f"{source.folder}: no image in {split}; expected at least one. Add rows, or correct their splits"
                 for split in SPLITS if not counts[split]["images"]]
    index = index_images(source.folder, source.shards, first_row, journal, decoded=True)
    problems += [f"{first_row[name].where}: {problem}" if name in first_row else problem
                 for name, problem in index.problems.items()]
    return DatasetReport(counts, problems, notes, index.images)


def write_manifest(source: Source, report: DatasetReport) -> None:
    """Write what was found beside the images, for stage `prepare` and for whoever wants to know what lies there."""
    write_json(source.manifest, {"name": source.name, "counts": report.counts, "images": report.images,
                                 "annotations": source.captions_sha256()})
