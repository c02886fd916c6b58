"""The rows of the paper's tables, each a small declaration over one engine (DESIGN section 5)."""

from repblend.methods import (
    lors,
    mtt_vl,
    repblend,
    repblend_with_noise,
    repblend_without_blending,
    repblend_without_matching,
    tesla_vl,
)
from repblend.methods.declaration import Method

MODULES = (mtt_vl, tesla_vl, lors, repblend_without_matching, repblend_without_blending, repblend, repblend_with_noise)
METHODS: dict[str, Method] = {module.METHOD.name: module.METHOD for module in MODULES}
"""Every distillation method by its name in `params.yaml`, in the order of the paper's tables."""


def find_method(name: str) -> Method:
    """Return a method's declaration.

    Raises:
        ValueError: no method has this name.
    """
    if name not in METHODS:
        raise ValueError(f"method {name!r} is not known; expected one of {', '.join(METHODS)}")
    return METHODS[name]
