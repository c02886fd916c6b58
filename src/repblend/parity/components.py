"""Replays of the engine's parts: losses, low-rank similarity, projection head (parity/README.md sections 2 to 4)."""

import torch
from torch import Tensor

from repblend.encoders.heads import apply_head
from repblend.matching.losses import LOSSES
from repblend.matching.similarity import LowRankSimilarity
from repblend.parity.fixture import Fixture
from repblend.parity.toy_models import head_spec


def replay_losses(fixture: Fixture) -> dict[str, Tensor]:
    """Every loss on every case: value, first gradients, and second-order products with the case's direction."""
    outputs: dict[str, Tensor] = {}
    for case in fixture.texts("case_names"):
        for loss in fixture.texts("loss_types"):
            if f"{case}_{loss}_value" in fixture:
                outputs |= {f"{case}_{loss}_{name}": value for name, value in _loss(fixture, case, loss).items()}
    return outputs


def _loss(fixture: Fixture, case: str, loss: str) -> dict[str, Tensor]:
    logits, target = (fixture.tensor(f"{case}_{name}").requires_grad_() for name in ("logits", "sim"))
    value = LOSSES[loss.lower()](logits, target)
    grad_logits, grad_target = torch.autograd.grad(value, (logits, target), create_graph=True)
    product = (fixture.tensor(f"{case}_v") * grad_logits).sum()
    hvp_logits, hvp_target = torch.autograd.grad(product, (logits, target), materialize_grads=True)
    return {"value": value, "grad_logits": grad_logits, "grad_sim": grad_target,
            "hvp_logits": hvp_logits, "hvp_sim": hvp_target}


def replay_similarity(fixture: Fixture) -> dict[str, Tensor]:
    """Whole and batch similarity of every configuration, its gradients, and the published start."""
    outputs: dict[str, Tensor] = {}
    for case in _cases(fixture, "_similarity_batch"):
        tensors = [fixture.tensor(f"{case}_{name}").requires_grad_() for name in ("diag", "left", "right")]
        similarity = LowRankSimilarity(*tensors, alpha=fixture.number(f"{case}_lora_alpha"))
        batch = similarity.batch(fixture.tensor(f"{case}_indices"))
        gradients = torch.autograd.grad((fixture.tensor(f"{case}_cotangent_batch") * batch).sum(), tensors)
        start = LowRankSimilarity.identity(len(tensors[0]), fixture.integer(f"{case}_rank"), similarity.alpha,
                                           torch.Generator().manual_seed(0))
        outputs |= {f"{case}_similarity": similarity.matrix(), f"{case}_similarity_batch": batch,
                    f"{case}_default_init_similarity": start.matrix()}
        outputs |= dict(zip([f"{case}_grad_{name}" for name in ("diag", "left", "right")], gradients, strict=True))
    return outputs


def replay_head(fixture: Fixture) -> dict[str, Tensor]:
    """Output of every head, its gradients and its mixed second derivatives."""
    outputs: dict[str, Tensor] = {}
    for case in _cases(fixture, "_flat_params"):
        spec = head_spec(fixture, f"{case}_param_shapes")
        names = fixture.texts(f"{case}_param_names")
        flat = torch.cat([fixture.tensor(f"{case}_param_{name}").flatten() for name in names]).requires_grad_()
        x = fixture.tensor(f"{case}_x").requires_grad_()
        output = apply_head(x, flat, spec)
        cotangent = fixture.tensor(f"{case}_cotangent")
        grad_flat, grad_x = torch.autograd.grad((cotangent * output).sum(), (flat, x), create_graph=True)
        mixed = torch.autograd.grad(grad_flat @ fixture.tensor(f"{case}_v"), (flat, x))
        outputs |= {f"{case}_flat_params": flat, f"{case}_output": output, f"{case}_grad_flat": grad_flat,
                    f"{case}_grad_x": grad_x, f"{case}_mixed_grad_flat": mixed[0], f"{case}_mixed_grad_x": mixed[1]}
    return outputs


def _cases(fixture: Fixture, suffix: str) -> list[str]:
    return [name.removesuffix(suffix) for name in fixture.names() if name.endswith(suffix)]
