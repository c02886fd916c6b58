"""What a distillation method is: which choices of the engine it makes."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Method:
    """One row of the paper's tables."""

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
    gradient: Literal["constant-memory", "kept-graphs", "unrolled"]
    """How the matching objective is differentiated. The first two agree: heads can keep their graphs."""

    def num_pairs(self, budget: int) -> int:
        """Pairs that are learned at a budget: the parameters of a learned similarity count as one pair."""
        return budget if self.similarity == "identity" else budget - 1
