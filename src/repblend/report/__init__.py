"""The report: every table and figure from stored records alone. Nothing here imports torch."""
