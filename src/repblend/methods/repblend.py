"""RepBlend, the paper's method: symmetric matching of both projection heads (SM) with representation blending (RB)."""

from repblend.methods.declaration import Method

METHOD = Method(name="repblend", title="RepBlend", matched="image-head", similarity="low-rank", perturbation="blending",
                gradient="kept-graphs")
