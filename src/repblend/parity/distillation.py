"""Replay of recorded distillation iterations (parity/README.md section 1): RepBlend and LoRS."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from repblend.matching.encode_once import KeptGraph, Pixels
from repblend.matching.gradient import NORMALISERS, MatchingGradient, Segment, constant_memory_gradient
from repblend.matching.losses import LOSSES
from repblend.matching.outer import Learned, LinearRates, Momenta, OuterRates, sgd
from repblend.matching.perturbation import Blend
from repblend.matching.similarity import FullSimilarity, LowRankSimilarity, Similarity
from repblend.matching.step import InnerStep, Objective, PerModality, Student, SyntheticData, inner_loss
from repblend.parity.fixture import Fixture
from repblend.parity.toy_models import encoder_tower, frozen_encoder, head_tower

RECORDED_NAMES = {"images": "images", "texts": "texts", "lr_img": "syn_lr_img", "lr_txt": "syn_lr_txt",
                  "similarity_diagonal": "sim_diag", "similarity_left": "sim_left", "similarity_right": "sim_right",
                  "similarity_full": "sim_full"}
"""Our names of learned tensors to those of the recordings."""


def replay(fixture: Fixture) -> dict[str, Tensor]:
    """Run the recorded iterations with the recorded draws; return every recorded output under its name."""
    frozen = "enc_conv_weight" in fixture
    image_tower = head_tower(fixture, "img") if frozen else encoder_tower(fixture)
    student = Student(image_tower, head_tower(fixture, "txt"))
    encode = frozen_encoder(fixture) if frozen else None
    objective = Objective(LOSSES[fixture.text("cfg_loss_type").lower()], fixture.number("cfg_temperature"))
    learned = _initial(fixture)
    optimiser = sgd(learned, *_outer_settings(fixture))
    outputs: dict[str, Tensor] = {}
    for iteration in range(fixture.integer("cfg_num_iterations")):
        outputs |= _iterate(fixture, f"it{iteration}_", learned, optimiser, student, objective, encode)
    return outputs


def _iterate(fixture: Fixture, prefix: str, learned: Learned, optimiser: torch.optim.Optimizer, student: Student,
             objective: Objective, encode: Callable[[Tensor], Tensor] | None) -> dict[str, Tensor]:
    outputs = {f"{prefix}before_{RECORDED_NAMES[name]}": value.clone() for name, value in learned.tensors.items()}
    steps, segment = _steps(fixture, prefix), _segment(fixture, prefix)
    drawn = torch.cat([step.indices for step in steps]).unique()
    once = KeptGraph(learned.images, drawn, encode, 5) if encode else Pixels(learned.images, drawn)
    data = SyntheticData(once.features(), learned.texts, learned.similarity)
    normaliser = NORMALISERS["joint" if fixture.integer("cfg_merge_loss_branches") else "separate"]
    result = constant_memory_gradient(data, learned.rates, segment, steps, student, objective, normaliser)
    outputs |= _named(prefix, result, segment, _first_logits(data, steps, segment, student, objective),
                      [learned.similarity.batch(step.indices) for step in steps],
                      _losses_again(data, steps, result, student, objective))
    result.data["images"] = once.pull_back(result.data["images"])
    learned.set_gradients(result.data, result.rates)
    outputs |= {f"{prefix}grad_{RECORDED_NAMES[name]}": value.grad for name, value in learned.tensors.items()}
    optimiser.step()
    outputs |= {f"{prefix}after_{RECORDED_NAMES[name]}": value.clone() for name, value in learned.tensors.items()}
    if not math.isnan(fixture.number("cfg_clamp_lr")):
        learned.clamp_rates(fixture.number("cfg_clamp_lr"))
    return outputs


def _named(prefix: str, result: MatchingGradient, segment: Segment, logits: Tensor, similarities: list[Tensor],
           losses_again: list[Tensor]) -> dict[str, Tensor]:
    outputs = {"grand_loss": result.losses.img + result.losses.txt, "step0_logits": logits,
               "step_sim": torch.stack(similarities), "step_loss": torch.stack(result.trace.losses),
               "step_loss_second_pass": torch.stack(losses_again)}
    distances = segment.distances()
    for side in ("img", "txt"):
        outputs[f"{side}_theta"] = torch.stack([getattr(theta, side) for theta in result.trace.thetas])
        outputs[f"{side}_grad_sum"] = getattr(result.trace.gradient_sum, side)
        outputs[f"{side}_param_dist"] = getattr(distances, side)
        outputs[f"{side}_grand_loss"] = getattr(result.losses, side)
    return {prefix + name: value for name, value in outputs.items()}


def _losses_again(data: SyntheticData, steps: list[InnerStep], result: MatchingGradient, student: Student,
                  objective: Objective) -> list[Tensor]:
    return [inner_loss(student, theta, data.rows(step.indices), step.perturbation, objective)
            for step, theta in zip(steps, result.trace.thetas, strict=False)]


def _first_logits(data: SyntheticData, steps: list[InnerStep], segment: Segment, student: Student,
                  objective: Objective) -> Tensor:
    seen = []
    spy = Objective(lambda logits, target: seen.append(logits) or logits.sum(), objective.temperature)
    inner_loss(student, segment.start, data.rows(steps[0].indices), steps[0].perturbation, spy)
    return seen[0]


def _initial(fixture: Fixture) -> Learned:
    rates = PerModality(fixture.tensor("init_syn_lr_img"), fixture.tensor("init_syn_lr_txt"))
    rates = PerModality(*(rate.to(fixture.precision) for rate in rates))
    return Learned(fixture.tensor("init_images"), fixture.tensor("init_texts"), _similarity(fixture), rates,
                   LinearRates)


def _similarity(fixture: Fixture) -> Similarity:
    if "init_sim_full" in fixture:
        return FullSimilarity(fixture.tensor("init_sim_full"))
    return LowRankSimilarity(fixture.tensor("init_sim_diag"), fixture.tensor("init_sim_left"),
                             fixture.tensor("init_sim_right"), fixture.number("cfg_lora_alpha"))


def _outer_settings(fixture: Fixture) -> tuple[OuterRates, Momenta]:
    rate, momentum = (lambda name: fixture.number(f"cfg_outer_lr_{name}"),
                      lambda name: fixture.number(f"cfg_momentum_{name}"))
    return (OuterRates(rate("img"), rate("txt"), rate("sim"), rate("lr")),
            Momenta(momentum("syn"), momentum("lr"), momentum("sim")))


def _segment(fixture: Fixture, prefix: str) -> Segment:
    expert, start = fixture.integer(f"{prefix}expert_idx"), fixture.integer(f"{prefix}start_epoch")
    end = start + fixture.integer("cfg_expert_epochs")
    snapshots = [fixture.tensor(f"{side}_expert_flat")[expert] for side in ("img", "txt")]
    return Segment(PerModality(*(snapshot[start] for snapshot in snapshots)),
                   PerModality(*(snapshot[end] for snapshot in snapshots)))


def _steps(fixture: Fixture, prefix: str) -> list[InnerStep]:
    batches = list(fixture.tensor(f"{prefix}batch_indices"))
    if f"{prefix}blend_lam" not in fixture:
        return [InnerStep(indices, None) for indices in batches]
    weights, permutations = fixture.tensor(f"{prefix}blend_lam"), fixture.tensor(f"{prefix}blend_perm")
    return [InnerStep(indices, Blend(weight.item(), permutation))
            for indices, weight, permutation in zip(batches, weights, permutations, strict=True)]
