"""Measure the performance claims: `make bench`. Takes about six minutes; prints a table, writes nothing.

- Seconds per distillation iteration, at 64 and 96 px and 100 pairs, with the published inner loop (8 steps of 20
  pairs): this engine, the published two-pass procedure, and the lower bound of any engine with this encoder: one
  forward and one input-backward pass of the encoder over the distinct images drawn.
- Seconds to evaluate a set of 100 pairs with five students: at once, one after the other, and the released way
  (`benchmarks/released_evaluation.py`), of which one student is measured, once, and counted five times.

All in one process on the same inputs, the variants in turn; the table shows the median of the rounds. Wall seconds, and
processor seconds of one thread, whose multiples hold on a busy machine as well.
"""

import statistics
from collections.abc import Callable

import timm

from benchmarks.evaluation import IMAGE_SIZE, SEEDS, EvaluationBench
from benchmarks.iteration import iteration_variants
from benchmarks.timing import Times, time_of, times_of
from repblend.encoders.efficientnet_lite import efficientnet_lite
from repblend.encoders.registry import load_image_encoder
from repblend.evaluation.recall import MEAN_RECALL
from repblend.runtime.harness import compute_deterministically

THREADS = 1
"""Two or more spin while they wait for one another, and so count processor seconds in which nothing is done."""
ROUNDS = 5
SIZES = (64, 96)


def main() -> None:
    """Run every benchmark and print the table."""
    compute_deterministically(THREADS)
    print(f"{THREADS} thread(s), median of {ROUNDS} rounds, seconds: wall, processor, multiple of processor seconds")
    # The same architecture as timm makes it: BatchNorm layers and memory layout as they come.
    plain = timm.create_model("tf_efficientnet_lite0", pretrained=False, num_classes=0).eval().requires_grad_(False)
    for size in SIZES:
        encoder = load_image_encoder("efficientnet_lite0", size)
        show(f"one iteration at {size} px, 100 pairs", medians(iteration_variants(encoder, plain, size)), "lower bound")
    bench = EvaluationBench(load_image_encoder("efficientnet_lite0", IMAGE_SIZE),
                            efficientnet_lite(0).eval().requires_grad_(False))
    found, reached = medians(bench.variants()), list[dict[str, float]]()
    one = time_of(lambda: reached.extend(bench.released()))
    show(f"evaluation of 100 pairs, {SEEDS} students",
         found | {"the released way (one student, times five)": Times(*(SEEDS * value for value in one))},
         "five at once")
    apart = max(abs(a[MEAN_RECALL] - b[0][MEAN_RECALL])
                for a, b in zip(reached, bench.ours(bench.evaluator), strict=True))
    print(f"  mean recalls of the first student, in percent, differ by {apart:.3f} at most")


def medians(variants: dict[str, Callable[[], object]]) -> dict[str, Times]:
    """Time the variants in turn; return the median of each."""
    return {name: Times(*map(statistics.median, zip(*times, strict=True)))
            for name, times in times_of(variants, ROUNDS).items()}


def show(title: str, times: dict[str, Times], unit: str) -> None:
    """Print the times of variants, in seconds and as a multiple of the processor seconds of the variant `unit`."""
    print(f"\n{title}")
    for name, (wall, processor) in times.items():
        print(f"  {name:<58} {wall:7.3f}  {processor:7.3f}  {processor / times[unit].processor:6.2f} x {unit}",
              flush=True)


if __name__ == "__main__":
    main()
