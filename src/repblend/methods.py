"""The distillation methods of the paper's tables, each a declaration over one engine (Section 4.1 and Figure 5).

Add a method here, with its settings in `params.yaml`; nothing else has to change.
"""

from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True)
class Method:
    """One row of the paper's tables: which choices of the engine a method makes."""

    name: str
    """As in `params.yaml` and in file names."""
    title: str
    """As in tables and figures."""
    matched: Literal["image-head", "image-encoder"]
    """What is trained and matched on the image side, beside the text head (SM: only heads)."""
    similarity: Literal["identity", "low-rank", "full"]
    """The students' soft targets; all but the identity are learned."""
    perturbation: Literal["none", "blending", "noise"]
    """What students' representations go through: nothing, RB, or noise in its place (the paper's Figure 3)."""
    gradient: Literal["constant-memory", "heads", "unrolled"]
    """How the matching loss is differentiated. The first two agree; the second knows what a head is."""

    def num_pairs(self, budget: int) -> int:
        """Return the pairs learned at a budget: the parameters of a learned similarity count as one pair."""
        return budget if self.similarity == "identity" else budget - 1


LORS = Method(name="lors", title="LoRS", matched="image-encoder", similarity="low-rank", perturbation="none",
              gradient="constant-memory")

TESLA_VL = replace(LORS, name="tesla-vl", title="TESLA-VL", similarity="identity")

# The exact gradient through all inner steps. The released student multiplies cosines by ln(1 / temperature), because an
# exponential is missing, while its experts are trained with 1 / temperature: `logit_scale: log` in `params.yaml`.
MTT_VL = replace(TESLA_VL, name="mtt-vl", title="MTT-VL", gradient="unrolled")

WITHOUT_MATCHING = replace(LORS, name="repblend-without-matching", title="RepBlend without SM", perturbation="blending")

REPBLEND = Method(name="repblend", title="RepBlend", matched="image-head", similarity="low-rank",
                  perturbation="blending", gradient="heads")

WITHOUT_BLENDING = replace(REPBLEND, name="repblend-without-blending", title="RepBlend without RB", perturbation="none")

WITH_NOISE = replace(REPBLEND, name="repblend-with-noise", title="RepBlend, noise for RB", perturbation="noise")

METHODS: dict[str, Method] = {method.name: method for method in (
    MTT_VL, TESLA_VL, LORS, WITHOUT_MATCHING, WITHOUT_BLENDING, REPBLEND, WITH_NOISE)}
"""Every distillation method by its name in `params.yaml`, in the order of the paper's tables."""


def find_method(name: str) -> Method:
    """Return a method's declaration.

    Raises:
        ValueError: no method has this name.
    """
    if name not in METHODS:
        raise ValueError(f"method {name!r} is not known; expected one of {', '.join(METHODS)}")
    return METHODS[name]
