"""`repro tune` for several methods at once: equal searches.

What is equal is what an author has to spend: the number of trials, and a processor's seconds of each. An iteration of a
method that matches the whole encoder takes many times as long as one that matches heads; it gets as many fewer. Methods
take turns, trial by trial, so that a search that is stopped has given all of them nearly the same.
"""

import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from repblend.grid import Cell
from repblend.params import Params
from repro.tune import STUDIES, Length, Limit, tunable, tune

MINUTES, TRIALS = 10.0, 12
"""Of a study, if no other limit is given."""
OF_ENCODERS = "+encoder-students"


def methods_of(params: Params) -> list[str]:
    """Return the methods of a grid that have settings to search, each once."""
    grid = params.grid
    coresets = [name for name in grid.coresets if name in params.select.lr_img]
    return list(dict.fromkeys([*grid.distilled, *grid.encoder_distilled, *coresets,
                               *[f"{name}{OF_ENCODERS}" for name in grid.encoder_coresets]]))


def take_turns(numbers: dict[str, int], trials: int, run: Callable[[str, int], int]) -> int:
    """Give every method its next trial, those with the fewest first, until each has its number; return the exit code.

    Args:
        numbers: method -> trials that it has already.
        run: searches a method until it has that many trials; returns an exit code, and any but 0 ends it all.
    """
    for wanted in range(min(numbers.values(), default=trials) + 1, trials + 1):
        for method, done in numbers.items():
            if done < wanted and (code := run(method, wanted)):
                return code
    return 0


def num_finished(file: Path, name: str) -> int:
    """Return how many trials of a study came to their end; 0 where there is none."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    if not file.is_file():
        return 0
    study = optuna.load_study(study_name=name, storage=JournalStorage(JournalFileBackend(str(file))))
    return len(study.get_trials(states=(optuna.trial.TrialState.COMPLETE,), deepcopy=False))


def main(name: str, methods: Sequence[str] | None, budget: int | None, minutes: float | None, trials: int | None,
         iterations: int | None, processor_seconds: float | None, write: bool, included: Sequence[str] = ()) -> int:
    """Search methods' settings in a profile's workspace; return the exit code.

    Args:
        methods: by their names in `params.yaml`; None for all of the grid.
        budget: of the cells that are tried; by default the largest of the grid.
        minutes: of the trials of a study in all.
        trials: of a study at most.
        iterations: of a trial; by default as many as the method's own.
        processor_seconds: of a trial, in the place of iterations.
        write: whether better settings go into `params.yaml`.
        included: settings of trials that every method gets for certain.
    """
    try:
        if iterations and processor_seconds:
            raise ValueError("--iterations and --processor-seconds: each decides how long a trial is. Give one of them")
        profile, params = tunable(name)
        length = Length(iterations, processor_seconds)
        cells = {method: Cell(method, budget or max(params.grid.budgets))
                 for method in (methods_of(params) if methods is None else methods)}
        if processor_seconds or len(cells) > 1:
            trials = trials or TRIALS
        if minutes is None:
            minutes = math.inf if trials else MINUTES
        if len(cells) == 1 or trials is None:
            cell, = cells.values()
            return tune(profile, params, cell, Limit(minutes, trials), length, write, included)
        total = trials
        found = {method: num_finished(profile.workspace / STUDIES / f"{length.study_of(cell)}.jsonl",
                                      f"{profile.name}/{length.study_of(cell)}") for method, cell in cells.items()}

        def run(method: str, wanted: int) -> int:
            print(f"{method}: trial {wanted} of {total}", flush=True)
            return tune(profile, profile.params(), cells[method], Limit(minutes, wanted), length,
                        write and wanted == total, included)

        return take_turns(found, total, run)
    except (ValueError, OSError) as error:
        print(f"repro tune: {error}", file=sys.stderr)
        return 1
