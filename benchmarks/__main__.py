"""Measure the performance claims: `make bench`. Takes about four minutes on 2 cores; prints a table, writes nothing.

- Seconds per distillation iteration, at 64 and 96 px and 100 pairs, with the published inner loop (8 steps of 20
  pairs): this engine, the published two-pass procedure, and the lower bound of any engine with this encoder: one
  forward and one input-backward pass of the encoder over the distinct images drawn.
- Seconds to evaluate a set of 100 pairs: five students at once against one after the other.

All in one process on the same inputs, the variants in turn; the table shows the median of the rounds.
"""

import statistics
from collections.abc import Callable

import timm

from benchmarks.evaluation import evaluation_variants
from benchmarks.iteration import iteration_variants
from benchmarks.timing import seconds_of
from repblend.encoders.registry import load_image_encoder
from repblend.runtime.harness import compute_deterministically

THREADS = 2
ROUNDS = 5
SIZES = (64, 96)


def main() -> None:
    """Run every benchmark and print the table."""
    compute_deterministically(THREADS)
    print(f"{THREADS} threads, median of {ROUNDS} rounds, seconds")
    # The same architecture as timm makes it: BatchNorm layers and memory layout as they come.
    plain = timm.create_model("tf_efficientnet_lite0", pretrained=False, num_classes=0).eval().requires_grad_(False)
    for size in SIZES:
        encoder = load_image_encoder("efficientnet_lite0", size)
        compare(f"one iteration at {size} px, 100 pairs", iteration_variants(encoder, plain, size),
                "lower bound")
    compare("evaluation of 100 pairs, five seeds", evaluation_variants(), "five at once")


def compare(title: str, variants: dict[str, Callable[[], object]], unit: str) -> None:
    """Time the variants and print the median of each, in seconds and as a multiple of the variant `unit`."""
    seconds = {name: statistics.median(values) for name, values in seconds_of(variants, ROUNDS).items()}
    print(f"\n{title}")
    for name, value in seconds.items():
        print(f"  {name:<58} {value:7.3f}  {value / seconds[unit]:6.2f} x {unit}")


if __name__ == "__main__":
    main()
