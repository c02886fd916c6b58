"""`python -m repro`: the `repro` command where it is not on the path."""

from repro.cli import app

app()
