"""Measures of modality collapse (PAPER.md sections 1 and 9)."""
