"""The performance claims, runnable: `make bench`."""

import os

# Read when torch is first imported. A benchmark has the machine to itself, so its threads may spin longer while they
# wait for one another than those of the stages, which have to be good company.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

from repblend.runtime.harness import common_instructions, keep_freed_memory

# As stages do.
os.environ.update(common_instructions())
keep_freed_memory()
