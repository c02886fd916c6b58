"""RepBlend (NeurIPS 2025), reproducible: multimodal dataset distillation by representation blending.

In a notebook or a program, in the folder of a clone that has run (`examples/train.ipynb` shows it):

    import repblend
    distilled = repblend.load_set("sets/repblend-100.safetensors")
    students = repblend.train_students(distilled)
    print(repblend.evaluate(students)["mean_recall"])

The functions come from `repblend.api`, and PyTorch with the first one that is used. Otherwise one sub-package per
subject, named as the paper names it. Dependencies point one way: `stages` call the library packages, those call
`encoders` and `data`, and these call the small modules beside this file.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from repblend.api import (
        SetComparison,
        SplitFeatures,
        Spread,
        Students,
        SyntheticSet,
        compare,
        evaluate,
        load_set,
        train_students,
    )

__version__ = "0.1.0"
__all__ = ["SetComparison", "SplitFeatures", "Spread", "Students", "SyntheticSet", "compare", "evaluate", "load_set",
           "train_students"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("repblend.api"), name)
    raise AttributeError(f"module 'repblend' has no attribute {name!r}; expected one of {', '.join(__all__)}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
