"""`repro data`: fetch a published data set as far as its publishers allow, and check a copy of one.

What was fetched is written to `fetched.json` in the data set's folder: for every address the SHA-256, and what it was
compared with. A file that was fetched once must come as the same the next time.
"""

import shlex
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, TypeAdapter

from repblend.archives import is_unpacked, unpack
from repblend.data.rows import json_rows
from repblend.data.source import KNOWN, DatasetReport, Source, check, find_key, source_of, write_manifest
from repblend.params import Params
from repblend.params.data import Data, RealData
from repblend.params.reading import read_yaml, validated
from repblend.records.base import Record, Sha256, read_typed
from repblend.runtime.processes import only_writer
from repblend.sections import Count, Section
from repblend.store import JSON, sha256, write_json
from repro.fetch.download import Digest, download
from repro.fetch.hub import find_hub_files
from repro.workspace import find_root

ANNOTATIONS = "https://storage.googleapis.com/sfr-vision-language-research/datasets"
DEFAULT_FOLDER = Path("data")
RECORD = "fetched.json"


class Fetched(Record):
    """A file as it was fetched; URL -> this is what `fetched.json` holds."""

    file: str
    bytes: Count
    sha256: Sha256
    compared_with: str
    files: dict[str, Count] = Field(default_factory=dict)
    """Folder -> its files, of an archive, which is removed once it is unpacked."""


RECORDS = TypeAdapter(dict[str, Fetched])
LOCKS, JOURNALS = Path("checkpoints/locks"), Path("checkpoints/data")


# Where the data sets come from.


@dataclass(frozen=True)
class RemoteFile:
    """A file that may be fetched."""

    url: str
    name: str
    """Path in the data set's folder."""
    digest: Digest | None = None
    """None: nobody published one, and the first fetch is trusted."""
    unpacked: bool = False
    """Whether it is an archive, to be unpacked into the data set's folder and removed."""


@dataclass(frozen=True)
class HubFiles:
    """Files of one repository on the hub, which says in which folders they lie and what their hashes are."""

    repository: str
    """`models/OWNER/NAME` or `datasets/OWNER/NAME`."""
    names: tuple[str, ...]
    unpacked: bool = False


@dataclass(frozen=True)
class Origin:
    """How a data set is obtained."""

    files: tuple[RemoteFile, ...] = ()
    hub: tuple[HubFiles, ...] = ()
    steps: str = ""
    """What remains to be done by hand, if anything; `{folder}` is the data set's folder, `{check}` the command that
    checks it."""
    by_hand: str | None = None
    """What those steps put into the folder: as long as it is absent, there is nothing to check."""


def _annotations(prefix: str, md5: Mapping[str, str]) -> tuple[RemoteFile, ...]:
    return tuple(RemoteFile(f"{ANNOTATIONS}/{prefix}_{split}.json", f"{prefix}_{split}.json",
                            Digest("md5", md5[split]) if split in md5 else None) for split in ("train", "val", "test"))


def _archive(url: str, md5: str) -> Origin:
    return Origin((RemoteFile(url, url.rsplit("/", 1)[1], Digest("md5", md5), unpacked=True),))


CAPTIONED = {
    "flickr30k": Origin(
        files=_annotations("flickr30k", {}),
        steps="""The images of Flickr30K are given on request only:
  1. Ask for them at https://shannon.cs.illinois.edu/DenotationGraph/ (a form; accept the terms).
  2. You get flickr30k-images.tar.gz by mail. Unpack it:
       tar -xzf flickr30k-images.tar.gz -C {folder}
     so that {folder}/flickr30k-images/1000092795.jpg is there (31,783 images, of which 31,014 are used).
  3. Run `{check}`.""",
        by_hand="flickr30k-images"),
    "coco": Origin(
        files=(*_annotations("coco_karpathy", {"train": "aa31ac474cf6250ebb81d18348a07ed8",
                                               "val": "b273847456ef5580e33713b1f7de52a0",
                                               "test": "3ff34b0ef2db02d01c37399f6a2a6cd1"}),
               RemoteFile("http://images.cocodataset.org/zips/train2014.zip", "train2014.zip",
                          Digest("md5", "0da8c0bd3d6becc4dcb32757491aca88"), unpacked=True),
               RemoteFile("http://images.cocodataset.org/zips/val2014.zip", "val2014.zip",
                          Digest("md5", "a3d79f5ed8d289b7a7554ce06a5782b3"), unpacked=True))),
    "cc3m": Origin(
        hub=(HubFiles("models/xinxin66/RepBlend", tuple(f"captions_{split}zx2025.json"
                                                         for split in ("train", "val", "test"))),
             HubFiles("datasets/liuhaotian/LLaVA-CC3M-Pretrain-595K", ("images.zip",), unpacked=True)),
        steps="""Annotations and images come from two publishers. If images are missing, see how the annotations name
them (key "image"), move the images in {folder} to where that says, and run `{check}`."""),
}
"""Images with captions, by the name that commands and profiles use. No SHA-256 was published for any of these files.
The MD5 sums are those that others recorded; the hub states the SHA-256 of its large files; all other files are trusted
on the first fetch. Counts of rows and images are checked in any case. No address could be reached when this table was
written."""
LABELLED = {
    "cifar10": _archive("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530"),
    "cifar100": _archive("https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
                         "03b5dce01913d631647c71ecec9e9cb8"),
    "tiny-imagenet": _archive("http://cs231n.stanford.edu/tiny-imagenet-200.zip", "90528d7ca1a48142e341f4ef8d21d0de"),
    "imagenet": Origin(steps="""ImageNet is given to registered users only: download it from https://image-net.org and
unpack it so that {folder} has train/CLASS/ and val/CLASS/.""", by_hand="train"),
}
"""Images with one class each, of the unimodal pipeline, with the MD5 sums that their publishers state. Stage `prepare`
of that pipeline checks what was unpacked."""
ORIGINS = CAPTIONED | LABELLED


# `repro data fetch`.


def main(name: str, folder: Path | None) -> int:
    """Fetch a data set, check it if it has captions, and return 0 if it is whole."""
    try:
        root, key = find_root(), find_key(name) or name
        if key not in ORIGINS:
            raise ValueError(f"{name}: expected one of {', '.join(ORIGINS)}. A set of your own needs no fetching: name "
                             "its folder in params.yaml and run `repro data check`")
        origin, entry = ORIGINS[key], find_entry(root, key, folder) if key in CAPTIONED else None
        place = root / (entry.folder if entry else folder or DEFAULT_FOLDER / key)
        place.mkdir(parents=True, exist_ok=True)
        with only_writer(root / LOCKS / f"data-{key}.lock", f"{place}"):
            fetch(origin, place)
        is_complete = origin.by_hand is not None and (place / origin.by_hand).exists()
        if origin.steps and not is_complete:
            given = [] if folder is None else [str(folder)]
            print(origin.steps.format(folder=place, check=shlex.join(["repro", "data", "check", name, *given])))
        if origin.by_hand and not is_complete:
            return 1
        if entry:
            return check_source(root, source_of(entry, root)) or tell_parameter(root, name, folder)
        print(f"{key} lies in {place}" + (f". To use it, set data.folder of params.yaml to {place}" if folder else ""))
        return 0
    except (ValueError, OSError) as error:
        print(f"repro data fetch: {error}", file=sys.stderr)
        return 1


def fetch(origin: Origin, folder: Path) -> None:
    """Fetch all files of a data set into its folder; what is there and right is not fetched again.

    Raises:
        ValueError: a server refuses, or sends something else than it did or should.
    """
    record = _recorded(folder)
    for file in _files(origin):
        if _is_there(file, folder, record):
            print(f"{file.name}: is there already")
            continue
        _fetch_one(file, folder, record)
        _write(folder, record)


def _files(origin: Origin) -> Iterator[RemoteFile]:
    yield from origin.files
    for listed in origin.hub:
        for name, file in find_hub_files(listed.repository, listed.names).items():
            yield RemoteFile(file.url, name, Digest("sha256", file.sha256) if file.sha256 else None, listed.unpacked)


def _recorded(folder: Path) -> dict[str, Fetched]:
    path, mend = folder / RECORD, "Delete it and run `repro data fetch` again"
    return read_typed(path, RECORDS, "record of fetched files", mend) if path.is_file() else {}


def _write(folder: Path, record: Mapping[str, Fetched]) -> None:
    write_json(folder / RECORD, {url: entry.to_json() for url, entry in record.items()})


def _is_there(file: RemoteFile, folder: Path, record: Mapping[str, Fetched]) -> bool:
    entry = record.get(file.url)
    if entry is None:
        return False
    if file.unpacked:
        return is_unpacked(folder, entry.files)
    path = folder / file.name
    return path.is_file() and sha256(path) == entry.sha256


def _fetch_one(file: RemoteFile, folder: Path, record: dict[str, Fetched]) -> None:
    path, before = folder / file.name, record.get(file.url)
    expected = file.digest or (Digest("sha256", before.sha256) if before else None)
    if not path.is_file() or (expected and expected.of(path) != expected):
        download(file.url, path, expected)
    compared = str(expected) if expected else "nothing: no hash was published, the first fetch is trusted"
    num_bytes, digest, files = path.stat().st_size, sha256(path), dict[str, int]()
    try:
        if file.unpacked:
            files = unpack(path, folder)
        elif path.suffix == ".json":
            json_rows(path, folder)
    except ValueError:
        if expected is None:  # a web page in the place of the file; the next call is to fetch it again
            path.unlink()
        raise
    if file.unpacked:
        path.unlink()
    record[file.url] = Fetched(file=file.name, bytes=num_bytes, sha256=digest, compared_with=compared, files=files)
    print(f"{file.name}: {num_bytes:,} bytes, sha256 {digest}, compared with {compared}")


def forget_main(name: str, file: str, folder: Path | None) -> int:
    """Remove a fetched file and what was recorded of it, so that the next fetch trusts what comes; return 0 if done."""
    try:
        root, key = find_root(), find_key(name) or name
        entry = find_entry(root, key, folder) if key in CAPTIONED else None
        place = root / (entry.folder if entry else folder or DEFAULT_FOLDER / key)
        record = _recorded(place)
        urls = [url for url, known in record.items() if known.file == file]
        if not urls:
            raise ValueError(f"{place / RECORD}: nothing is recorded of {file}; expected one of "
                             f"{', '.join(known.file for known in record.values()) or 'a fetched file'}")
        _write(place, {url: known for url, known in record.items() if url not in urls})
        (place / file).unlink(missing_ok=True)
        print(f"{file}: forgotten. `{shlex.join(['repro', 'data', 'fetch', name])}` brings it again")
        return 0
    except (ValueError, OSError) as error:
        print(f"repro data forget: {error}", file=sys.stderr)
        return 1


# `repro data check`.


def check_main(name: str, folder: Path | None) -> int:
    """Check a data set and print what is wrong with it; return 0 if nothing is, and write its manifest."""
    try:
        root = find_root()
        source = source_of(find_entry(root, name, folder), root)
        if code := check_source(root, source):
            return code
        if unfit := misfit(root, name, folder):
            print(unfit)
            return 1
        return tell_parameter(root, name, folder)
    except (ValueError, OSError) as error:
        print(f"repro data check: {error}", file=sys.stderr)
        return 1


def misfit(root: Path, name: str, folder: Path | None = None) -> str | None:
    """Return what the parameters that name a data set ask of it and it does not have; None if nothing, or if none name
    it.

    Raises:
        ValueError: the parameters, or rows of the data set, are not as they should be.
    """
    found = _of_parameters(root, name)
    if found is None:
        return None
    from repblend.stages.prepare import counts_ahead  # slow to import

    entry = find_entry(root, name, folder)
    counts = counts_ahead(entry, root)
    params = validated(Params, read_yaml(found[0]), str(found[0]))
    try:
        if counts:
            params.check_sizes(counts["train"]["images"], counts["train"]["captions"])
    except ValueError as error:
        return f"{found[0]}: {error}"
    return None


def check_source(root: Path, source: Source) -> int:
    """As `examine`; return the exit code."""
    return 1 if examine(root, source).problems else 0


def examine(root: Path, source: Source) -> DatasetReport:
    """Check a data set, print what is wrong, write its manifest if nothing is; return what was found.

    Raises:
        ValueError: no shard is where the parameters say.
        OSError: the manifest cannot be written.
    """
    journal = root / JOURNALS / f"{source.name}.jsonl"
    report = check(source, journal)
    _print(source, report)
    if not report.problems:
        write_manifest(source, report)
        journal.unlink(missing_ok=True)
        print(f"Nothing is wrong. Written down in {source.manifest}")
    return report


def _print(source: Source, report: DatasetReport) -> None:
    for problem in report.problems:
        print(problem)
    for note in report.notes:
        print(f"note: {note} (as published: the counts are right)")
    counts = (f"{split} {found['images']:,} images with {found['captions']:,} captions"
              for split, found in report.counts.items())
    print(f"{source.name}: {', '.join(counts)}")
    if report.problems:
        print(f"{len(report.problems)} to mend")


def tell_parameter(root: Path, name: str, folder: Path | None) -> int:
    """Say which parameter leads a run to a folder that was given by hand, unless it does so already; return 0."""
    if folder is not None and (root / find_entry(root, name).folder).resolve() != folder.resolve():
        print(f"A run looks where data.folder of its params.yaml says. To use this copy, set it to {folder.absolute()}")
    return 0


# Which data set a name means: an entry `data` of this clone's parameters, or a published set.


class _Entry(Section):
    data: Data


def how_to_bring(name: str, folder: str) -> str:
    """Return how the data set of an entry `data` gets to its folder, in a sentence without its full stop."""
    if name in LABELLED:
        elsewhere = [] if Path(folder) == DEFAULT_FOLDER / name else [folder]
        return f"`{shlex.join(['repro', 'data', 'fetch', name, *elsewhere])}` brings it, or says what to do by hand"
    if key := find_key(name):
        return f"`repro data fetch {key}` brings what may be brought, and says what has to be done by hand"
    return f"`repro data check {name}` says what belongs there"


def find_entry(root: Path, name: str, folder: Path | None = None) -> RealData:
    """Return the entry of a data set with captions.

    Args:
        name: that of a published data set, of a profile with a workspace, or `data.name` of one's parameters. One's own
            parameters go before what is published.
        folder: where it lies, if not where the parameters say (a published one: `data/<name>`).

    Raises:
        ValueError: nothing is called so.
    """
    found = _of_parameters(root, name)
    entry = found[1] if found else _published(name)
    return entry.model_copy(update={"folder": str(folder.absolute())}) if folder else entry


def _of_parameters(root: Path, name: str) -> tuple[Path, RealData] | None:
    """The file of parameters that names a data set, and its entry."""
    for file in (root / "params.yaml", *sorted(root.glob("profiles/*/params.yaml"))):
        workspace = file.parent.name if file.parent != root else None
        data = _entry_in(file, broken_is_an_error=workspace in (None, name))
        if name in (data.get("name"), workspace) and data.get("folder") is not None:
            if data.get("name") in LABELLED:
                raise ValueError(f"{file}: {data['name']} has single images and no captions, so there is nothing to "
                                 f"check: stage `prepare` reads it. {how_to_bring(data['name'], data['folder'])}")
            return file, validated(_Entry, {"data": data}, str(file)).data
    return None


def _entry_in(file: Path, broken_is_an_error: bool) -> JSON:
    """Return the entry `data` of a parameters file; an empty one if there is none."""
    try:
        content = read_yaml(file) if file.is_file() else {}
    except ValueError:
        if broken_is_an_error:
            raise
        return {}  # another profile's file: its own commands say what is wrong with it
    data = content.get("data") if isinstance(content, dict) else None
    return data if isinstance(data, dict) else {}


def _published(name: str) -> RealData:
    key = find_key(name)
    if key is None:
        raise ValueError(f"{name}: no parameters here name such a data set with captions, and none is published under "
                         f"this name; expected {', '.join(KNOWN)}, or data.name of params.yaml, with data.folder")
    return KNOWN[key].data(str(DEFAULT_FOLDER / key))
