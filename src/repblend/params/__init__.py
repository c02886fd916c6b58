"""`params.yaml`, read once at the edge into frozen, typed classes: everything that can change a number.

Types are strict: a string where a number is expected is an error, never converted, and so is a key that no field knows.
Library functions take single values from here, not these objects. Each section is in a module of its subject.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Self

from pydantic import model_validator

from repblend.params.data import Data
from repblend.params.distill import Distill
from repblend.params.evaluate import Evaluate, Select, Transfer
from repblend.params.experts import Compute, Encode, EncoderExperts, Experts, Heads
from repblend.params.grid import Grid, cells_of
from repblend.params.reading import read_yaml, validated
from repblend.sections import Section, Seed


class Params(Section):
    """All of `params.yaml`."""

    seed: Seed
    compute: Compute
    data: Data
    encode: Encode
    heads: Heads
    experts: Experts
    encoder_experts: EncoderExperts
    grid: Grid
    select: Select
    distill: Distill
    evaluate: Evaluate
    transfer: Transfer

    @property
    def encoders(self) -> list[str]:
        """Names of all encoders that the stages use, each once."""
        of_pairs = [name for pair in self.grid.pairs.values() for name in (pair.image_encoder, pair.text_encoder)]
        return list(dict.fromkeys([self.encode.image_encoder, self.encode.text_encoder, *self.transfer.architectures,
                                   *of_pairs]))

    def with_pair(self, name: str) -> "Params":
        """Return these parameters with a further pair of encoders, by its name, in the place of the first."""
        return self.model_copy(update={"encode": self.encode.model_copy(update=dict(self.grid.pairs[name]))})

    @model_validator(mode="after")
    def _coresets_have_rates(self) -> Self:
        for name in ("lr_img", "lr_txt"):
            missing = set(self.grid.coresets) - set(getattr(self.select, name))
            if missing:
                raise ValueError(f"select.{name} lacks {sorted(missing)}, which grid.coresets asks for; add a rate")
        return self

    @model_validator(mode="after")
    def _students_are_of_methods(self) -> Self:
        if unknown := sorted(set(self.evaluate.methods) - set(self.distill.methods)):
            raise ValueError(f"evaluate.methods has {unknown}, which distill.methods has not; expected some of "
                             f"{sorted(self.distill.methods)}")
        return self

    @model_validator(mode="after")
    def _heads_drop_alike(self) -> Self:
        if self.encoder_experts.head_dropout != self.heads.dropout:
            raise ValueError(f"encoder_experts.head_dropout is {self.encoder_experts.head_dropout:g}, but "
                             f"heads.dropout is {self.heads.dropout:g}; give both the same, or leave both out")
        return self

    def check_sizes(self, images: int, pairs: int) -> None:
        """Check what these parameters ask of a training set of so many images, and pairs of image and caption.

        Raises:
            ValueError: sets are larger than it or too small to learn, experts have too few snapshots, or cells build
                on sets that no cell makes; the message says what would fit.
        """
        if problems := [*self._unfit_budgets(images), *self._missing_snapshots(pairs), *self._missing_sets()]:
            raise ValueError("\n  ".join(["params.yaml does not fit the data set:", *problems]))

    def _unfit_budgets(self, images: int) -> Iterator[str]:
        grid = self.grid
        budgets = {"grid.budgets": grid.budgets,
                   "grid.variants_budget": [grid.variants_budget] * bool(grid.all_variants or grid.encoder_variants),
                   "grid.regime_budgets": grid.regime_budgets * bool(grid.regimes),
                   "grid.pair_budgets": grid.pair_budgets}  # those of grid.seed_budgets are of grid.budgets
        learned = (grid.distilled or grid.encoder_distilled or grid.all_variants or grid.encoder_variants
                   or grid.regimes or grid.pair_distilled or grid.pair_encoder_distilled)
        for key, values in budgets.items():
            for budget in values:
                if budget > images:
                    yield (f"{key}: {budget} is more than the {images} training images, of which a set has a pair "
                           f"each; take {images} at most")
                if learned and budget < LEAST_PAIRS:
                    yield (f"{key}: {budget} leaves a distilled set a single pair, as a learned similarity counts for "
                           f"one; take {LEAST_PAIRS} at least")

    def _missing_snapshots(self, pairs: int) -> Iterator[str]:
        for section, needed in self.needed_snapshots().items():
            experts: Experts = getattr(self, section)
            steps, last = experts.num_steps(pairs), experts.num_snapshots(pairs) - 1
            if last < needed:
                fewer = f"lower {section}.snapshots_every to {steps // needed}, or " if 0 < needed <= steps else ""
                epochs = -(-needed * experts.steps_between_snapshots(pairs) // experts.steps_per_epoch(pairs))
                yield (f"{section}: {steps} steps on {pairs} pairs give snapshots 0 to {last}, but distill needs "
                       f"snapshot {needed} (max_start - 1 + expert_span); {fewer}raise {section}.epochs to {epochs}")

    def needed_snapshots(self) -> dict[str, int]:
        """Return the last snapshot that a distillation of the grid asks for, of experts that are trained here: 7 for
        `max_start` 3 and `expert_span` 5. By section, `experts` or `encoder_experts`; none where no cell matches them.
        """
        grid = self.grid
        cells = {"experts": [*cells_of(grid.distilled, grid.budgets),
                             *cells_of(grid.all_variants, [grid.variants_budget]),
                             *cells_of(grid.regimes, grid.regime_budgets), *grid.pair_cells(grid.pair_distilled)],
                 "encoder_experts": [*cells_of(grid.encoder_distilled, grid.budgets),
                                     *cells_of(grid.encoder_variants, [grid.variants_budget]),
                                     *grid.pair_cells(grid.pair_encoder_distilled)]}
        needed = {section: [found.max_start - 1 + found.expert_span for found in map(self.distill.settings, names)
                            if not found.import_from] for section, names in cells.items()}
        return {section: max(last) for section, last in needed.items()
                if last and not getattr(self, section).import_from}

    def _missing_sets(self) -> Iterator[str]:
        """What stages `embed`, `transfer` and `evaluate` read that no other stage writes."""
        grid = self.grid
        if alone := [budget for budget in grid.compared_budgets if budget not in grid.budgets]:
            yield f"grid.compared_budgets: no set has {alone[0]} pairs; take some of grid.budgets, {grid.budgets}"
        if grid.compared_budgets and "random" not in grid.coresets:
            yield ("grid.compared_budgets: sets are compared with random pairs, which grid.coresets lacks; add random "
                   "there, or compare no budget")
        if alone := [budget for budget in grid.seed_budgets if budget not in grid.budgets]:
            yield (f"grid.seed_budgets: no set has {alone[0]} pairs that further ones could stand beside; take some of "
                   f"grid.budgets, {grid.budgets}")
        if alone := [budget for budget in grid.regime_seed_budgets if budget not in grid.regime_budgets]:
            yield (f"grid.regime_seed_budgets: no regime's set has {alone[0]} pairs that further ones could stand "
                   f"beside; take some of grid.regime_budgets, {grid.regime_budgets}")
        if missing := [coreset for coreset in grid.encoder_coresets if coreset not in grid.coresets]:
            yield f"grid.encoder_coresets: grid.coresets has no {missing[0]}; add it there"
        if grid.encoder_variants and not grid.encoder_distilled:
            yield (f"grid.encoder_distilled: is empty, so no stage trains the experts that {grid.encoder_variants[0]} "
                   "is distilled from; add its method there, or empty grid.encoder_variants")


LEAST_PAIRS = 3
"""Of a budget that is distilled."""


def read_params(path: Path) -> Params:
    """Read and check `params.yaml`.

    Raises:
        ValueError: the file is missing or not YAML, or a key is unknown, absent or of the wrong type or range;
            the message lists every such key with the value found and the rule it breaks.
    """
    return validated(Params, read_yaml(path), str(path))
