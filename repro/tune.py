"""`repro tune`: search the settings of a method that matter, on the validation split alone, and write down the best.

Optuna's TPE proposes trials; `repblend.tuning` runs them in a process of its own. A study is one method at one budget,
a file of JSON lines in the workspace's `paper/studies` that a killed search goes on from. What a trial proposes follows
from the named seed, the number of finished trials and these trials alone. Every search is told how many minutes of
trials, or how many trials, it may take in all, so that methods can be given the same.
"""

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap

from repblend.grid import Cell
from repblend.methods import find_method
from repblend.params import Params
from repblend.report.table import in_columns
from repblend.runtime.locked import check_fit
from repblend.runtime.processes import only_writer
from repblend.store import JSON, fingerprint, sha256, write_bytes
from repro import run
from repro.pipeline import KINDS, MULTIMODAL, WIDTH
from repro.profiles import Profile, profile_of
from repro.workspace import find_root, workspace_environment

if TYPE_CHECKING:
    import optuna

STUDIES = Path("paper/studies")
"""In the workspace: `<cell>.jsonl` for every study, and its plot."""
STARTUP_TRIALS = 5
"""Drawn at random, before proposals follow from what was found; the first has the settings as they are."""
FACTOR = 5
"""Rates are searched from a fifth of the present value to five times it."""
MOST_STARTS, MOST_SEGMENTS = 8, 4
DIGITS = 3
"""Of a rate, significant: what is written is what was tried."""
LEAST_BATCH = 4


@dataclass(frozen=True)
class Range:
    """A setting, and between which values it is searched."""

    key: str
    """Field of the cell's settings, as `optimiser.lr.images`; of a coreset `lr_img` or `lr_txt`."""
    low: float
    high: float
    now: float
    """The present value: that of the first trial."""
    log: bool = False
    whole: bool = False
    last_with: str | None = None
    """Another whole number that this one must not exceed `high` with, less one: segments end at the last snapshot."""


class Outcome(NamedTuple):
    """What a trial gave."""

    value: float | None
    """Mean recall on validation, percent; None if it diverged."""
    seconds: float
    failed: str | None = None


Evaluate = Callable[[Mapping[str, Any]], Outcome]
"""From the values of all settings of a space to what they give."""


class Limit(NamedTuple):
    """What a study may take in all, earlier sessions included."""

    minutes: float
    """Of trials. A trial that would not end in time, as the longest so far took, is not begun; one is in any case."""
    trials: int | None


def rate(key: str, now: float) -> Range:
    """Return the range of a rate."""
    return Range(key, now / FACTOR, now * FACTOR, now, log=True)


def space_of(cell: Cell, params: Params, last_snapshot: int) -> list[Range]:
    """Return the settings of a cell that mattered in `paper/FINDINGS.md`, and their ranges.

    Args:
        last_snapshot: the last one that the experts have.

    Raises:
        ValueError: the parameters have no such method or cell.
    """
    if cell.is_coreset:
        select, evaluate = params.select, params.evaluate.encoder_coresets
        if cell.base_method not in select.lr_img:
            raise ValueError(f"--method {cell.method}: select.lr_img has no {cell.base_method}; expected a method that "
                             f"distils, or one of {', '.join(select.lr_img)}")
        rates = ((evaluate.lr_img, evaluate.lr_txt) if cell.trains_encoder else
                 (select.lr_img[cell.base_method], select.lr_txt[cell.base_method]))
        return [rate(key, now) for key, now in zip(("lr_img", "lr_txt"), rates, strict=True)]
    settings, method = params.distill.settings(str(cell)), find_method(cell.base_method)
    pairs, rates = method.num_pairs(cell.budget), settings.optimiser.lr
    found = [
        Range("max_start", 1, min(MOST_STARTS, last_snapshot), min(settings.max_start, MOST_STARTS), whole=True),
        Range("expert_span", 1, last_snapshot, settings.expert_span, whole=True, last_with="max_start"),
        Range("batch_size", min(LEAST_BATCH, pairs), pairs, min(settings.batch_size, pairs), log=True, whole=True),
        Range("segments", 1, max(MOST_SEGMENTS, settings.segments), settings.segments, whole=True),
        rate("initial_lr_img", settings.initial_lr_img), rate("initial_lr_txt", settings.initial_lr_txt),
        rate("optimiser.lr.images", rates.images), rate("optimiser.lr.texts", rates.texts)]
    return found if method.similarity == "identity" else [*found, rate("optimiser.lr.similarity", rates.similarity)]


# The search: a study in a file, from whose finished trials the next follows.


def open_study(file: Path, name: str, setting: JSON) -> "optuna.Study":
    """Open a study, or begin one; trials that a killed search left unfinished are marked as failed.

    The caller holds the study's lock.

    Args:
        setting: what its values are of.

    Raises:
        ValueError: the file holds a study of something else.
    """
    import optuna  # slow to import, and nothing else needs it
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    class Held(JournalFileOpenLock):
        """The study's lock is held already; Optuna's own would outlive a killed search."""

        def acquire(self) -> bool:
            return True

        def release(self) -> None:
            pass

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.is_file():  # a line that a kill has cut off
        content = file.read_bytes()
        if not content.endswith(b"\n"):
            write_bytes(file, content[:content.rfind(b"\n") + 1])
    study = optuna.create_study(storage=JournalStorage(JournalFileBackend(str(file), Held(str(file)))), study_name=name,
                                direction="maximize", load_if_exists=True)
    if not study.user_attrs:
        study.set_user_attr("setting", setting)
    elif study.user_attrs["setting"] != setting:
        raise ValueError(f"{file}: is a study of other parameters or data. Rename it to keep it, or remove it")
    for trial in study.get_trials(states=(optuna.trial.TrialState.RUNNING,)):
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    return study


def search(study: "optuna.Study", space: Sequence[Range], seed: int, limit: Limit, evaluate: Evaluate,
           tell: Callable[[str], None] = print) -> None:
    """Run trials until the limit is reached; the first one of a study has the present settings."""
    import optuna

    while _goes_on(finished(study), limit):
        done = len(finished(study))
        if not done and not study.get_trials(states=(optuna.trial.TrialState.WAITING,)):
            study.enqueue_trial({each.key: each.now for each in space})
        study.sampler = optuna.samplers.TPESampler(n_startup_trials=STARTUP_TRIALS, multivariate=False,
                                                   seed=seed_of(seed, study.study_name, done))
        trial = study.ask()
        values = propose(trial, space)
        outcome = evaluate(values)
        for key, value in (("values", values), ("seconds", outcome.seconds), ("failed", outcome.failed)):
            trial.set_user_attr(key, value)
        study.tell(trial, 0.0 if outcome.value is None else outcome.value)  # no recall is lower
        tell(f"trial {done}: {'diverged' if outcome.value is None else f'{outcome.value:.2f} %'} in "
             f"{outcome.seconds:.0f} s, {_shown(values)}")


def finished(study: "optuna.Study") -> list["optuna.trial.FrozenTrial"]:
    """Return the trials that came to their end, those that diverged too, in the order in which they were begun."""
    import optuna
    return study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))


def _goes_on(done: Sequence["optuna.trial.FrozenTrial"], limit: Limit) -> bool:
    seconds = [trial.user_attrs["seconds"] for trial in done]
    if not done:
        return True
    return (limit.trials is None or len(done) < limit.trials) and sum(seconds) + max(seconds) <= 60 * limit.minutes


def seed_of(seed: int, study: str, done: int) -> int:
    """Return the seed of a proposal by its name: another search, interrupted or not, proposes the same."""
    digest = hashlib.sha256("\x1f".join(("tune", str(seed), study, str(done))).encode()).digest()
    return int.from_bytes(digest[:4], "big")


def propose(trial: "optuna.Trial", space: Sequence[Range]) -> dict[str, Any]:
    """Return a value for every setting, rates rounded to what is going to be written."""
    values: dict[str, Any] = {}
    for each in space:
        if each.whole:
            high = each.high - (values[each.last_with] - 1 if each.last_with else 0)
            values[each.key] = trial.suggest_int(each.key, int(each.low), max(int(each.low), int(high)), log=each.log)
        else:
            values[each.key] = float(f"{trial.suggest_float(each.key, each.low, each.high, log=each.log):.{DIGITS}g}")
    return values


def _shown(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key.removeprefix('optimiser.')} {value:g}" for key, value in values.items())


# The process that runs the trials.


class Worker:
    """A process with PyTorch that answers line by line; used as a context."""

    def __init__(self, workspace: Path) -> None:
        self._command = [sys.executable, "-m", "repblend.tuning"]
        self._workspace = workspace

    def __enter__(self) -> "Worker":
        self._process = subprocess.Popen(self._command, cwd=self._workspace, stdin=subprocess.PIPE, text=True,
                                         stdout=subprocess.PIPE, env=workspace_environment(self._workspace))
        return self

    def __exit__(self, *error: object) -> None:
        if error[0] is not None:
            self._process.kill()
        self._process.communicate()

    def ask(self, request: JSON) -> JSON:
        """Return the answer to a request; raises `ValueError` if the process has ended instead."""
        process = self._process
        assert process.stdin and process.stdout
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
        if not (line := process.stdout.readline()):
            raise ValueError(f"the process that runs the trials ended (exit code {process.wait()}); what it said "
                             "stands above. Run the same command to go on")
        found: JSON = json.loads(line)
        return found

    def trial(self, cell: Cell, values: Mapping[str, Any]) -> Outcome:
        """Return what a cell with these settings reaches."""
        found = self.ask({"cell": str(cell), "changes": values})
        return Outcome(found.get("value"), found["seconds"], found.get("failed"))


# What is chosen, in `params.yaml`.


def place_of(cell: Cell, key: str, content: Mapping[str, Any]) -> list[str]:
    """Return where a setting of a cell stands in `params.yaml`: of the method, or of the cell if it has its own."""
    if not cell.is_coreset:
        *sections, last = key.split(".")
        own: Any = content["distill"]["cells"].get(str(cell)) or {}
        for section in sections:
            own = own.get(section) or {}
        of_cell = last in own or "+" in cell.method
        return ["distill", "cells" if of_cell else "methods", str(cell) if of_cell else cell.method, *key.split(".")]
    return ["evaluate", "encoder_coresets", key] if cell.trains_encoder else ["select", key, cell.base_method]


def write_values(file: Path, cell: Cell, values: Mapping[str, Any], source: str) -> None:
    """Write settings into a `params.yaml`, `source` behind each; every other value and all comments stay.

    What an alias stands for is not changed for others: a method gets settings of its own.
    """
    yaml = YAML()
    yaml.width, yaml.preserve_quotes = WIDTH, True
    yaml.representer.add_representer(type(None), lambda representer, value: representer.represent_scalar(
        "tag:yaml.org,2002:null", "null"))
    content = yaml.load(file.read_text("utf-8"))
    for key, value in values.items():
        place, above, section = place_of(cell, key, content), content, content
        for name in place[:-1]:
            section[name] = _own_copy(content, section, name)
            above, section = section, section[name]
        section[place[-1]] = value
        if section.fa.flow_style():
            _comment(above, place[-2], f"{place[-1]}: {source}", beside=True)
        else:
            _comment(section, place[-1], source)
    text = StringIO()
    yaml.dump(content, text)
    write_bytes(file, text.getvalue().encode())


def _comment(section: CommentedMap, key: str, words: str, beside: bool = False) -> None:
    """Put a comment behind a value, in the place of the one there; lines of comments below it stay.

    Args:
        beside: let other parts of the one there stay, as `a: x` beside `b: y`.
    """
    tokens = section.ca.items.get(key)
    before, newline, below = (tokens[2].value if tokens and tokens[2] else "").partition("\n")
    name = words.partition(": ")[0]
    others = [part for part in before.removeprefix("# ").split("; ") if part and part.partition(": ")[0] != name]
    section.yaml_add_eol_comment("; ".join([*others, words]) if beside else words, key)
    token = section.ca.items[key][2]
    token.value = token.value.rstrip("\n") + (newline + below or "\n")


def _own_copy(content: CommentedMap, section: CommentedMap, name: str) -> CommentedMap:
    """Return a section's mapping, in its place: a block of its own, if it is shared by an alias or written as `{}`."""
    found = section.get(name)
    if found is None or (not found and isinstance(found, CommentedMap)):
        return CommentedMap()
    if _times(content, found) > 1:
        copied = CommentedMap(found)
        copied.fa.set_block_style()
        return copied
    return found


def _times(content: Any, wanted: CommentedMap) -> int:
    """How often a mapping stands in another."""
    return sum((value is wanted) + _times(value, wanted) for value in content.values() if isinstance(value, dict))


# The command.


def main(name: str, method: str, budget: int | None, limit: Limit, iterations: int | None, write: bool) -> int:
    """Search a method's settings in a profile's workspace; return the exit code.

    Args:
        budget: of the cell that is tried; by default the largest of the grid.
        iterations: of a trial; by default as many as the method's own.
        write: whether better settings go into `params.yaml`.
    """
    try:
        root = find_root()
        profile = profile_of(root, name)
        if profile.kind is not KINDS[MULTIMODAL]:
            raise ValueError(f"--profile {name}: has images with labels, and its settings are published. Expected a "
                             "profile of images with captions")
        params = profile.params()
        cell = Cell(method, budget or max(params.grid.budgets))
        return _tune(profile, params, cell, limit, iterations, write)
    except (ValueError, OSError) as error:
        print(f"repro tune: {error}", file=sys.stderr)
        return 1


def _tune(profile: Profile, params: Params, cell: Cell, limit: Limit, iterations: int | None, write: bool) -> int:
    workspace = profile.workspace
    space_of(cell, params, 1)  # a wrong method is told before experts are trained for it
    if code := bring(profile, params, cell):
        return code
    file = workspace / STUDIES / f"{cell}.jsonl"
    with only_writer(workspace / f"checkpoints/locks/tune-{cell}.lock", f"study {file.name}"):
        setting = setting_of(workspace, params, cell, iterations)
        study = open_study(file, f"{profile.name}/{cell}", setting)
        space = space_kept(study, cell, params, _last_snapshot(workspace, params, cell))
        fixed: JSON = {}
        if iterations and not cell.is_coreset:
            every = params.distill.settings(str(cell)).validate_every
            fixed = {"iterations": iterations, "validate_every": min(iterations, every)}
        with Worker(workspace) as worker:
            search(study, space, params.seed, limit, lambda values: worker.trial(cell, {**values, **fixed}))
            done = finished(study)
            worker.ask({"plot": str(file.parent), "name": str(cell), "points": [
                (number, trial.value, trial.user_attrs["values"]) for number, trial in enumerate(done)]})
    print(table(done))
    best = max(range(len(done)), key=lambda number: (done[number].value, -number))
    shown = file.relative_to(workspace)
    if not best:
        print(f"No trial of {len(done)} was better than the settings as they are. The study is {file}")
    elif write:
        write_values(workspace / "params.yaml", cell, done[best].user_attrs["values"], f"{shown}, trial {best}")
        print(f"{workspace / 'params.yaml'}: has the settings of trial {best}. The study is {file}")
    else:
        print(f"Trial {best} is the best; nothing was written. The study is {file}")
    return 0


def bring(profile: Profile, params: Params, cell: Cell) -> int:
    """Run what trials of a cell start from, unless it is there and of these parameters; return the exit code."""
    workspace, of_encoder = profile.workspace, not cell.is_coreset and cell.trains_encoder
    needed = ["data/prepared", "features", *([] if cell.is_coreset else ["experts"]), *["encoder-experts"] * of_encoder]
    try:
        if all((workspace / place).exists() for place in needed):
            check_fit(workspace, profile.kind.pipeline, [workspace / place for place in needed])
            return 0
    except ValueError as error:
        print(f"{error}. It is made again first.", flush=True)
    targets = ["encode"] if cell.is_coreset else ["experts", *["encoder-experts"] * of_encoder]
    return run.main(targets, profile.name)


def setting_of(workspace: Path, params: Params, cell: Cell, iterations: int | None) -> JSON:
    """Return what the values of a study are of: all that decides them but the settings that are searched."""
    content = params.model_dump(mode="json")
    sections = {name: content[name] for name in ("compute", "data", "encode", "heads", "experts", "encoder_experts",
                                                 "evaluate")}
    sections["evaluate"].pop("encoder_coresets")
    if not cell.is_coreset:
        searched = {each.key for each in space_of(cell, params, 1)}
        settings = params.distill.settings(str(cell)).model_dump(mode="json")
        settings["optimiser"]["lr"] = {key: value for key, value in settings["optimiser"]["lr"].items()
                                       if f"optimiser.lr.{key}" not in searched}
        sections["settings"] = {key: value for key, value in settings.items() if key not in searched}
    return {"cell": str(cell), "seed": params.seed, "iterations": iterations, "parameters": fingerprint(sections),
            "data": sha256(workspace / "data/prepared/manifest.json")}


def space_kept(study: "optuna.Study", cell: Cell, params: Params, last_snapshot: int) -> list[Range]:
    """Return a study's ranges: those that it was begun with, for the present settings may be those that it found."""
    if "space" not in study.user_attrs:
        study.set_user_attr("space", [asdict(each) for each in space_of(cell, params, last_snapshot)])
    return [Range(**each) for each in study.user_attrs["space"]]


def _last_snapshot(workspace: Path, params: Params, cell: Cell) -> int:
    from repblend.costs import counts_of

    counts = counts_of(workspace, params)
    if cell.is_coreset or counts is None:
        return 1
    experts = params.encoder_experts if cell.trains_encoder else params.experts
    if experts.import_from:  # how many they have is not known here
        settings = params.distill.settings(str(cell))
        return settings.max_start - 1 + settings.expert_span
    return experts.num_snapshots(counts.train_captions) - 1


def table(done: Sequence["optuna.trial.FrozenTrial"]) -> str:
    """Return the trials, best first."""
    ordered = sorted(enumerate(done), key=lambda each: (-each[1].value, each[0]))
    return "\n".join(in_columns([("trial", "validation", "seconds", "settings"), *(
        (str(number), "diverged" if trial.user_attrs["failed"] else f"{trial.value:.2f} %",
         f"{trial.user_attrs['seconds']:.0f}", _shown(trial.user_attrs["values"])) for number, trial in ordered)]))
