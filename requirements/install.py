"""Look at this machine, say what is downloaded, and install the locked packages: what `make install` runs.

    install.py check             before the environment is made: Python, machine, disk, memory, network
    install.py pip ARGUMENTS     `pip install ARGUMENTS` in this Python's environment, with a line of progress
    install.py compile           compile all that was installed, on all processors, which pip would do on one
    install.py measure FILE ...  write download.json from locks that name sizes (`make lock`)

Nothing but the standard library is imported: no package is there yet.
"""

import compileall
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
DOWNLOAD = HERE / "download.json"
"""Machine -> packages, bytes and the largest of them."""
LOCKS = ("lock.txt", "tools.txt")
PYTHONS = ((3, 11), (3, 12), (3, 13))
RECORDED = "Python 3.11 on Linux x86_64"
"""What results are recorded with, and tests run on."""
MACHINES = {"x86_64-manylinux_2_28": "Linux x86_64", "aarch64-manylinux_2_28": "Linux aarch64",
            "aarch64-apple-darwin": "Darwin arm64"}
"""Platform, as the lock is made for it -> system and processor, as Python calls them."""
GB, MB = 1e9, 1e6
NEEDED_DISK, NEEDED_MEMORY = 8 * GB, 4 * GB
PROBE = "annotated-types"
"""A package of some kilobytes, asked for to see whether the index answers."""


def main(arguments: list[str]) -> int:
    match arguments:
        case ["check"]:
            return check()
        case ["pip", *options]:
            return install(options)
        case ["compile"]:
            return compile_all(Path(sysconfig.get_path("purelib")))
        case ["measure", *files]:
            return measure([Path(file) for file in files])
    print(__doc__, file=sys.stderr)
    return 2


def check() -> int:
    """Print what the installation brings, or what this machine lacks; return 1 if it cannot work."""
    version, machine = sys.version_info[:2], f"{platform.system()} {platform.machine()}"
    sizes = json.loads(DOWNLOAD.read_text("utf-8"))
    if version not in PYTHONS:
        return refuse(f"Python {platform.python_version()}, expected 3.11, 3.12 or 3.13. Name one: make "
                      "PYTHON=python3.11 reproduce")
    if machine not in sizes:
        return refuse(f"{machine}: the packages are locked for {', '.join(sizes)}. Use one of these")
    free = shutil.disk_usage(HERE).free
    if free < NEEDED_DISK:
        return refuse(f"{HERE.parent}: {free / GB:.1f} GB free, expected {NEEDED_DISK / GB:.0f} GB. Free some space, "
                      "or clone to a larger disk")
    size = sizes[machine]
    largest = ", ".join(f"{name} {number / MB:.0f} MB" for name, number in size["largest"].items())
    print(f"Downloading once from the package index: {size['packages']} packages, {size['bytes'] / GB:.1f} GB "
          f"({largest} are the largest), into .venv and pip's cache; {free / GB:.0f} GB are free. Nothing "
          "else is downloaded.")
    here = f"Python {version[0]}.{version[1]} on {machine}"
    if here != RECORDED:
        print(f"{here}: results were recorded, and tests are run, with {RECORDED}. The lock is made for both.")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if memory < NEEDED_MEMORY:
        print(f"Memory: {memory / GB:.1f} GB, less than the {NEEDED_MEMORY / GB:.0f} GB that the quickstart was "
              "measured to fit into.")
    return 0 if index_answers() else refuse("the package index does not answer: is this machine offline? `pip config "
                                            "list` shows which index is asked, and by which proxy")


def index_answers() -> bool:
    """Whether pip can bring a package; where this Python has no pip, the environment's will tell."""
    version = re.search(rf"^{PROBE}==([^\s;]+)", (HERE / LOCKS[0]).read_text("utf-8"), re.M)
    assert version, f"{PROBE} is locked"
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-cache-dir",
                               "--retries", "0", "--timeout", "10", "--dest", folder, f"{PROBE}=={version[1]}"],
                              capture_output=True, text=True, check=False)
    return done.returncode == 0 or "No module named pip" in done.stderr


def refuse(reason: str) -> int:
    print(f"make install: {reason}", file=sys.stderr)
    return 1


def install(options: list[str]) -> int:
    """Run pip and show how far it is; return its exit code. What it says beside is in .venv/install.log."""
    names = [name for option in options if option.endswith(".txt")
             for name in re.findall(r"^([A-Za-z0-9._-]+)==", Path(option).read_text("utf-8"), re.M)]
    command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--progress-bar", "off",
               "--no-compile", *options]
    shown, seen = Line(), 0
    with (Path(sys.prefix) / "install.log").open("a", encoding="utf-8") as log, subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"}) as pip:
        assert pip.stdout is not None
        for line in pip.stdout:
            log.write(line)
            if line.startswith("Collecting "):
                seen += 1
            if found := re.match(r"\s*(?:Downloading|Using cached) ([^\s/]+?)-[^\s]*(?: \((.*)\))?", line):
                size = f" ({found[2]})" if found[2] else ""
                shown.write(f"packages: {seen} of at most {len(names)}, {found[1]}{size}", seen % 25 == 0)
            elif line.startswith("Installing collected packages"):
                shown.write("packages: all are here; unpacking takes about a minute", True)
    shown.write(f"packages: installed ({len(names)} locked)" if pip.returncode == 0 else "", pip.returncode == 0)
    if pip.returncode:
        refuse("pip stopped, see above. Run the same command again: what was downloaded is kept in pip's cache")
    return pip.returncode


def compile_all(folder: Path) -> int:
    """Compile the sources in a folder. Those that cannot be, for a later Python or as a template, are left."""
    print("packages: compiling what was installed", flush=True)
    compileall.compile_dir(folder, quiet=2, workers=0)
    return 0


class Line:
    """A line that is written over in a terminal; elsewhere only what matters is printed, a line each."""

    def write(self, text: str, matters: bool) -> None:
        if sys.stdout.isatty():
            print(f"\r\x1b[K{text}", end="\n" if matters else "", flush=True)
        elif matters:
            print(text, flush=True)


def measure(files: list[Path]) -> int:
    """Write what every machine downloads: of each package the first wheel that fits, else its source archive."""
    import tomllib

    found = {}
    for platform_name, machine in MACHINES.items():
        sizes = {}
        for file in (file for file in files if platform_name in file.name):
            for package in tomllib.loads(file.read_text("utf-8"))["packages"]:
                fitting = [wheel for wheel in package.get("wheels", []) if "-none-any" not in wheel["url"]]
                sizes[package["name"]] = (*fitting, *package.get("wheels", []), package.get("sdist"))[0]["size"]
        largest = sorted(sizes, key=lambda name: -sizes[name])[:3]
        found[machine] = {"packages": len(sizes), "bytes": sum(sizes.values()),
                          "largest": {name: sizes[name] for name in largest}}
    DOWNLOAD.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
