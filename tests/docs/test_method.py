"""paper/METHOD.md names the functions that compute its formulas: each of them exists where it says."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
METHOD = (ROOT / "paper/METHOD.md").read_text()


def test_every_named_function_exists() -> None:
    citations = re.findall(r"\[(`[\w/]+\.py`:[^]]+)\]", METHOD)
    named = [(path, name) for citation in citations for path, names in re.findall(r"`([\w/]+\.py)`: ([^;]+)", citation)
             for name in re.findall(r"`(\w+)`", names)]
    assert len(named) > 80
    missing = [f"{path}: {name}" for path, name in named if not _defines(ROOT / "src/repblend" / path, name)]
    assert missing == []


def test_the_table_of_methods_is_what_is_declared() -> None:
    from repblend.methods import METHODS

    rows = [[cell.strip() for cell in row.split("|")] for row in re.findall(
        r"^\| ((?:MTT|TESLA|LoRS|RepBlend).*) \|$", METHOD, re.MULTILINE)]
    similarity = {"identity": "identity", "low-rank": "diagonal + low rank"}
    gradient = {"unrolled": "unrolled", "constant-memory": "constant memory", "heads": "constant memory"}
    declared = [[method.title, method.matched.removeprefix("image-"), similarity[method.similarity],
                 "yes" if method.perturbation == "blending" else "no", gradient[method.gradient]]
                for method in METHODS.values() if method.perturbation != "noise"]
    assert sorted(rows) == sorted(declared)


def _defines(path: Path, name: str) -> bool:
    return path.is_file() and bool(re.search(rf"^(?:def|class) {name}\b|^{name}\b.*=", path.read_text(), re.MULTILINE))
