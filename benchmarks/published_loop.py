"""Measure the published inner loop at its published size: `python -m benchmarks.published_loop [RESULT.json]`.

NFNet-L0 at 224 px with random weights, text features of BERT's width, 100 pairs, 8 steps of 20: seconds per iteration
and peak memory of LoRS and RepBlend, beside the bound of any engine that looks at every distinct image once (a forward
and an input-backward pass of the encoder). In every arithmetic, compiled and not; on the GPU if there is one. On a
processor, seconds are those of all its threads: with `--threads 1` their multiples hold on a busy machine as well.
Prints a table; writes JSON if a file is named. Needs torch, timm, numpy, safetensors and small packages of pure Python.
"""

import argparse
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from repblend.encoders.heads import HeadSpec
from repblend.encoders.image import ImageEncoder
from repblend.encoders.libraries import random_where_absent
from repblend.encoders.registry import load_image_encoder
from repblend.evaluation.towers import EncoderAndHead, HeadPair
from repblend.experts.trajectories import TrajectoryStore
from repblend.matching.blending import draw_blend
from repblend.matching.distillation import Distillation, Draws, KeptGraph, Matcher, Pixels
from repblend.matching.gradient import (
    NORMALISERS,
    MatchSegments,
    constant_memory_gradient,
    one_by_one,
    with_fastest_second_order,
)
from repblend.matching.heads import heads_gradient
from repblend.matching.losses import LOSSES
from repblend.matching.optimiser import Learned, LinearRates, Momenta, OuterRates, sgd
from repblend.matching.similarity import IdentitySimilarity, LowRankSimilarity
from repblend.matching.student import PerModality, StudentLoss, SyntheticData, on
from repblend.runtime.harness import compute_deterministically, prepare_gpu
from repblend.runtime.provenance import processor
from repblend.store import write_json

ENCODER, TEXT_WIDTH, IMAGE_SIZE, PAIRS = "nfnet_l0", 768, 224, 100
INNER_STEPS, BATCH_SIZE = 8, 20
ARITHMETICS = ("float32", "tf32-convolutions", "tf32", "bf16")
CHUNK = 50
"""Images that pass through the frozen encoder at once."""
PUBLISHED = {"lors": (11.5, 21.78), "repblend": (1.71, 10.17)}
"""Seconds per iteration and GiB, on the authors' GPUs (Section 8)."""


class Segment(TrajectoryStore):
    """An expert with two snapshots near to each other, which lie in memory."""

    def __init__(self, start: PerModality, draws: torch.Generator) -> None:
        moved = PerModality(*(side + 0.01 * torch.randn(side.shape, generator=draws) for side in start))
        self.num_snapshots, self._files, self._snapshots = 2, [Path()], [start, moved]

    def snapshot(self, expert: int, index: int) -> PerModality:
        return self._snapshots[index]


def main(arguments: Sequence[str]) -> int:
    """Measure, print and write; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("result", nargs="?", type=Path, help="a JSON file to write")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--arithmetic", nargs="+", default=ARITHMETICS, choices=ARITHMETICS)
    parser.add_argument("--methods", nargs="+", default=("bound", "repblend", "lors"))
    parser.add_argument("--compile", nargs="+", type=int, default=(0, 1), choices=(0, 1))
    parser.add_argument("--pairs", type=int, default=PAIRS)
    parser.add_argument("--image-size", type=int, default=IMAGE_SIZE)
    asked = parser.parse_args(arguments)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    compute_deterministically(asked.threads)
    rows = []
    for arithmetic in asked.arithmetic:
        if device == "cpu" and arithmetic.startswith("tf32"):
            continue  # a processor has none
        for compiled in map(bool, asked.compile):
            for method in asked.methods:
                row = {"method": method, "arithmetic": arithmetic, "compiled": compiled}
                row |= measured(method, arithmetic, compiled, device, asked.rounds, asked.pairs, asked.image_size)
                rows.append(row)
                print(line(row, rows), flush=True)
    result = {"device": torch.cuda.get_device_name() if device == "cuda" else processor(), "threads": asked.threads,
              "torch": torch.__version__, "system": platform.platform(), "cores": os.cpu_count(), "pairs": asked.pairs,
              "image_size": asked.image_size, "encoder": ENCODER, "inner_steps": INNER_STEPS,
              "batch_size": BATCH_SIZE, "rounds": asked.rounds, "rows": rows}
    print(f"on {result['device']}, torch {torch.__version__}")
    if asked.result:
        write_json(asked.result, result)
    return 0


def line(row: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """Return a line of the table, with the multiple of the bound of the same arithmetic, and what was published."""
    name = f"{row['method']:<9} {row['arithmetic']:<18} {'compiled' if row['compiled'] else '':<9}"
    if row["seconds"] is None:
        return f"{name} {row['finding']}"
    bound = next((each["seconds"] for each in rows if each["method"] == "bound" and each["seconds"] and
                  (each["arithmetic"], each["compiled"]) == (row["arithmetic"], row["compiled"])), None)
    published = "published: {} s, {} GiB".format(*PUBLISHED[row["method"]]) if row["method"] in PUBLISHED else ""
    times = f"{row['seconds'] / bound:6.2f} x bound" if bound else ""
    memory = "" if row["peak_gib"] is None else f"{row['peak_gib']:6.2f} GiB"
    return f"{name} {row['seconds']:8.3f} s {times} {memory}  {published}"


def measured(method: str, arithmetic: str, compiled: bool, device: str, rounds: int, pairs: int,
             image_size: int) -> dict[str, Any]:
    """Return median seconds per iteration and peak memory of the GPU; a finding where it does not run."""
    if device == "cuda":
        prepare_gpu(arithmetic)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    try:
        with random_where_absent():
            encoder = load_image_encoder(ENCODER, image_size).to(device, arithmetic == "bf16", compiled)
        iterate = work_of(method, encoder, device, pairs, image_size)
        seconds = [timed(iterate, device) for _ in range(rounds + 1)][1:]  # the first warms up and compiles
    except RuntimeError as error:  # out of memory, or an algorithm that is not deterministic
        return {"seconds": None, "peak_gib": None, "finding": str(error).splitlines()[0]}
    peak = torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else None
    return {"seconds": statistics.median(seconds), "min": min(seconds), "max": max(seconds), "peak_gib": peak}


def timed(work: Callable[[], object], device: str) -> float:
    """Return the seconds of one call: the clock's on a GPU, those that the processor spent otherwise."""
    clock = time.perf_counter if device == "cuda" else time.process_time
    began = clock()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return clock() - began


def work_of(method: str, encoder: ImageEncoder, device: str, pairs: int, image_size: int) -> Callable[[], object]:
    """Return what one iteration of a method does, or the bound."""
    draws = torch.Generator().manual_seed(0)
    images = torch.randn(pairs, 3, image_size, image_size, generator=draws)
    if method == "bound":
        return partial(look_once, encoder, images.to(device))
    if method == "lors":
        towers: Any = EncoderAndHead(encoder, HeadSpec(TEXT_WIDTH, encoder.feature_dim))
    else:
        towers = HeadPair.of_widths(encoder.feature_dim, TEXT_WIDTH, encoder.feature_dim)
    rates = on(device, PerModality(torch.tensor(0.1), torch.tensor(0.1)))
    learned = Learned(images.to(device), torch.randn(pairs, TEXT_WIDTH, generator=draws).to(device),
                      LowRankSimilarity.identity(pairs, 10, 3.0, draws).to(device), rates, LinearRates)
    represent = Pixels if method == "lors" else partial(KeptGraph, encode=encoder.encode, chunk=CHUNK)
    objective, segment = StudentLoss(LOSSES["wbce"], 0.07), Segment(towers.initial(draws, draws), draws)
    if method == "lors":  # as stages find out: not every layer can be differentiated forwards
        few = SyntheticData(learned.images[:2], learned.texts[:2], IdentitySimilarity(2, device))
        student = with_fastest_second_order(towers.student, few, on(device, segment.snapshot(0, 0)), objective)
        match: MatchSegments = one_by_one(constant_memory_gradient, student, objective, NORMALISERS["separate"])
    else:
        match = partial(heads_gradient, heads=(towers.img, towers.txt), objective=objective,
                        normaliser=NORMALISERS["separate"])
    matcher = Matcher(represent, match)
    inner = Draws(seed=0, num_segments=1, perturb=partial(draw_blend, alpha=1.0) if method == "repblend" else None,
                  expert_span=1, max_start=1, inner_steps=INNER_STEPS, batch_size=BATCH_SIZE)
    distillation = Distillation(learned, sgd(learned, OuterRates(1e-6, 1e-6, 1e-6, 1e-6), Momenta(0.5, 0.5, 0.5)),
                                lambda _: 1.0, 0.0, matcher, inner, segment)
    return lambda: distillation.iterate(0)


def look_once(encoder: ImageEncoder, images: Tensor) -> None:
    """One forward and one input-backward pass over all images."""
    for part in images.split(CHUNK):
        leaf = part.detach().requires_grad_()
        features = encoder.encode(leaf)
        torch.autograd.grad(features, leaf, torch.ones_like(features))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
