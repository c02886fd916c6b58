"""Replay recordings: `python -m repblend.parity FILE.npz ...` (also `repro parity`).

Prints the largest difference per array and exits 1 when one is above its tolerance, 2 when a file cannot be replayed.
"""

import sys
from pathlib import Path

import torch

from repblend.files import named
from repblend.parity.fixture import Difference, Fixture, differences, tolerance
from repblend.parity.recordings import recognise


def compare_file(path: Path) -> list[Difference]:
    """Replay one recording and compare every output it holds.

    Raises:
        ValueError: the file is not a recording of a known kind, or lacks an array.
    """
    fixture = Fixture(path)
    kind = recognise(fixture)
    with named(path, "a recording whose arrays fit together", "Record it again"):  # a replay trusts their shapes
        recorded = kind.recorded(fixture)
        if not recorded:
            raise ValueError("it has no output")
        loss = fixture.text("cfg_loss_type") if "cfg_loss_type" in fixture else ""

        def tolerance_of(name: str) -> float:
            own = kind.tolerance
            return own(fixture, name) if own else tolerance(kind.name, name, loss, fixture.precision)

        return list(differences(kind.replay(fixture), recorded, tolerance_of, kind.absolute))


def main(arguments: list[str]) -> int:
    """Compare every file named; return the exit code."""
    if not arguments:
        print("usage: python -m repblend.parity FILE.npz ...", file=sys.stderr)
        return 2
    torch.set_num_threads(1)
    failed = 0
    for path in map(Path, arguments):
        try:
            results = compare_file(path)
        except (ValueError, OSError) as error:
            print(error, file=sys.stderr)
            return 2
        failed += sum(not result.passed for result in results)
        _print(path, results)
    print(f"{len(arguments)} recordings, {failed} arrays out of tolerance")
    return 1 if failed else 0


def _print(path: Path, results: list[Difference]) -> None:
    worst = max(results, key=lambda result: result.value / (result.tolerance or 1.0))
    verdict = "ok" if all(result.passed for result in results) else "DIFFERS"
    print(f"{path.name}: {verdict}; {len(results)} arrays, worst {worst.name} {worst.value:.1e}")
    for result in results:
        mark = "" if result.passed else "   <-- out of tolerance"
        print(f"  {result.name:<36} {result.value:9.2e}  (tolerance {result.tolerance:.0e}){mark}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
