"""`repro tune`: search the settings of a method that matter, on the validation split alone, and write down the best.

Optuna's TPE proposes trials; `repblend.tuning` runs them in a process of its own. A study is one method at one budget,
a file of JSON lines in the workspace's `paper/studies` that a killed search goes on from. What a trial proposes follows
from the named seed, the number of finished trials and these trials alone. Every search is told how many minutes of
trials, or how many trials, it may take in all, and how many seconds of a processor a trial, so that methods can be
given the same: `repro.equal_searches` does that for many methods.
"""

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from repblend.grid import Cell
from repblend.methods import find_method
from repblend.params import Params
from repblend.report.table import in_columns
from repblend.runtime.locked import check_fit
from repblend.runtime.processes import only_writer
from repblend.store import JSON, fingerprint, sha256, write_bytes
from repro import run
from repro.chosen import write_values
from repro.pipeline import KINDS, MULTIMODAL
from repro.profiles import Profile, profile_of
from repro.workspace import find_root, workspace_environment

if TYPE_CHECKING:
    import optuna

STUDIES = Path("paper/studies")
"""In the workspace: `<cell>.jsonl` for every study, and its plot."""
STARTUP_TRIALS = 5
"""Drawn at random, before proposals follow from what was found; the first has the settings as they are."""
FACTOR = 2
"""Settings are searched from half of the present value to twice it. Of twelve trials from a fifth to five times it,
eight of RepBlend and seven without blending fell apart (`paper/studies/wide.csv`)."""
DOWN_OF_ENCODERS = 25
"""As the lower end for outer rates of methods that match the whole encoder: how they do at small ones was open."""
MOST_SEGMENTS_OF_ENCODERS = 8
"""Likewise how they do with many segments."""
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

    def most(self, values: Mapping[str, float]) -> float:
        """Return the upper end beside the values of other settings."""
        return self.high - (values[self.last_with] - 1 if self.last_with else 0)


class Outcome(NamedTuple):
    """What a trial gave."""

    value: float | None
    """Mean recall on validation, percent; None if it diverged."""
    seconds: float
    failed: str | None = None
    processor_seconds: float | None = None
    """Of all threads; of a machine that others use too, only these can be compared."""
    iterations: int | None = None
    """Of its distillation, where the processor's seconds decided how many."""
    validate_every: int | None = None
    """Likewise."""


class Length(NamedTuple):
    """How long a trial is; by default as its method is in `params.yaml`."""

    iterations: int | None = None
    processor_seconds: float | None = None
    """All of a trial: its distillation gets as many iterations as fit, those of cheap settings more."""

    def study_of(self, cell: Cell) -> str:
        """Return the name of a study with such trials: those of another length are another study."""
        return str(cell) if self.processor_seconds is None else f"{cell}-{self.processor_seconds:g}s"

    def changes(self, cell: Cell, params: Params) -> JSON:
        """Return the settings that all trials have."""
        if self.iterations is None or cell.is_coreset:
            return {}
        every = params.distill.settings(str(cell)).validate_every
        return {"iterations": self.iterations, "validate_every": min(self.iterations, every)}


Evaluate = Callable[[Mapping[str, Any]], Outcome]
"""From the values of all settings of a space to what they give."""


class Limit(NamedTuple):
    """What a study may take in all, earlier sessions included."""

    minutes: float
    """Of trials. A trial that would not end in time, as the longest so far took, is not begun; one is in any case."""
    trials: int | None


def rate(key: str, now: float, down: float = FACTOR) -> Range:
    """Return the range of a rate, from `now / down` on."""
    return Range(key, now / down, now * FACTOR, now, log=True)


def number(key: str, now: int, most: int, least: int = 1) -> Range:
    """Return the range of a whole number that cannot be above `most`, and need not be below `least`."""
    now = min(now, most)
    return Range(key, min(now, max(least, now // FACTOR)), min(now * FACTOR, most), now, whole=True)


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
    down = DOWN_OF_ENCODERS if cell.trains_encoder else FACTOR
    segments = number("segments", settings.segments, FACTOR * settings.segments)
    if cell.trains_encoder:
        segments = replace(segments, high=max(MOST_SEGMENTS_OF_ENCODERS, settings.segments))
    found = [
        number("max_start", settings.max_start, last_snapshot),
        replace(number("expert_span", settings.expert_span, last_snapshot), high=last_snapshot, last_with="max_start"),
        number("batch_size", settings.batch_size, pairs, LEAST_BATCH), segments,
        rate("initial_lr_img", settings.initial_lr_img), rate("initial_lr_txt", settings.initial_lr_txt),
        rate("optimiser.lr.images", rates.images, down), rate("optimiser.lr.texts", rates.texts, down)]
    of_similarity = [rate("optimiser.lr.similarity", rates.similarity, down)]
    return found if method.similarity == "identity" else found + of_similarity


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
           tell: Callable[[str], None] = print, included: Sequence[Mapping[str, float]] = ()) -> None:
    """Run trials until the limit is reached; the first one of a study has the present settings.

    Args:
        included: what further trials have for certain, the next ones that the study gets.
    """
    import optuna

    while _goes_on(finished(study), limit):
        done = len(finished(study))
        settled = [trial.system_attrs.get("fixed_params") for trial in study.get_trials(
            states=(optuna.trial.TrialState.WAITING, optuna.trial.TrialState.COMPLETE))]
        for fixed in [*([] if done else [present(space)]), *included]:
            if fixed not in settled:  # one that a kill ended comes again
                study.enqueue_trial(fixed)
        study.sampler = optuna.samplers.TPESampler(n_startup_trials=STARTUP_TRIALS, multivariate=False,
                                                   seed=seed_of(seed, study.study_name, done))
        trial = study.ask()
        values = propose(trial, space)
        outcome = evaluate(values)
        for key, value in {"values": values, **outcome._asdict()}.items():
            if key != "value":
                trial.set_user_attr(key, value)
        study.tell(trial, 0.0 if outcome.value is None else outcome.value)  # no recall is lower
        tell(f"trial {done}: {'diverged' if outcome.value is None else f'{outcome.value:.2f} %'} in "
             f"{outcome.seconds:.0f} s, {_shown(values)}")


def present(space: Sequence[Range]) -> dict[str, float]:
    """Return all settings as they are."""
    return {each.key: each.now for each in space}


def read_included(words: str, space: Sequence[Range]) -> dict[str, float]:
    """Return all settings of a trial that somebody asks for, from `KEY=VALUE KEY=VALUE`; others are as they are.

    Raises:
        ValueError: one is no setting of this space, no number of its kind, or outside its range.
    """
    settings, ranges = present(space), {each.key: each for each in space}
    for word in words.split():
        key, _, value = word.partition("=")
        if (each := ranges.get(key)) is None:
            raise ValueError(f"--include {word}: expected KEY=VALUE with one of {', '.join(ranges)}")
        try:
            settings[key] = int(value) if each.whole else float(value)
        except ValueError:
            raise ValueError(f"--include {word}: expected a {'whole ' * each.whole}number") from None
    for each in space:
        if not each.low <= settings[each.key] <= each.most(settings):
            raise ValueError(f"--include {words}: {each.key} is {settings[each.key]:g} then; this search looks from "
                             f"{each.low:g} to {each.most(settings):g}")
    return settings


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
            high = max(int(each.low), int(each.most(values)))
            values[each.key] = trial.suggest_int(each.key, int(each.low), high, log=each.log)
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

    def trial(self, cell: Cell, values: Mapping[str, Any], processor_seconds: float | None = None) -> Outcome:
        """Return what a cell with these settings reaches, in these seconds of a processor if they are given."""
        return Outcome(**self.ask({"cell": str(cell), "changes": values, "processor_seconds": processor_seconds}))


# The command.


def tunable(name: str) -> tuple[Profile, Params]:
    """Return a profile of images with captions, and its parameters; raises `ValueError` if it has labels instead."""
    profile = profile_of(find_root(), name)
    if profile.kind is not KINDS[MULTIMODAL]:
        raise ValueError(f"--profile {name}: has images with labels, and its settings are published. Expected a "
                         "profile of images with captions")
    return profile, profile.params()


def tune(profile: Profile, params: Params, cell: Cell, limit: Limit, length: Length, write: bool,
         included: Sequence[str] = ()) -> int:
    """Search a cell's settings in a profile's workspace; return the exit code.

    Args:
        included: settings of trials that are made for certain, as `read_included` reads them.
        write: whether better settings go into `params.yaml`.

    Raises:
        ValueError: there is no such method, the study at hand is of something else, or a trial that is asked for is
            outside of its ranges.
    """
    workspace, name = profile.workspace, length.study_of(cell)
    space_of(cell, params, 1)  # a wrong method is told before experts are trained for it
    if code := bring(profile, params, cell):
        return code
    file = workspace / STUDIES / f"{name}.jsonl"
    with only_writer(workspace / f"checkpoints/locks/tune-{name}.lock", f"study {file.name}"):
        study = open_study(file, f"{profile.name}/{name}", setting_of(workspace, params, cell, length))
        space = space_kept(study, cell, params, _last_snapshot(workspace, params, cell))
        asked = [read_included(words, space) for words in included]
        fixed = length.changes(cell, params)
        with Worker(workspace) as worker:
            search(study, space, params.seed, limit,
                   lambda values: worker.trial(cell, {**values, **fixed}, length.processor_seconds), included=asked)
            done = finished(study)
            worker.ask({"plot": str(file.parent), "name": name, "points": [
                (number, trial.value, trial.user_attrs["values"]) for number, trial in enumerate(done)]})
    print(table(done))
    best = max(range(len(done)), key=lambda number: (done[number].value, -number))
    shown = file.relative_to(workspace)
    if not best:
        print(f"No trial of {len(done)} was better than the settings as they are. The study is {file}")
    elif write:
        write_values(workspace / "params.yaml", cell, found_by(done[best]), f"{shown}, trial {best}")
        print(f"{workspace / 'params.yaml'}: has the settings of trial {best}. The study is {file}")
    else:
        print(f"Trial {best} is the best; nothing was written. The study is {file}")
    return 0


def found_by(trial: "optuna.trial.FrozenTrial") -> dict[str, Any]:
    """Return the settings of a trial, its number of iterations among them where that was not the method's own."""
    values, iterations = trial.user_attrs["values"], trial.user_attrs.get("iterations")
    return values if iterations is None else {"iterations": iterations, **values}


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


def setting_of(workspace: Path, params: Params, cell: Cell, length: Length) -> JSON:
    """Return what the values of a study are of: all that decides them but the settings that are searched."""
    # Without defaults: a parameter that comes later and changes nothing where it is left out makes no other study.
    content = params.model_dump(mode="json", exclude_defaults=True)
    sections = {name: content[name] for name in ("compute", "data", "encode", "heads", "experts", "encoder_experts",
                                                 "evaluate")}
    sections["evaluate"].pop("encoder_coresets", None)
    if not cell.is_coreset:
        searched = {each.key for each in space_of(cell, params, 1)}
        if length.processor_seconds:  # decide how many
            searched |= {"iterations", "validate_every"}
        settings = params.distill.settings(str(cell)).model_dump(mode="json", exclude_defaults=True)
        settings["optimiser"]["lr"] = {key: value for key, value in settings["optimiser"]["lr"].items()
                                       if f"optimiser.lr.{key}" not in searched}
        sections["settings"] = {key: value for key, value in settings.items() if key not in searched}
    seconds = {"processor_seconds": length.processor_seconds} if length.processor_seconds else {}
    return {"cell": str(cell), "seed": params.seed, "iterations": length.iterations,
            "parameters": fingerprint(sections), "data": sha256(workspace / "data/prepared/manifest.json"), **seconds}


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
