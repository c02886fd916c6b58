"""Expert trajectories: heads trained on the real pairs, and the store of their snapshots."""
