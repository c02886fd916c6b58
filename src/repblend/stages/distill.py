"""Stage `distill`: learn a synthetic set by trajectory matching (PAPER.md section 2), the best iteration on validation.

Starts from random real pairs, validates the set every few iterations by training students on it, and keeps the one
with the best mean recall on the validation split, or as `choose` says; only `best-test` reads the test split. A killed
run resumes from its last checkpoint and gives the same bytes.
With `import_from`, the cell takes a set of the official release as it is.
"""

import shutil
from pathlib import Path

from torch import Tensor

from repblend.matching.distillation import Distillation
from repblend.matching.journal import CRITERIA, Journal
from repblend.methods import find_method
from repblend.progress import progress
from repblend.stages.context import StageContext
from repblend.stages.distill_problem import Problem, pose
from repblend.stages.import_set import import_set
from repblend.stages.provenance import provenance
from repblend.stages.resume import work_fingerprint
from repblend.store import read_tensors, write_json, write_tensors

SECTIONS = ["compute", "data", "encode", "heads", "distill", "evaluate"]


def run(context: StageContext) -> None:
    """Distil or import one cell; write its set, `metrics/distill/<cell>.json` and `metrics/specimens/<cell>.json`."""
    paths, cell = context.paths, context.cell
    find_method(cell.base_method)  # an unknown method is said before a cell without settings
    if context.params.distill.settings(str(cell)).import_from:
        import_set(context, SECTIONS)
        return
    problem = pose(context)
    work = paths.checkpoint("distill", work_fingerprint(context, SECTIONS, problem.inputs)) / "latest.safetensors"
    journal, best = _distil(problem, work, f"distill {cell}")
    chosen = journal.chosen_iteration
    record = {"cell": cell.to_json(), "provenance": provenance(context, SECTIONS, problem.inputs)}
    result = problem.synthetic_set(best, {"cell": cell.to_json(), "loss": problem.settings.loss,
                                          "chosen_iteration": chosen, "initial_pairs": problem.initial_pairs})
    result.write(paths.set(cell))
    write_json(paths.metrics("specimens", cell), record | problem.specimens(result))
    write_json(paths.metrics("distill", cell), record | journal.to_json() | {
        "num_pairs": result.num_pairs, "iterations": problem.settings.iterations, "chosen_iteration": chosen})
    shutil.rmtree(work.parent, ignore_errors=True)


def _distil(problem: Problem, work: Path, label: str) -> tuple[Journal, dict[str, Tensor]]:
    """Run the outer loop from the start or from `work`; return its journal and the best learned tensors."""
    distillation, settings = problem.distillation(), problem.settings
    first, journal, best = _resume(distillation, work, CRITERIA[settings.choose])
    last, learned = settings.iterations, distillation.learned
    for iteration in progress(range(first, last + 1), label, start=first):
        due = iteration % settings.validate_every == 0 or iteration == last
        if due and not journal.observed(iteration) and journal.observe(iteration, problem.measure(learned)):
            best = {name: value.clone() for name, value in learned.tensors.items()}
        if iteration % settings.checkpoint_every == 0 and iteration > first:
            _save(distillation, work, iteration, journal, best)
        if iteration < last:
            journal.record(iteration, distillation.iterate(iteration))
    return journal, best


def _save(distillation: Distillation, work: Path, iteration: int, journal: Journal, best: dict[str, Tensor]) -> None:
    tensors = distillation.tensors() | {f"best/{name}": value for name, value in best.items()}
    write_tensors(work, tensors, {"iteration": iteration, "journal": journal.to_json()})


def _resume(distillation: Distillation, work: Path, criterion: str) -> tuple[int, Journal, dict[str, Tensor]]:
    """Return the iteration to go on with, the journal and the best tensors; a new start if there is no checkpoint."""
    if not work.is_file():
        return 0, Journal(criterion=criterion), {}
    tensors, metadata = read_tensors(work)
    distillation.restore(tensors)
    best = {name.removeprefix("best/"): value for name, value in tensors.items() if name.startswith("best/")}
    return metadata["iteration"], Journal(**metadata["journal"], criterion=criterion), best
