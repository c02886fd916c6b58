"""`repro data check`: say everything that is wrong with a dataset, or write down what it is made of."""

import sys
from pathlib import Path

from repblend.data.check import Report, check, write_manifest
from repblend.data.source import Source, source_of
from repblend.store import JSON
from repro.data_entry import find_entry
from repro.workspace import find_root

JOURNALS = Path("checkpoints/data")


def main(name: str, folder: Path | None) -> int:
    """Check a dataset and print what is wrong with it; return 0 if nothing is, and write its manifest."""
    try:
        root = find_root()
        source = source_of(find_entry(root, name, folder), root)
        return check_source(root, source) or tell_parameter(root, name, folder)
    except (ValueError, OSError) as error:
        print(f"repro data check: {error}", file=sys.stderr)
        return 1


def check_source(root: Path, source: Source) -> int:
    """Check a dataset, print what is wrong, write its manifest if nothing is; return the exit code.

    Raises:
        ValueError: no shard is where the parameters say.
        OSError: the manifest cannot be written.
    """
    journal = root / JOURNALS / f"{source.name}.jsonl"
    report = check(source, journal)
    _print(source, report)
    if report.problems:
        return 1
    write_manifest(source, report)
    journal.unlink(missing_ok=True)
    print(f"Nothing is wrong. Written down in {source.manifest}")
    return 0


def tell_parameter(root: Path, name: str, folder: Path | None) -> int:
    """Say which parameter leads a run to a folder that was given by hand, unless it does so already; return 0."""
    if folder is not None and (root / find_entry(root, name).folder).resolve() != folder.resolve():
        print(f"A run looks where data.folder of its params.yaml says. To use this copy, set it to {folder.absolute()}")
    return 0


def _print(source: Source, report: Report) -> None:
    for problem in report.problems:
        print(problem)
    for note in report.notes:
        print(f"note: {note} (as published: the counts are right)")
    print(f"{source.name}: {', '.join(_line(split, found) for split, found in report.counts.items())}")
    if report.problems:
        print(f"{len(report.problems)} to mend")


def _line(split: str, found: JSON) -> str:
    return f"{split} {found['images']:,} images with {found['captions']:,} captions"
