"""The multimodal pipeline: what every stage is made of, and which cells of the grid it has.

A new stage is a module beside this one, an entry in `STAGES`, and an entry in `conf/multimodal.dvc.yaml`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

from repblend.grid import ENCODER_STUDENTS, Cell, Pair
from repblend.methods import find_method
from repblend.params import Params, read_params
from repblend.records.outputs import Prepared
from repblend.runtime.context import PAIRED, PairPaths, Paths, StageContext
from repblend.runtime.settings import Pipeline, Stage


def coresets(params: Params) -> list[Cell]:
    """Return the sets of real pairs."""
    grid = params.grid
    return [*_cells(grid.coresets, grid.budgets), *_cells(grid.seeded(grid.coresets), grid.seed_budgets)]


def distilled(params: Params) -> list[Cell]:
    """Return the distilled sets: of methods that match heads, of their variants and of these in other regimes, of
    methods that match the encoder; those that are distilled with further pairs of encoders, and those with further
    seeds.
    """
    grid = params.grid
    with_pairs = [f"{method}+{pair}" for method in (*grid.pair_distilled, *grid.pair_encoder_distilled)
                  for pair in grid.encoder_pairs]
    return [*_cells(grid.distilled, grid.budgets), *_cells(grid.all_variants, [grid.variants_budget]),
            *_cells(grid.regimes, grid.regime_budgets), *_cells(grid.encoder_distilled, grid.budgets),
            *_cells(grid.encoder_variants, [grid.variants_budget]), *_cells(with_pairs, grid.pair_budgets),
            *_cells(grid.seeded([*grid.distilled, *grid.encoder_distilled]), grid.seed_budgets),
            *_cells(grid.seeded(grid.regimes), grid.regime_seed_budgets)]


def evaluated(params: Params) -> list[Cell]:
    """Return what students are trained on; coresets also train students of the whole image encoder."""
    grid = params.grid
    baselines = [f"{coreset}{ENCODER_STUDENTS}" for coreset in grid.encoder_coresets]
    return [*coresets(params), *distilled(params), *_cells(baselines, grid.budgets),
            *_cells(grid.seeded(baselines), grid.seed_budgets)]


def compared(params: Params) -> list[Cell]:
    """Return the sets whose embeddings, and whose use for other encoders and tasks, are looked at."""
    grid = params.grid
    return _cells([*grid.coresets, *grid.distilled, *grid.encoder_distilled], grid.compared_budgets)


def pairs(params: Params) -> Sequence[Pair | None]:
    """Return one run for the encoders of the pipeline, and one for each further pair."""
    return [None, *map(Pair, params.grid.encoder_pairs)]


def encoder_experts(params: Params) -> Sequence[Pair | None]:
    """Return those of `pairs` with which a method matches the whole image encoder."""
    first, *further = pairs(params)
    return [*[first] * bool(params.grid.encoder_distilled), *further * bool(params.grid.pair_encoder_distilled)]


def trained(section: str) -> Callable[[Params], int]:
    """Return what counts the experts of a section that are trained, each apart: none where they are imported."""
    return lambda params: 0 if (settings := getattr(params, section)).import_from else settings.num


def _cells(methods: Sequence[str], budgets: list[int]) -> list[Cell]:
    return [Cell(method, budget) for method in methods for budget in budgets]


RUNNING = ("records", "runtime", "files.py", "store.py")
"""How every stage runs, reads and writes."""
ENCODERS = (*RUNNING, "data", "encoders", "streams.py", "tensors.py")
TRAINING = (*ENCODERS, "evaluation", "experts", "matching")
"""What is trained on encoders, and how it is scored."""
MODELS = (*TRAINING, "grid.py", "methods.py")
STUDENTS = (*MODELS, "schedules.py", "stages/setup.py", "stages/students.py")

STAGES = {
    "prepare": Stage(("compute", "data"), (*RUNNING, "archives.py", "data", "stages/prepare.py")),
    "encode": Stage(("compute", "data", "encode"), (*ENCODERS, "stages/setup.py", "stages/encode.py"), pairs),
    "experts": Stage(("compute", "data", "encode", "heads", "experts"),
                     (*TRAINING, "archives.py", "released_files.py", "schedules.py", "stages/setup.py",
                      "stages/experts.py"), pairs, parts=trained("experts")),
    "encoder-experts": Stage(("compute", "data", "encode", "evaluate", "encoder_experts"),
                             (*STUDENTS, "archives.py", "released_files.py", "stages/experts.py",
                              "stages/encoder_experts.py"),
                             encoder_experts, parts=trained("encoder_experts")),
    "select": Stage(("compute", "data", "encode", "heads", "select"),
                    (*TRAINING, "coresets.py", "stages/setup.py", "stages/select.py"), coresets),
    "distill": Stage(("compute", "data", "encode", "heads", "distill", "evaluate"),
                     (*STUDENTS, "analysis", "archives.py", "coresets.py", "released_files.py",
                      "stages/distill.py"),
                     distilled),
    "evaluate": Stage(("compute", "data", "encode", "heads", "evaluate"), (*STUDENTS, "stages/evaluate.py"), evaluated),
    "bounds": Stage(("compute", "heads", "experts", "evaluate"), (*STUDENTS, "stages/bounds.py")),
    "embed": Stage(("compute", "encode", "heads"), (*MODELS, "analysis", "stages/setup.py", "stages/embed.py"),
                   compared),
    "transfer": Stage(("compute", "data", "encode", "heads", "evaluate", "transfer"),
                      (*STUDENTS, "stages/transfer.py"), compared),
    "report": Stage(("grid",), (*RUNNING, "report", "escape.py", "grid.py", "methods.py", "titles.py"),
                    module="repblend.report"),
}


def pair_of(cell: Cell | Pair | None, params: Params) -> str | None:
    """Return the further pair of encoders that a cell is made with; None for the encoders of the pipeline.

    Raises:
        ValueError: there is no such pair.
    """
    if isinstance(cell, Pair) and cell.name not in params.grid.pairs:
        raise ValueError(f"grid.pairs has no {cell.name!r}; expected one of {', '.join(params.grid.pairs) or 'none'}")
    name = cell.name if isinstance(cell, Pair) else cell.variant if cell else ""
    return name if name in params.grid.pairs else None


def at_pair(params: Params, paths: Paths, cell: Cell | Pair | None) -> tuple[Params, Paths]:
    """Return parameters and paths with the encoders that a cell is made with; raises as `pair_of`."""
    pair = pair_of(cell, params)
    return (params, paths) if pair is None else (params.with_pair(pair), PairPaths(paths.root, pair))


def section_of(params: Params, section: str, cell: Cell | Pair | None) -> Any:
    """Return a section; of `distill` only the settings of a cell: those of other cells change nothing in its files. Of
    a cell with a further pair of encoders, `encode` names these.

    Raises:
        ValueError: the cell's method is unknown, or the parameters have no settings for it.
    """
    if section == "encode" and (pair := pair_of(cell, params)):
        return params.with_pair(pair).encode
    if section != "distill":
        return getattr(params, section)
    assert isinstance(cell, Cell), "of a single cell"
    find_method(cell.base_method)  # an unknown method is said before a cell without settings
    return params.distill.settings(str(cell))


def check(params: Params, paths: Paths) -> None:
    """Check the parameters against the data set: as it was prepared with them, else as its captions count it.

    Raises:
        ValueError: they ask for more than it has, or its captions are not as they should be.
    """
    path, counts = paths.record("prepare"), None
    if path.is_file() and (found := Prepared.read(path)).provenance.parameters.get("data") == params.data.model_dump(
            mode="json"):
        counts = found.to_json()["counts"]
    else:  # slow to import, and only needed where nothing is prepared yet
        from repblend.stages.prepare import counts_ahead
        counts = counts_ahead(params.data, paths.repository)
    if counts:
        params.check_sizes(counts["train"]["images"], counts["train"]["captions"])


def parse_cell(stage: str, text: str) -> Cell | Pair:
    """Read `<method>-<budget>`, or the name of a further pair of encoders; raises `ValueError` as `Cell.parse`."""
    return Pair(text) if stage in PAIRED else Cell.parse(text)


@dataclass(frozen=True)
class Context(StageContext):
    """Everything a stage's `run` needs."""

    cell: Cell
    """None of a stage without cells, which does not ask."""
    params: Params
    paths: Paths

    @classmethod
    def of(cls, root: Path, stage: str, cell: str | None) -> Self:
        """Return the context of a stage, with the encoders of its cell; raises as `StageContext.of` and `pair_of`."""
        context = super().of(root, stage, cell)
        params, paths = at_pair(context.params, context.paths, context.cell)
        return replace(context, params=params, paths=paths)

    pipeline: ClassVar[Pipeline] = Pipeline("repblend.stages", read_params, parse_cell, Paths, STAGES, check,
                                            section_of)
