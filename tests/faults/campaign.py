"""Faults at chosen points of a command, one after the other, and what has to hold after each of them."""

import os
import random
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from repblend.store import sha256
from tests.faults.points import NEEDING_SPACE, SIGNALS, Fault, Point
from tests.faults.server import Run, Server
from tests.locked import lock_everything

VOLATILE = ("checkpoints/locks", "logs", "runs.jsonl", ".git/", ".dvc/tmp", ".dvc/cache/runs")
"""What differs from run to run, and stays where a run was."""
TEMPORARY = "tmp"
"""Where a run's temporary files go, in its folder."""
INTERRUPTS = 1
"""Signals at random moments, for each command; those at points come besides."""
YEARS = 20 * 365 * 86400.0


@dataclass
class Campaign:
    """Faults of all commands that run in one folder."""

    server: Server
    folder: Path
    budget_seconds: float
    """How long the faults of one command may take, by what an undisturbed run takes."""
    others: bool = False
    """Whether DVC writes: how it ends, in whose words, and what it leaves in its cache is not ours to say."""
    at_least: int = 4
    at_most: int = 5
    done: set[tuple[str, ...]] = field(default_factory=set)
    failures: list[str] = field(default_factory=list)
    covered: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """Kind of fault, operation and place -> how often it happened."""
    _hashes: dict[tuple[str, int, int, int], str] = field(default_factory=dict)

    def catch_up(self, commands: Sequence[Sequence[str]]) -> None:
        """Run commands that did not run yet, undisturbed."""
        for command in commands:
            if tuple(command) not in self.done:
                self.record(command)
                self._undisturbed(command)

    def record(self, command: Sequence[str]) -> None:
        """Write dvc.lock before a command that compares what it uses with it."""
        if command[0] in ("export", "report", "ufc-report"):
            lock_everything(self.folder)

    def _undisturbed(self, command: Sequence[str]) -> Run:
        run = self.server.run(self.folder, *command)
        assert run.code == 0, run.output
        self.done.add(tuple(command))
        return run

    def of(self, command: Sequence[str], seed: int) -> int:
        """Run a command undisturbed and then with faults; return how many faults happened.

        The folder is left as the undisturbed run left it.
        """
        self.record(command)
        before = self.state()
        undisturbed = self._undisturbed(command)
        expected, draws, hits = self.state(), random.Random(seed), 0
        self.failures.clear()
        number = int(self.budget_seconds / undisturbed.seconds)
        number = max(self.at_least, min(number, self.at_most))
        for turn, fault in enumerate(self.choose(undisturbed.trace, draws, number)):
            self.begin(before, again=turn % 2 == 1)
            self.check(command, expected, fault.kind, self.server.run(self.folder, *command, fault=fault), str(fault))
            hits += 1
        for _ in range(INTERRUPTS):
            self.begin(before, again=False)
            name, moment = draws.choice([*SIGNALS, "SIGKILL"]), draws.uniform(0, undisturbed.seconds)
            run = self.server.run(self.folder, *command, interrupt=(name, moment))
            hits += run.code != 0  # else it was over before
            self.check(command, expected, "kill" if name == "SIGKILL" else name, run, f"{name} after {moment:.3f} s")
        self.begin(before, again=False)
        self.age(draws)
        run = self.server.run(self.folder, *command, clock=(draws.choice((-YEARS, YEARS)), draws.randrange(20)))
        assert run.code == 0 and self.state() == expected, f"{command} with a clock that jumps: {run.output}"
        assert not self.failures, "\n\n".join(self.failures)
        return hits + 1

    def choose(self, trace: Sequence[Point], draws: random.Random, number: int) -> Iterator[Fault]:
        """Yield faults at points of a run, such first that happened least often."""
        places = {(point.operation, point.place): point.occurrence for point in trace}
        kinds = {place: ["kill", "fail", *SIGNALS, *(["full"] if place[0] in NEEDING_SPACE else [])]
                 for place in places}
        for _ in range(number):
            key = min(((kind, *place) for place in sorted(places) for kind in kinds[place]),
                      key=lambda key: (self._times(key), draws.random()))
            self.covered[key] += 1
            yield Fault(key[0], Point(*key[1:], draws.randrange(places[key[1:]] + 1)))

    def _times(self, key: tuple[str, str, str]) -> tuple[int, int]:
        """How often a kind happened at a line, whoever called it; and at this place. The three signals are one kind."""
        line = key[2].partition(" < ")[0]
        same = [count for other, count in self.covered.items() if (_kind(other), other[1], other[2].partition(" < ")[0])
                == (_kind(key), key[1], line)]
        return sum(same), self.covered[key]

    def check(self, command: Sequence[str], expected: dict[str, str], kind: str, run: Run, what: str) -> None:
        """Check how a run ended with a fault, and that the next one makes the same of it."""
        try:
            self._check(command, expected, kind, run, what)
        except AssertionError as error:
            self.failures.append(str(error))

    def _check(self, command: Sequence[str], expected: dict[str, str], kind: str, run: Run, what: str) -> None:
        said = f"{' '.join(command)}, {what}: {run.code}, {run.output}"
        ours = not (self.others and kind == "SIGINT")  # DVC runs in a session of its own, which Ctrl-C does not reach
        assert "Traceback" not in run.output or not ours, said
        if kind == "kill":
            assert run.code in (-9, 0), said
            shutil.rmtree(self.folder / TEMPORARY)
        elif kind in SIGNALS:
            assert run.code in (-SIGNALS[kind], 128 + SIGNALS[kind], 0, 1) or self.others, said
        elif kind == "full":
            last = run.output.strip().splitlines()[-1]
            assert self.others or (run.code == 1 and "o space left" in last and str(self.folder) in last), said
        else:
            assert run.code in (0, 1) or self.others, said
        if kind in ("full", "fail"):
            assert not any((self.folder / TEMPORARY).rglob("*")), said
        again = self.server.run(self.folder, *command)
        assert again.code == 0, f"{said}\nagain: {again.output}"
        found = self.state()
        different = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
        assert not different, f"{said}\nagain: {again.output}\ndifferent: {different}"
        assert not [*self.folder.rglob("*.partial"), *self.folder.rglob("*.holder.json")], said

    def begin(self, before: dict[str, str], again: bool) -> None:
        """Make the folder as it was before the command, or, `again`, leave its outputs where they are."""
        for name in [] if again else sorted(self.state().keys() - before.keys(), reverse=True):
            path = self.folder / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        (self.folder / TEMPORARY).mkdir(exist_ok=True)

    def state(self) -> dict[str, str]:
        """Return every file with its SHA-256, and every folder, by their paths in the folder."""
        found, left_out = {}, (*VOLATILE, TEMPORARY, *((".dvc/cache",) if self.others else ()))
        for path in self.folder.rglob("*"):
            name = path.relative_to(self.folder).as_posix()
            unfinished = self.others and path.suffix == ".tmp"  # DVC's, in a store
            if not name.startswith(left_out) and name != "checkpoints" and not unfinished:
                status = path.stat()
                key = name, status.st_ino, status.st_mtime_ns, status.st_ctime_ns
                if path.is_file() and key not in self._hashes:
                    self._hashes[key] = sha256(path)
                found[name] = self._hashes[key] if path.is_file() else "folder"
        return found

    def age(self, draws: random.Random) -> None:
        """Give every file another time of change, in the past or in the future."""
        for path in self.folder.rglob("*"):
            os.utime(path, (draws.uniform(0, 4e9),) * 2)


def _kind(key: tuple[str, str, str]) -> str:
    return "signal" if key[0] in SIGNALS else key[0]
