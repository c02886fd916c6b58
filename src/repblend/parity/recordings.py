"""The kinds of recordings of the released code (`paper/METHOD.md`), and how each is replayed: the table `RECORDINGS`.

A recording is a file of arrays: inputs, the random draws, and what the released code made of them.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from repblend.parity import data, mttvl, replays, ufc
from repblend.parity.fixture import Fixture


@dataclass(frozen=True)
class Recording:
    """One kind of recording."""

    name: str
    marker: str
    """An array that only this kind has (it may be the end of a name)."""
    replay: Callable[[Fixture], dict[str, Tensor]]
    is_output: Callable[[str], bool]
    """Whether a name is that of an output, as opposed to an input or a draw."""
    tolerance: Callable[[Fixture, str], float] | None = None
    """Of an output; by default as `repblend.parity.fixture.tolerance` has it."""
    absolute: Callable[[str], bool] = lambda name: False
    """Whether an output that is no recall is judged by its absolute difference."""
    split: Callable[[Fixture, str], dict[str, Tensor]] = lambda fixture, name: {name: fixture.tensor(name)}
    """From the name of an output to what is judged by itself."""

    def recorded(self, fixture: Fixture) -> dict[str, Tensor]:
        """Return every output of a recording under its name."""
        return {part: value for name in fixture.names() if self.is_output(name)
                for part, value in self.split(fixture, name).items()}

    def recognises(self, fixture: Fixture) -> bool:
        return any(name.endswith(self.marker) for name in fixture.names())


DRAWS = ("_expert_idx", "_start_epoch", "_batch_indices", "_blend_lam", "_blend_perm", "_kept_first", "_kept_second",
         "_text_kept")

RECORDINGS = (
    Recording("distillation", "cfg_syn_steps", replays.replay_distillation,
         lambda name: name.startswith("it") and not name.endswith(DRAWS)),
    Recording("distillation", "cfg_inner_steps", replays.replay_distillation,  # with dropout
         lambda name: name.startswith("it") and not name.endswith(DRAWS)),
    Recording("losses", "loss_types", replays.replay_losses,
         lambda name: name.endswith(("_value", "_grad_logits", "_grad_sim", "_hvp_logits", "_hvp_sim"))),
    Recording("similarity", "_similarity_batch", replays.replay_similarity,
         lambda name: "_similarity" in name or "_grad_" in name),
    Recording("head", "_mixed_grad_flat", replays.replay_head,
         lambda name: name.endswith(("_flat_params", "_output")) or "_grad_" in name),
    Recording("expert", "img_flat_per_epoch", replays.replay_expert,
         lambda name: name.endswith(("_per_epoch", "epoch_loss", "epoch_acc"))),
    Recording("student", "img_flat_after_epoch", replays.replay_student,
         lambda name: name.startswith(("epoch_", "best_", "eval_")) or name.endswith("_after_epoch")),
    Recording("retrieval", "_scores_i2t", replays.replay_retrieval,
         lambda name: name.endswith(("_r1", "_r5", "_r10", "_r_mean", "_truncated"))),
    Recording("mtt-vl", "cfg_unrolled_steps", mttvl.replay_distillation,
         lambda name: name.startswith("it") and not name.endswith(DRAWS)),
    Recording("mtt-vl-student", "img_after_epoch", mttvl.replay_student, mttvl.is_of_student),
    Recording("views", "op_output", data.replay_views, data.is_view, data.view_tolerance, data.is_bytes,
              data.split_operations),
    Recording("captions", "captions", data.replay_captions, lambda name: name.startswith("cleaned_"),
              lambda fixture, name: 0.0),
    Recording("ufc-generation", "_grad_u", ufc.replay_generation, ufc.is_generated, ufc.generation_tolerance),
    Recording("ufc-training", "_mix_partners", ufc.replay_training, ufc.is_trained, ufc.training_tolerance),
    Recording("ufc-schedules", "budget_num_real", ufc.replay_schedules, ufc.is_scheduled, ufc.schedule_tolerance),
)


def recognise(fixture: Fixture) -> Recording:
    """Return the kind of a recording.

    Raises:
        ValueError: it is of no known kind.
    """
    for kind in RECORDINGS:
        if kind.recognises(fixture):
            return kind
    raise ValueError(f"{fixture.path}: not a recording of a known kind; expected one of "
                     + ", ".join(f"{kind.name} (has '{kind.marker}')" for kind in RECORDINGS))
