"""The rows of the paper's tables, each a small declaration over one engine (DESIGN section 5)."""

from repblend.methods import repblend, repblend_without_blending
from repblend.methods.declaration import Method

METHODS: dict[str, Method] = {module.METHOD.name: module.METHOD for module in (repblend, repblend_without_blending)}
"""Every distillation method by its name in `params.yaml`."""


def find_method(name: str) -> Method:
    """Return a method's declaration.

    Raises:
        ValueError: no method has this name.
    """
    if name not in METHODS:
        raise ValueError(f"method {name!r} is not known; expected one of {', '.join(METHODS)}")
    return METHODS[name]
