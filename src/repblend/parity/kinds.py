"""Kinds of recordings: how each is recognised, replayed, and which of its arrays are outputs."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from repblend.parity import components, distillation, evaluation, training
from repblend.parity.fixture import Fixture


@dataclass(frozen=True)
class Kind:
    """One kind of recording."""

    name: str
    marker: str
    """An array that only this kind has (it may be the end of a name)."""
    replay: Callable[[Fixture], dict[str, Tensor]]
    is_output: Callable[[str], bool]
    """Whether a name is that of an output, as opposed to an input or a draw."""

    def recognises(self, fixture: Fixture) -> bool:
        return any(name.endswith(self.marker) for name in fixture.names())


DRAWS = ("_expert_idx", "_start_epoch", "_batch_indices", "_blend_lam", "_blend_perm")

KINDS = (
    Kind("distillation", "cfg_syn_steps", distillation.replay,
         lambda name: name.startswith("it") and not name.endswith(DRAWS)),
    Kind("losses", "loss_types", components.replay_losses,
         lambda name: name.endswith(("_value", "_grad_logits", "_grad_sim", "_hvp_logits", "_hvp_sim"))),
    Kind("similarity", "_similarity_batch", components.replay_similarity,
         lambda name: "_similarity" in name or "_grad_" in name),
    Kind("head", "_mixed_grad_flat", components.replay_head,
         lambda name: name.endswith(("_flat_params", "_output")) or "_grad_" in name),
    Kind("expert", "img_flat_per_epoch", training.replay_expert,
         lambda name: name.endswith(("_per_epoch", "epoch_loss", "epoch_acc"))),
    Kind("student", "img_flat_after_epoch", evaluation.replay_student,
         lambda name: name.startswith(("epoch_", "best_", "eval_")) or name.endswith("_after_epoch")),
    Kind("retrieval", "_scores_i2t", evaluation.replay_retrieval,
         lambda name: name.endswith(("_r1", "_r5", "_r10", "_r_mean", "_truncated"))),
)


def recognise(fixture: Fixture) -> Kind:
    """Return the kind of a recording.

    Raises:
        ValueError: it is of no known kind.
    """
    for kind in KINDS:
        if kind.recognises(fixture):
            return kind
    raise ValueError(f"{fixture.path}: not a recording of a known kind; expected one of "
                     + ", ".join(f"{kind.name} (has '{kind.marker}')" for kind in KINDS))
