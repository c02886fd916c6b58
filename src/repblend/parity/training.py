"""Replay of a recorded expert (parity/README.md section 7)."""

import torch
from torch import Tensor

from repblend.experts.training import ExpertBatch, TrainingPairs, train_expert
from repblend.matching.step import PerModality, Student
from repblend.parity.fixture import Fixture
from repblend.parity.toy_models import frozen_encoder, head_tower


def replay_expert(fixture: Fixture) -> dict[str, Tensor]:
    """Train the recorded expert on the recorded batches: heads after every epoch, its mean loss and accuracy."""
    features = frozen_encoder(fixture)(fixture.tensor("images"))
    pairs = TrainingPairs(features[None], fixture.tensor("texts"), torch.arange(len(features)))
    initial = PerModality(fixture.tensor("init_img_flat"), fixture.tensor("init_txt_flat"))
    epochs = fixture.tensor("batch_indices")  # (epochs, batches, B)
    draws = (ExpertBatch(rows, torch.zeros_like(rows)) for rows in epochs.flatten(0, 1))
    steps = list(train_expert(pairs, initial, draws, Student(head_tower(fixture, "img"), head_tower(fixture, "txt")),
                              fixture.number("cfg_lr"), fixture.number("cfg_momentum"),
                              fixture.number("cfg_weight_decay"), fixture.number("cfg_temperature")))
    per_epoch = epochs.shape[1]
    snapshots = [initial, *(heads for _, heads in steps[per_epoch - 1::per_epoch])]
    results = torch.tensor([(result.loss, result.accuracy) for result, _ in steps], dtype=torch.float64)
    loss, accuracy = results.view(len(epochs), per_epoch, 2).mean(dim=1).unbind(dim=1)
    return {"epoch_loss": loss, "epoch_acc": accuracy,
            "img_flat_per_epoch": torch.stack([heads.img for heads in snapshots]),
            "txt_flat_per_epoch": torch.stack([heads.txt for heads in snapshots])}
