"""The report: every table and figure from stored metrics alone. Nothing here imports torch (DESIGN section 9)."""
