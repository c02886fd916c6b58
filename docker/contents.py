"""What an image is made of, as JSON on standard output: a build step runs this with the Python of the environment.

The same packages give the same bytes. Compiled bytecode does not count: it is made in the image.
"""

import csv
import hashlib
import importlib.metadata
import json
import platform
import re
import subprocess


def main() -> None:
    contents = {"python": platform.python_version(), "debian": debian_packages(), "distributions": distributions()}
    print(json.dumps(contents, indent=1, sort_keys=True))


def debian_packages() -> dict[str, str]:
    """Return name -> version of every installed Debian package."""
    done = subprocess.run(["dpkg-query", "--show", "--showformat", "${binary:Package}\t${Version}\n"],
                          capture_output=True, text=True, check=True)
    return dict(line.split("\t") for line in done.stdout.splitlines())


def distributions() -> dict[str, dict[str, str | int]]:
    """Return what `describe` says of every distribution of this environment, by name."""
    return {re.sub(r"[-_.]+", "-", found.metadata["Name"]).lower(): describe(found)
            for found in importlib.metadata.distributions()}


def describe(distribution: importlib.metadata.Distribution) -> dict[str, str | int]:
    """Return the version, the SHA-256 of the list of files (which has a hash of each), and the size in bytes."""
    record = distribution.read_text("RECORD")
    if record is None:
        raise ValueError(f"{distribution.metadata['Name']}: it has no RECORD of its files; pip writes one")
    rows = sorted(row for row in csv.reader(record.splitlines()) if not row[0].endswith(".pyc"))
    lines = "\n".join(",".join(row) for row in rows)
    return {"version": distribution.version, "record_sha256": hashlib.sha256(lines.encode()).hexdigest(),
            "bytes": sum(int(row[2]) for row in rows if row[2])}


if __name__ == "__main__":
    main()
