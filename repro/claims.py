"""`repro claims`: what the papers claim, and whether it holds here.

The computation is that of the reports' first section (`repblend.report.verdicts`), from the same records. Where these
were not brought, the metrics that git keeps stand in, as far as `dvc.lock` knows them: means and deviations over
students; of the bytes of trajectories the lock has the sizes. Whether `params.yaml` has changed since can be asked of
records alone.
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import FiniteFloat, TypeAdapter

from repblend.params import Params, read_params
from repblend.records.base import read_typed
from repblend.records.results import METRIC_NAMES
from repblend.report import evidence as multimodal
from repblend.report.claims import read_entries
from repblend.report.grid_records import GridRecords
from repblend.report.intervals import SetResult
from repblend.report.verdicts import RULE, Claim, claims_text, counted_words, judge
from repblend.runtime.locked import LOCK, Lock, outdated
from repblend.ufc.report import evidence as unimodal
from repblend.ufc.report.ufc_records import UfcRecords
from repro.profiles import Profile, names, opened
from repro.workspace import find_root

FLAT = TypeAdapter(dict[str, FiniteFloat])
METRICS = "metrics/held-out"


class Committed:
    """The metrics and the lock that git keeps of a workspace."""

    def __init__(self, profile: Profile) -> None:
        self.root = profile.workspace
        self.num = profile.kind.num_students(profile.params())
        self.lock = Lock.read(self.root / LOCK) if (self.root / LOCK).is_file() else None
        self.unfit: Mapping[str, str] = outdated(self.root, self.lock, profile.kind.pipeline) if self.lock else {}

    def _is_fit(self, path: str) -> bool:
        return path not in self.unfit and (self.lock is None or path in self.lock.outputs)

    def result(self, cell: str, key: str) -> tuple[SetResult, str] | None:
        """Return a number of a cell with its deviation over students, and the file that has it.

        Raises:
            ValueError: the file does not hold plain numbers, this one among them.
        """
        path = f"{METRICS}/{cell}.json"
        if not (self.root / path).is_file() or not self._is_fit(path):
            return None
        mend = f"Bring it back with `git restore {path}`"
        found = read_typed(self.root / path, FLAT, "metrics file", mend)
        if key not in found:
            raise ValueError(f"{self.root / path}: lacks {key}. {mend}")
        return SetResult(found[key], found.get(f"{key}_std", 0.0), self.num if f"{key}_std" in found else 1), path


@dataclass(frozen=True)
class MultimodalEvidence(multimodal.Evidence):
    """Records, and what git keeps where there are none."""

    committed: Committed

    def recall(self, cell: str, metric: str) -> tuple[SetResult, str] | None:
        key: Any = metric
        return super().recall(cell, metric) or self.committed.result(cell, METRIC_NAMES[key])

    def trajectory_bytes(self, encoder: bool) -> tuple[int, str] | None:
        lock, name = self.committed.lock, f"{'encoder-' * encoder}experts"
        if (found := super().trajectory_bytes(encoder)) or lock is None or name not in lock.outputs:
            return found
        params = read_params(self.records.root / "params.yaml")
        experts = params.encoder_experts if encoder else params.experts
        return (lock.outputs[name].num_bytes // experts.num, LOCK) if name not in self.committed.unfit else None


@dataclass(frozen=True)
class UnimodalEvidence(unimodal.UfcEvidence):
    """Records, and what git keeps where there are none."""

    committed: Committed

    def accuracy(self, metric: str, cell: str) -> tuple[SetResult, str] | None:
        found = super().accuracy(metric, cell)
        return found or (self.committed.result(cell, "accuracy") if metric == "best" else None)


def claims_of(profile: Profile) -> list[Claim]:
    """Return every claim about a profile's method with what its workspace says of it.

    Raises:
        ValueError: `paper/claims.yaml`, `params.yaml`, a record or a metrics file is not as expected.
    """
    committed = Committed(profile)
    if is_multimodal(profile):
        return multimodal.claims_of(MultimodalEvidence(GridRecords.of(profile.workspace), committed))
    return unimodal.claims_of(UnimodalEvidence(UfcRecords.of(profile.workspace), committed))


def is_multimodal(profile: Profile) -> bool:
    """Whether a profile is one of RepBlend; else it is one of UFC."""
    return profile.kind.params is Params


class OfProfile(NamedTuple):
    """The claims about a profile's method, as its workspace answers them."""

    profile: str
    claims: Sequence[Claim]
    instead: str = ""
    """What is said in place of the claims, in words."""
    note: str = ""


def main(name: str | None, as_json: bool) -> int:
    """`repro claims`: print every claim of a profile; without a name, of each claim's own profiles. Return the exit
    code.
    """
    try:
        found = [*_found(find_root(), name)]
    except (ValueError, OSError) as error:
        print(f"repro claims: {error}", file=sys.stderr)
        return 1
    if as_json:
        print(json.dumps([{"profile": each.profile, "claims": [claim.to_json() for claim in each.claims]}
                          for each in found], indent=1, ensure_ascii=False))
        return 0
    for each in found:
        print(f"{each.profile}: {counted_words(each.claims)}\n\n{each.instead or claims_text(each.claims)}\n")
        if each.note:
            print(f"{each.note}\n")
    print(RULE)
    return 0


def _found(root: Path, name: str | None) -> Iterator[OfProfile]:
    entries = read_entries(root)
    known = names(root)
    for wanted in [name] if name else dict.fromkeys(each for entry in entries for each in entry.profiles):
        found = opened(root, wanted) if name or wanted in known else []
        if not found:
            none = [judge(root, entry, ()) for entry in entries if wanted in entry.profiles]
            yield OfProfile(wanted, none, f"There is no workspace of {wanted} yet: none of its claims was run.")
        for profile in found:
            claims = claims_of(profile)
            note = "" if (profile.workspace / "records").is_dir() else (
                f"No records of {profile.name} are here, only the metrics that git keeps. What these do not hold "
                f"(courses, collapse, other encoders and tasks) is 'not run' above: `repro pull metrics --profile "
                f"{profile.name}` brings the records, or `repro run` makes them.")
            yield OfProfile(profile.name, claims if name else [
                claim for claim in claims if wanted in claim.entry.profiles], "", note)
