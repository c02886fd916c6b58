"""The BatchNorm-statistics loss: how far a batch's statistics are from those that a teacher saw in training."""
