"""Measure what LoRS and RepBlend cost (the paper's Table 6): `python -m benchmarks.efficiency`.

Takes about six minutes on 2 otherwise idle cores; writes `benchmarks/efficiency.json`, which the report shows. The
published inner loop: 8 steps of 20 pairs, one expert segment per iteration, 100 pairs, images of 64 px. Both run on
this engine; `lors-double-backward` is LoRS with the gradient as it was released, which differentiates the encoder's
backward pass. Every method has a process of its own, so that its peak memory is its own; they run one after the other.
A trajectory is one of the whole length that `params.yaml` asks for, on random images, texts and order.
"""

import json
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

from benchmarks.two_pass import two_pass_gradient
from repblend.encoders.heads import HeadSpec
from repblend.encoders.image import ImageEncoder
from repblend.encoders.registry import load_image_encoder
from repblend.evaluation.towers import EncoderAndHead, HeadPair, Towers
from repblend.experts.training import TrainingPairs, draw_epoch, train_expert
from repblend.matching.distillation import Draws
from repblend.matching.encode_once import EncodeOnce, KeptGraph, Pixels
from repblend.matching.gradient import GRADIENTS, Segment, separate_normalisers
from repblend.matching.losses import LOSSES
from repblend.matching.perturbation import draw_blend
from repblend.matching.similarity import LowRankSimilarity
from repblend.matching.step import Objective, PerModality, SyntheticData
from repblend.params import Experts, read_params
from repblend.stages.harness import compute_deterministically
from repblend.stages.provenance import processor
from repblend.store import write_json

RESULT = Path(__file__).with_name("efficiency.json")
PARAMS = Path(__file__).parents[1] / "params.yaml"
METHODS = ("lors", "lors-double-backward", "repblend")
THREADS, BUDGET, IMAGE_SIZE, TEXT_WIDTH, ROUNDS, CHUNK = 2, 100, 64, 384, 7, 20
OBJECTIVE = Objective(LOSSES["wbce"], 0.07)
RATES = PerModality(torch.tensor(0.1), torch.tensor(0.1))
BYTES_PER_PARAMETER = 4
NUM_PAIRS = 1695
"""Of the embedded training set: how many steps an expert's epoch has."""


@dataclass(frozen=True)
class Subject:
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
        methods[name] = json.loads(done.stdout.splitlines()[-1])
        print(json.dumps(methods[name]))
    machine = f"{processor()}, {os.cpu_count()} cores"
    write_json(RESULT, {"machine": machine, "threads": THREADS, "budget": BUDGET, "image_size": IMAGE_SIZE,
                        "methods": methods})


def measure(name: str, rounds: int) -> dict[str, object]:
    """Return the costs of one method, measured in this process."""
    compute_deterministically(THREADS)
    draws = torch.Generator().manual_seed(0)
    subject = _subject(name, load_image_encoder("efficientnet_lite0", IMAGE_SIZE), draws)
    data = SyntheticData(torch.randn(BUDGET, 3, IMAGE_SIZE, IMAGE_SIZE, generator=draws),
                         torch.randn(BUDGET, TEXT_WIDTH, generator=draws),
                         LowRankSimilarity.identity(BUDGET, 10, 3.0, draws))
    start = subject.towers.initial(draws, draws)
    segment = Segment(start, PerModality(*(side + 0.01 * torch.randn(side.shape, generator=draws) for side in start)))
    seconds = _times(lambda: subject.gradient(data, segment), rounds)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # before experts take memory of their own
    began = time.perf_counter()
    num_snapshots = _train(subject, start, draws)
    return {"seconds_per_iteration": {"median": statistics.median(seconds), "min": min(seconds), "max": max(seconds),
                                      "rounds": rounds},
            "peak_memory_mib": peak, "seconds_per_trajectory": time.perf_counter() - began,
            "trajectory_bytes": num_snapshots * BYTES_PER_PARAMETER * sum(side.numel() for side in start)}


def _times(run: Callable[[], object], rounds: int) -> list[float]:
    run()  # to warm up
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - began)
    return seconds


def _subject(name: str, encoder: ImageEncoder, draws: torch.Generator) -> Subject:
    params = read_params(PARAMS)
    if name == "repblend":
        towers = HeadPair(HeadSpec(encoder.feature_dim, params.heads.width), HeadSpec(TEXT_WIDTH, params.heads.width))
        features = torch.randn(1, 1000, encoder.feature_dim, generator=draws)
        represent = partial(KeptGraph, encode=encoder.encode, chunk=CHUNK)
        return Subject(towers, features, params.experts,
                       partial(_gradient, "kept-graphs", towers, represent, _draws(blending=True)))
    towers = EncoderAndHead(encoder, HeadSpec(TEXT_WIDTH, encoder.feature_dim))
    pixels = torch.randn(1, 1000, 3, IMAGE_SIZE, IMAGE_SIZE, generator=draws)
    gradient = _released_gradient if name == "lors-double-backward" else partial(_gradient, "constant-memory")
    arguments = (towers,) if name == "lors-double-backward" else (towers, Pixels, _draws(blending=False))
    return Subject(towers, pixels, params.encoder_experts, partial(gradient, *arguments))


def _draws(blending: bool) -> Draws:
    return Draws(seed=0, num_segments=1, inner_steps=8, batch_size=20,
                 perturb=partial(draw_blend, alpha=1.0) if blending else None, expert_span=1, max_start=1)


def _gradient(name: str, towers: Towers, represent: Callable[[Tensor, Tensor], EncodeOnce], draws: Draws,
              data: SyntheticData, segment: Segment) -> dict[str, Tensor]:
    """This engine's gradient, as an iteration of a distillation computes it."""
    steps = draws.students(0, BUDGET)[0]
    once = represent(data.images, torch.cat([step.indices for step in steps]).unique())
    seen = SyntheticData(once.features(), data.texts, data.similarity)
    result = GRADIENTS[name](seen, RATES, segment, steps, towers.student, OBJECTIVE, separate_normalisers)
    return result.data | {"images": once.pull_back(result.data["images"])}


def _released_gradient(towers: Towers, data: SyntheticData, segment: Segment) -> dict[str, Tensor]:
    """The same gradient by the released procedure."""
    steps = _draws(blending=False).students(0, BUDGET)[0]
    return two_pass_gradient(data, RATES, segment, steps, lambda images: images, towers.student, OBJECTIVE)[1]


def _train(subject: Subject, start: PerModality, draws: torch.Generator) -> int:
    """Train one expert of the length that the parameters ask for; return how many snapshots its trajectory has."""
    settings = subject.settings
    pairs = TrainingPairs(subject.expert_inputs, torch.randn(NUM_PAIRS, TEXT_WIDTH, generator=draws),
                          torch.arange(NUM_PAIRS) % subject.expert_inputs.shape[1])
    batches = (batch for _ in range(settings.epochs) for batch in draw_epoch(NUM_PAIRS, 1, settings.batch_size, draws))
    steps = sum(1 for _ in train_expert(pairs, start, batches, subject.towers.student, settings.lr, settings.momentum,
                                        settings.weight_decay, settings.temperature))
    return steps // settings.snapshots_every + 1


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(sys.argv[1], ROUNDS)))
    else:
        main()
