"""Coresets: real pairs chosen as baselines (PAPER.md section 10)."""
