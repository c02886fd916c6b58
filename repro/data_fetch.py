"""`repro data fetch`: bring of a published dataset what may be brought, and say what has to be done by hand.

What came is written down in `fetched.json` in the dataset's folder: of each address the SHA-256 and what it was
compared with. A file that was fetched once has to be the same the next time.
"""

import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

from repblend.data.known import find_key
from repblend.data.source import source_of
from repblend.download import Digest, download
from repblend.stages.lock import only_writer
from repblend.store import JSON, read_json, sha256, write_json
from repro.data_check import check_source, tell_parameter
from repro.data_entry import find_entry
from repro.data_sources import ORIGINS, Origin, RemoteFile
from repro.hub_files import find_hub_files
from repro.unpack import is_unpacked, unpack
from repro.workspace import find_root

RECORD = "fetched.json"
LOCKS = Path("checkpoints/locks")


def main(name: str, folder: Path | None) -> int:
    """Fetch a dataset and check it; return 0 if it is whole."""
    try:
        root = find_root()
        origin, given = _origin(name), [] if folder is None else [str(folder)]
        entry = find_entry(root, name, folder)
        place = root / entry.folder
        place.mkdir(parents=True, exist_ok=True)
        with only_writer(root / LOCKS / f"data-{entry.name}.lock", f"{place}"):
            fetch(origin, place)
        is_complete = origin.by_hand is not None and (place / origin.by_hand).exists()
        if origin.steps and not is_complete:
            print(origin.steps.format(folder=place, check=shlex.join(["repro", "data", "check", name, *given])))
        if origin.by_hand and not is_complete:
            return 1
        return check_source(root, source_of(entry, root)) or tell_parameter(root, name, folder)
    except (ValueError, OSError) as error:
        print(f"repro data fetch: {error}", file=sys.stderr)
        return 1


def _origin(name: str) -> Origin:
    if (key := find_key(name)) is None:
        raise ValueError(f"{name}: expected one of {', '.join(ORIGINS)}. A set of your own needs no fetching: name its "
                         "folder in params.yaml and run `repro data check`")
    return ORIGINS[key]


def fetch(origin: Origin, folder: Path) -> None:
    """Fetch all files of a dataset into its folder; what is there and right is not fetched again.

    Raises:
        ValueError: a server refuses, or sends something else than it did or should.
    """
    record: JSON = read_json(folder / RECORD) if (folder / RECORD).is_file() else {}
    for file in _files(origin):
        if _is_there(file, folder, record):
            print(f"{file.name}: is there already")
            continue
        _fetch_one(file, folder, record)
        write_json(folder / RECORD, record)


def _files(origin: Origin) -> Iterator[RemoteFile]:
    yield from origin.files
    for listed in origin.hub:
        found = find_hub_files(listed.repository, list(listed.names))
        yield from (RemoteFile(file.url, name, file.digest, listed.unpacked) for name, file in found.items())


def _is_there(file: RemoteFile, folder: Path, record: JSON) -> bool:
    entry = record.get(file.url)
    if entry is None:
        return False
    if file.unpacked:
        return is_unpacked(folder, entry["files"])
    path = folder / file.name
    return path.is_file() and sha256(path) == entry["sha256"]


def _fetch_one(file: RemoteFile, folder: Path, record: JSON) -> None:
    path, before = folder / file.name, record.get(file.url)
    expected = file.digest or (Digest("sha256", before["sha256"]) if before else None)
    if not path.is_file() or (expected and expected.of(path) != expected):
        download(file.url, path, expected)
    compared = str(expected) if expected else "nothing: no hash was published, the first fetch is trusted"
    entry = {"file": file.name, "bytes": path.stat().st_size, "sha256": sha256(path), "compared_with": compared}
    if file.unpacked:
        entry["files"] = unpack(path, folder)
        path.unlink()
    record[file.url] = entry
    print(f"{file.name}: {entry['bytes']:,} bytes, sha256 {entry['sha256']}, compared with {compared}")
