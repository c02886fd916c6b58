"""Named random streams: one generator per (seed, purpose), so that a draw added somewhere moves no other number.

This project's definition. A stream is derived from its name alone. Give the name the iteration (or the expert, the
epoch, the evaluation seed) and no generator state has to be stored: a resumed run asks for the same name and gets
the same numbers.

Draws happen on the CPU, because a CUDA generator gives other numbers on a GPU of another size.
"""

import hashlib

import torch


def stream(seed: int, *purpose: str | int) -> torch.Generator:
    """Return a fresh CPU generator for one purpose.

    Args:
        seed: the run's seed (`seed` in `params.yaml`).
        purpose: what the numbers are for, from the general to the particular,
            for example `("distill", "repblend-100", "iteration", 12)`.

    The same arguments always give the same stream, in any process, on any machine.
    """
    name = "\x1f".join([str(seed), *map(str, purpose)])
    digest = hashlib.sha256(name.encode()).digest()
    return torch.Generator(device="cpu").manual_seed(int.from_bytes(digest[:8], "big", signed=True))
