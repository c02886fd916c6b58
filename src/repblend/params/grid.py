"""Section `grid` of `params.yaml`: the cells that the whole pipeline runs, and what their names say."""

from collections.abc import Sequence
from re import fullmatch
from typing import Self

from pydantic import Field, model_validator

from repblend.sections import EncoderName, Name, Positive, Section


def base_method(method: str) -> str:
    """Return the method of `<method>+<variant>`, or the method itself."""
    return method.partition("+")[0]


def seed_apart(method: str) -> tuple[str, int]:
    """Split `<method>+seed-<number>` into the method, with its variant if it has one, and the number; 0 without it."""
    found = fullmatch(r"(.+)\+seed-([1-9][0-9]{0,8})", method)
    return (found[1], int(found[2])) if found else (method, 0)


def cells_of(methods: list[str], budgets: list[int]) -> list[str]:
    """Return the names of every method's cells."""
    return [f"{method}-{budget}" for method in methods for budget in budgets]


class EncoderPair(Section):
    """A further pair of encoders, by their names in `repblend.encoders.registry`."""

    image_encoder: EncoderName
    text_encoder: EncoderName


class Grid(Section):
    """The cells that the whole pipeline runs: every method at every budget, and variants at one."""

    budgets: list[Positive]
    coresets: list[Name]
    encoder_distilled: list[Name]
    """Methods that match the whole image encoder."""
    distilled: list[Name]
    """Methods that match both projection heads."""
    encoder_coresets: list[Name]
    """Coresets that also train the students of `encoder_distilled`: the baselines of those."""
    compared_budgets: list[Positive]
    """Budgets at which embeddings, other encoders and other tasks are looked at."""
    variants: dict[Name, list[Name]]
    """What is varied -> variants `<method>+<variant>`, set up in `distill.cells`."""
    all_variants: list[Name]
    """The variants of all families: a matrix of the pipeline needs one list."""
    encoder_variants: list[Name]
    """Those of the families, after all others, whose methods match the whole image encoder."""
    variants_budget: Positive
    regimes: list[Name]
    """Variants that change most settings at once, as another paper's do; of methods that match heads."""
    regime_budgets: list[Positive]
    """Their budgets; at those of `budgets` each stands beside its method as it is."""
    pairs: dict[Name, EncoderPair]
    """Further pairs of encoders: each gets features and experts of its own (the paper's Figures 6 and 7)."""
    encoder_pairs: list[Name]
    """Their names in that order: a matrix of the pipeline needs a list."""
    larger_pairs: list[Name]
    """Those of them whose image encoder is larger than the pipeline's: they stand for the paper's Table 3."""
    pair_distilled: list[Name]
    """Methods whose sets are distilled with every further pair, as `<method>+<pair>`: those that match heads."""
    pair_encoder_distilled: list[Name]
    """Those that match the whole image encoder."""
    pair_budgets: list[Positive]
    seeds: list[Positive]
    """Further sets, each drawn with a seed of its own: every coreset, and every method, is there once more as
    `<method>+seed-<number>`. Features and experts are the same."""
    seed_budgets: list[Positive]
    """At which budgets."""
    regime_seed_budgets: list[Positive]
    """At which budgets regimes have them too."""
    caveats: dict[Name, str] = Field(default_factory=dict)
    """Cell -> what is publicly known of its settings; the plan and the report say it."""

    def seeded(self, methods: Sequence[str]) -> list[str]:
        """Return the names of the further sets of methods."""
        return [f"{method}+seed-{seed}" for method in methods for seed in self.seeds]

    def pair_cells(self, methods: list[str]) -> list[str]:
        """Return the cells of methods with every further pair of encoders."""
        return cells_of([f"{method}+{pair}" for method in methods for pair in self.encoder_pairs], self.pair_budgets)

    @model_validator(mode="after")
    def _every_cell_stands_once(self) -> Self:
        for name, values in self:
            if isinstance(values, list) and len(set(values)) < len(values):
                twice = next(value for value in values if values.count(value) > 1)
                raise ValueError(f"{name}: {twice} stands there twice; take one out")
        return self

    @model_validator(mode="after")
    def _every_regime_is_a_variant_of_its_own(self) -> Self:
        for name in self.regimes:
            if base_method(name) == name or name in self.all_variants:
                raise ValueError(f"regimes: {name} is also the name of a method or variant; expected <method>+<regime>")
        return self

    @model_validator(mode="after")
    def _every_pair_is_listed(self) -> Self:
        if self.encoder_pairs != list(self.pairs):
            raise ValueError(f"encoder_pairs: expected the names of grid.pairs in their order, {list(self.pairs)}")
        if unknown := set(self.larger_pairs) - set(self.pairs):
            raise ValueError(f"larger_pairs: {min(unknown)} is none of grid.pairs; take it out")
        variants = [*self.regimes, *(name for names in self.variants.values() for name in names)]
        if twice := {name.partition("+")[2] for name in variants} & set(self.pairs):
            raise ValueError(f"pairs: {min(twice)} is also the name of a variant; rename one")
        return self

    @model_validator(mode="after")
    def _seeds_have_names_of_their_own(self) -> Self:
        for names in ([*self.all_variants, *self.encoder_variants], [f"x+{pair}" for pair in self.pairs]):
            if taken := [name for name in names if seed_apart(name)[1]]:
                raise ValueError(f"{taken[0].removeprefix('x+')}: is named like a set of grid.seeds; rename it")
        return self

    @model_validator(mode="after")
    def _every_variant_is_listed(self) -> Self:
        of_families = [variant for family in self.variants.values() for variant in family]
        if [*self.all_variants, *self.encoder_variants] != of_families:
            raise ValueError("all_variants and encoder_variants: expected together those of grid.variants in their "
                             f"order, {of_families}")
        return self
