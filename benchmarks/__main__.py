"""Measure the performance claims: `make bench`. Takes about four minutes on 2 cores; prints a table, writes nothing.

- Seconds per distillation iteration, at 64 and 96 px and 100 pairs, with the published inner loop (8 steps of 20
  pairs): this engine, the published two-pass procedure, and the lower bound of any engine with this encoder: one
  forward and one input-backward pass of the encoder over the distinct images drawn.
- Seconds to evaluate a set of 100 pairs: five students at once against one after the other.

All in one process on the same inputs, the variants in turn; the table shows the median of the rounds.
"""

import statistics
import time
from collections.abc import Callable

import timm
from torch import Tensor

from benchmarks.evaluation import evaluation_variants
from benchmarks.iteration import iteration_variants
from repblend.encoders.registry import load_image_encoder
from repblend.stages.harness import compute_deterministically

THREADS = 2
ROUNDS = 5
SIZES = (64, 96)


def main() -> None:
    """Run every benchmark and print the table."""
    compute_deterministically(THREADS)
    print(f"{THREADS} threads, median of {ROUNDS} rounds, seconds")
    for size in SIZES:
        encoder = load_image_encoder("efficientnet_lite0", size)
        _print(f"one iteration at {size} px, 100 pairs", measure(iteration_variants(encoder, plain_encoder(), size)),
               "lower bound")
    _print("evaluation of 100 pairs, five seeds", measure(evaluation_variants()), "five at once")


def plain_encoder() -> Callable[[Tensor], Tensor]:
    """The same architecture as timm makes it: BatchNorm layers and memory layout as they come."""
    return timm.create_model("tf_efficientnet_lite0", pretrained=False, num_classes=0).eval().requires_grad_(False)


def measure(variants: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Return the median seconds of each variant, the variants taking turns after one round to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(ROUNDS + 1):
        for name, run in variants.items():
            began = time.perf_counter()
            run()
            if number:
                seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in seconds.items()}


def _print(title: str, seconds: dict[str, float], unit: str) -> None:
    print(f"\n{title}")
    for name, value in seconds.items():
        print(f"  {name:<58} {value:7.3f}  {value / seconds[unit]:6.2f} x {unit}")


if __name__ == "__main__":
    main()
