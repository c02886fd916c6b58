"""Training of a classifier, epoch by epoch, that can stop anywhere and go on with the same bytes.

A checkpoint holds the network (weights and statistics), the optimiser's memory, the curves and the number of epochs
done. Draws are named by their epoch, so no generator's state is in it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from repblend.progress import progress
from repblend.schedules import cosine
from repblend.store import read_tensors, write_tensors


@dataclass
class Training:
    """A network under training."""

    network: nn.Module
    optimiser: torch.optim.Optimizer
    checkpoint: Path
    """A file; `save` writes it, `resume` reads it."""
    work: str
    """Identifies parameters, inputs and sources; a checkpoint of other work is not resumed."""
    epoch: int = 0
    """Epochs done."""
    curves: dict[str, list[float]] = field(default_factory=dict)

    def record(self, **values: float) -> None:
        """Append to curves."""
        for name, value in values.items():
            self.curves.setdefault(name, []).append(value)

    def save(self) -> None:
        """Write the checkpoint, atomically."""
        write_tensors(self.checkpoint, self._tensors(),
                      {"work": self.work, "epoch": self.epoch, "curves": self.curves})

    def resume(self) -> None:
        """Go on from the checkpoint, if there is one of this work."""
        if not self.checkpoint.is_file():
            return
        tensors, metadata = read_tensors(self.checkpoint)
        if metadata["work"] != self.work:
            return
        self.network.load_state_dict(_under(tensors, "network"))
        memory: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _under(tensors, "optimiser").items():
            number, _, slot = name.partition("/")
            memory.setdefault(int(number), {})[slot] = tensor
        self.optimiser.load_state_dict(self.optimiser.state_dict() | {"state": memory})
        self.epoch, self.curves = metadata["epoch"], metadata["curves"]

    def _tensors(self) -> dict[str, Tensor]:
        memory = self.optimiser.state_dict()["state"]
        return {f"network/{name}": tensor for name, tensor in self.network.state_dict().items()} | {
            f"optimiser/{number}/{slot}": tensor for number, slots in memory.items() for slot, tensor in slots.items()}


def _under(tensors: dict[str, Tensor], kind: str) -> dict[str, Tensor]:
    return {name.partition("/")[2]: tensor for name, tensor in tensors.items() if name.startswith(f"{kind}/")}


def run_epochs(training: Training, num_epochs: int, lr: float, checkpoint_every: int,
               run_epoch: Callable[[int], float], after_epoch: Callable[[int, float], None], label: str) -> None:
    """Run the epochs that are left, with the learning rate lowered along half a cosine, epoch by epoch.

    Args:
        run_epoch: trains one epoch and returns its mean loss.
        after_epoch: measures after an epoch, given its number from 0 and its loss.

    Raises:
        ValueError: a loss is not finite; the checkpoint before stays.
    """
    training.resume()
    for epoch in progress(range(training.epoch, num_epochs), label, "epoch", training.epoch, num_epochs):
        for group in training.optimiser.param_groups:
            group["lr"] = lr * cosine(epoch, num_epochs)
        loss = run_epoch(epoch)
        if not torch.isfinite(torch.tensor(loss)):
            raise ValueError(f"{label}, epoch {epoch}: the loss is {loss}; lower the learning rate")
        after_epoch(epoch, loss)
        training.epoch = epoch + 1
        if training.epoch % checkpoint_every == 0 or training.epoch == num_epochs:
            training.save()


def mean_loss(losses: list[Tensor]) -> float:
    """Return the mean of an epoch's losses, read once at its end."""
    return torch.stack(losses).double().mean().item()
