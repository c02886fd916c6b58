"""Files of a repository on the Hugging Face hub, found by their names: where they lie, their size, their hash."""

import json
import os
import re
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from repblend.download import TIMEOUT_SECONDS, Digest


def endpoint() -> str:
    """Return the hub's address; `HF_ENDPOINT` names another one, as for the hub's own client."""
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


@dataclass(frozen=True)
class HubFile:
    """A file that the hub lists."""

    url: str
    num_bytes: int
    digest: Digest | None
    """The hub keeps the SHA-256 of large files; None for others."""


def find_hub_files(repository: str, names: list[str]) -> dict[str, HubFile]:
    """Return where files lie in a repository, whatever folder they are in.

    Args:
        repository: `models/OWNER/NAME` or `datasets/OWNER/NAME`.
        names: file names without folders.

    Raises:
        ValueError: the hub does not answer, or has none or several files of a name.
    """
    listed = _list(repository)
    found = {}
    for name in names:
        entries = [entry for entry in listed if entry["type"] == "file" and PurePosixPath(entry["path"]).name == name]
        if len(entries) != 1:
            raise ValueError(f"{endpoint()}/{_page(repository)}: expected one file {name}, found {len(entries)}. Look "
                             "there, fetch it by hand, and put it into the dataset's folder")
        found[name] = _file(repository, entries[0])
    return found


def _file(repository: str, entry: dict[str, Any]) -> HubFile:
    digest = Digest("sha256", entry["lfs"]["oid"]) if "lfs" in entry else None
    return HubFile(f"{endpoint()}/{_page(repository)}/resolve/main/{entry['path']}", entry["size"], digest)


def _page(repository: str) -> str:
    return repository.removeprefix("models/")


def _list(repository: str) -> list[dict[str, Any]]:
    url: str | None = f"{endpoint()}/api/{repository}/tree/main?recursive=true"
    entries: list[dict[str, Any]] = []
    while url:
        try:
            with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as response:
                entries += json.load(response)
                following = re.search(r'<([^>]+)>;\s*rel="next"', response.headers.get("Link", ""))
        except (OSError, ValueError) as error:
            raise ValueError(f"{url}: the hub does not list the files ({error}). Try later") from error
        url = following.group(1) if following else None
    return entries
