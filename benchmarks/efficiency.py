"""Measure what LoRS and RepBlend cost (Table 6): `python -m benchmarks.efficiency`.

Takes five to ten minutes on 2 otherwise idle cores; writes `benchmarks/efficiency.json`, which the report shows. The
published inner loop: 8 steps of 20 pairs, one expert segment per iteration, 100 pairs, images of 64 px. Both run on
this engine; `lors-double-backward` is LoRS with the gradient as it was released, which differentiates the encoder's
backward pass. Every method has a process of its own, so that its peak memory is its own; they run one after the other.
A trajectory is one of the whole length that `params.yaml` asks for, on random images, texts and order.
"""

import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.timing import seconds_of
from benchmarks.two_pass import two_pass_gradient
from repblend.encoders.heads import HeadSpec
from repblend.encoders.image import ImageEncoder
from repblend.encoders.registry import load_image_encoder
from repblend.evaluation.towers import EncoderAndHead, HeadPair, Towers
from repblend.experts.training import TrainingPairs, draw_epoch, train_expert
from repblend.matching.blending import draw_blend
from repblend.matching.distillation import Draws, EncodeOnce, KeptGraph, Pixels
from repblend.matching.gradient import NORMALISERS, MatchSegments, Segment, constant_memory_gradient, one_by_one
from repblend.matching.heads import heads_gradient
from repblend.matching.losses import LOSSES
from repblend.matching.similarity import LowRankSimilarity
from repblend.matching.student import PerModality, StudentLoss, SyntheticData
from repblend.params import read_params
from repblend.params.experts import Experts
from repblend.records.results import Efficiency, MethodCost, Seconds
from repblend.runtime.harness import compute_deterministically
from repblend.runtime.provenance import processor

RESULT = Path(__file__).with_name("efficiency.json")
PARAMS = Path(__file__).parents[1] / "params.yaml"
METHODS = ("lors", "lors-double-backward", "repblend")
THREADS, BUDGET, IMAGE_SIZE, TEXT_WIDTH, ROUNDS, CHUNK = 2, 100, 64, 384, 7, 20
OBJECTIVE = StudentLoss(LOSSES["wbce"], 0.07)
RATES = PerModality(torch.tensor(0.1), torch.tensor(0.1))
BYTES_PER_PARAMETER = 4
NUM_PAIRS = 1695
"""Of the embedded training set: how many steps an expert's epoch has."""


@dataclass(frozen=True)
class MeasuredMethod:
    """A method at work: what it matches, and one iteration's gradient of all that is learned."""

    towers: Towers
    expert_inputs: Tensor
    """What experts see of the training images, (V, I, ...)."""
    settings: Experts
    gradient: Callable[[SyntheticData, Segment], dict[str, Tensor]]


def main() -> None:
    """Measure every method in a process of its own and write the result."""
    methods = {}
    for name in METHODS:
        print(f"{name} ...", flush=True)
        done = subprocess.run([sys.executable, "-m", "benchmarks.efficiency", name], capture_output=True, text=True,
                              check=True)
        methods[name] = MethodCost.model_validate_json(done.stdout.splitlines()[-1])
        print(methods[name].model_dump_json())
    Efficiency(machine=f"{processor()}, {os.cpu_count()} cores", threads=THREADS, budget=BUDGET,
               image_size=IMAGE_SIZE, methods=methods).write(RESULT)


def measure(name: str, rounds: int) -> MethodCost:
    """Return the costs of one method, measured in this process."""
    compute_deterministically(THREADS)
    draws = torch.Generator().manual_seed(0)
    subject = _subject(name, load_image_encoder("efficientnet_lite0", IMAGE_SIZE), draws)
    data = SyntheticData(torch.randn(BUDGET, 3, IMAGE_SIZE, IMAGE_SIZE, generator=draws),
                         torch.randn(BUDGET, TEXT_WIDTH, generator=draws),
                         LowRankSimilarity.identity(BUDGET, 10, 3.0, draws))
    start = subject.towers.initial(draws, draws)
    segment = Segment(start, PerModality(*(side + 0.01 * torch.randn(side.shape, generator=draws) for side in start)))
    seconds = seconds_of({name: lambda: subject.gradient(data, segment)}, rounds)[name]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # before experts take memory of their own
    began = time.perf_counter()
    settings = subject.settings
    pairs = TrainingPairs(subject.expert_inputs, torch.randn(NUM_PAIRS, TEXT_WIDTH, generator=draws),
                          torch.arange(NUM_PAIRS) % subject.expert_inputs.shape[1])
    batches = (batch for _ in range(settings.epochs) for batch in draw_epoch(NUM_PAIRS, 1, settings.batch_size, draws))
    steps = sum(1 for _ in train_expert(pairs, start, batches, subject.towers.student, settings.lr, settings.momentum,
                                        settings.weight_decay, settings.temperature))
    num_snapshots = steps // settings.steps_between_snapshots(NUM_PAIRS) + 1
    return MethodCost(
        seconds_per_iteration=Seconds(median=statistics.median(seconds), min=min(seconds), max=max(seconds),
                                      rounds=rounds),
        peak_memory_mib=peak, seconds_per_trajectory=time.perf_counter() - began,
        trajectory_bytes=num_snapshots * BYTES_PER_PARAMETER * sum(side.numel() for side in start))


def _subject(name: str, encoder: ImageEncoder, draws: torch.Generator) -> MeasuredMethod:
    params = read_params(PARAMS)
    if name == "repblend":
        towers = HeadPair(HeadSpec(encoder.feature_dim, params.heads.width), HeadSpec(TEXT_WIDTH, params.heads.width))
        features = torch.randn(1, 1000, encoder.feature_dim, generator=draws)
        represent = partial(KeptGraph, encode=encoder.encode, chunk=CHUNK)
        match: MatchSegments = partial(heads_gradient, heads=(towers.img, towers.txt), objective=OBJECTIVE,
                                       normaliser=NORMALISERS["separate"])
        return MeasuredMethod(towers, features, params.experts,
                              partial(_gradient, match, represent, _draws(blending=True)))
    whole = EncoderAndHead(encoder, HeadSpec(TEXT_WIDTH, encoder.feature_dim))
    pixels = torch.randn(1, 1000, 3, IMAGE_SIZE, IMAGE_SIZE, generator=draws)
    inner = _draws(blending=False)

    def released(data: SyntheticData, segment: Segment) -> dict[str, Tensor]:
        steps = inner.students(0, BUDGET)[0]
        return two_pass_gradient(data, RATES, segment, steps, lambda images: images, whole.student, OBJECTIVE)[1]

    one_at_a_time = one_by_one(constant_memory_gradient, whole.student, OBJECTIVE, NORMALISERS["separate"])
    ours = partial(_gradient, one_at_a_time, Pixels, inner)
    return MeasuredMethod(whole, pixels, params.encoder_experts,
                          released if name == "lors-double-backward" else ours)


def _draws(blending: bool) -> Draws:
    return Draws(seed=0, num_segments=1, inner_steps=8, batch_size=20,
                 perturb=partial(draw_blend, alpha=1.0) if blending else None, expert_span=1, max_start=1)


def _gradient(match: MatchSegments, represent: Callable[[Tensor, Tensor], EncodeOnce], draws: Draws,
              data: SyntheticData, segment: Segment) -> dict[str, Tensor]:
    """This engine's gradient, as an iteration of a distillation computes it."""
    steps = draws.students(0, BUDGET)[0]
    once = represent(data.images, torch.cat([step.indices for step in steps]).unique())
    seen = SyntheticData(once.features(), data.texts, data.similarity)
    result = match(seen, RATES, [segment], [steps])
    return result.data | {"images": once.pull_back(result.data["images"])}


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(measure(sys.argv[1], ROUNDS).model_dump_json())
    else:
        main()
