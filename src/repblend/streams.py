"""Named random streams: one generator per (seed, purpose), so that a draw added somewhere moves no other number.

This project's definition. A stream is derived from its name alone. Give the name the iteration (or the expert, the
epoch, the evaluation seed) and no generator state has to be stored: a resumed run asks for the same name and gets
the same numbers.

Draws happen on the CPU, because a CUDA generator gives other numbers on a GPU of another size. Where there are too many
of them for that (the dropout of a text encoder: millions a step), they come from `CounterStream`, whose bits are the
same on every device.
"""

import hashlib
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def stream(seed: int, *purpose: str | int) -> torch.Generator:
    """Return a fresh CPU generator for one purpose.

    Args:
        seed: the run's seed (`seed` in `params.yaml`).
        purpose: what the numbers are for, from the general to the particular,
            for example `("distill", "repblend-100", "iteration", 12)`.

    The same arguments always give the same stream, in any process, on any machine.
    """
    return torch.Generator(device="cpu").manual_seed(_seed_of(seed, *purpose))


def seed_of_set(seed: int, number: int) -> int:
    """Return the seed of all draws that make one of several sets of the same settings.

    Args:
        seed: the run's.
        number: of the set (`Cell.seed`). Set 0 has the run's own seed; every other one's is 64 bits of its name.
    """
    return seed if number == 0 else _seed_of(seed, "set", number)


def _seed_of(*name: str | int) -> int:
    """64 bits, signed, of the name of a stream."""
    digest = hashlib.sha256("\x1f".join(map(str, name)).encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


# Philox4x64-10 (Salmon and others, "Parallel random numbers: as easy as 1, 2, 3", 2011): ten rounds turn a counter of
# four 64-bit words and a key of two into four words of random bits. Nothing is carried from one counter to the next, so
# they are computed in any order, many at once, where the bits are needed; of integers, so that all devices agree. On a
# processor NumPy has it in C; elsewhere it is computed by `philox`.

MULTIPLIERS, WEYL = (0xD2E7470EE14C6C93, 0xCA5A826395121157), (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)
ROUNDS, LOW, WORD = 10, 2**32 - 1, 2**64
BYTES_PER_COUNTER = 32
COUNTERS_AT_ONCE = 2**20
"""As many as fill a GPU."""


def philox(words: Sequence[Tensor], key: Sequence[int]) -> list[Tensor]:
    """Return the four words of random bits of counters.

    Args:
        words: (n,) int64 each, the bits of unsigned ones, the lowest word first; one that all counters share may be
            (1,).
        key: two numbers of 64 bits.
    """
    one, two, three, four = words
    for number in range(ROUNDS):
        first, second = (_product(word, factor) for word, factor in zip((one, three), MULTIPLIERS, strict=True))
        keys = (_signed((part + number * step) % WORD) for part, step in zip(key, WEYL, strict=True))
        one, three = (high ^ word ^ part for high, word, part in zip(
            (second[0], first[0]), (two, four), keys, strict=True))
        two, four = second[1], first[1]
    return [one, two, three, four]


def _product(word: Tensor, factor: int) -> tuple[Tensor, Tensor]:
    """Return the upper and the lower 64 bits of a product, from products of halves."""
    high, low, factor_high, factor_low = word >> 32 & LOW, word & LOW, factor >> 32, factor & LOW
    carried = high * factor_low + (low * factor_low >> 32 & LOW)
    middle = low * factor_high + (carried & LOW)
    return high * factor_high + (carried >> 32 & LOW) + (middle >> 32 & LOW), word * _signed(factor)


def _signed(value: int) -> int:
    """The number that has the bits of an unsigned one."""
    return value - WORD if value >= WORD // 2 else value


class CounterStream:
    """A stream of Philox4x64-10 for one purpose, named as by `stream`; every draw moves its counter on."""

    def __init__(self, seed: int, *purpose: str | int) -> None:
        self._key, self._counter = (_seed_of(seed, *purpose) % WORD, 0), 0

    def kept(self, shape: Sequence[int], dropout: float, device: torch.device | str) -> Tensor:
        """Return which elements dropout keeps, bool: 2^16 `dropout`, rounded, of all numbers of two bytes drop one.

        The upper byte alone decides of all but one element in 256. So every element draws a byte, and those that it
        leaves undecided draw another one, from the next counter on.
        """
        upper, lower = divmod(round(dropout * 2**16), 2**8)
        drawn = self._bytes(math.prod(shape), device)
        if drawn.device.type == "cpu":  # NumPy compares bytes in a tenth of the time
            kept, undecided = map(torch.from_numpy, (drawn.numpy() > upper, np.flatnonzero(drawn.numpy() == upper)))
        else:
            kept, undecided = drawn > upper, (drawn == upper).nonzero()[:, 0]
        kept[undecided] = self._bytes(len(undecided), device) >= lower
        return kept.view(*shape)

    def _bytes(self, num: int, device: torch.device | str) -> Tensor:
        """Return the next bytes, (num,) uint8; those that are left of the last counter are dropped."""
        first, num_counters = self._counter, -(-num // BYTES_PER_COUNTER)
        self._counter += num_counters
        if torch.device(device).type == "cpu":  # NumPy counts on before it draws
            key = self._key[0] + WORD * self._key[1]
            drawn = np.random.Philox(counter=(first - 1) % WORD**4, key=key).random_raw(4 * num_counters)
            return torch.from_numpy(drawn.view(np.uint8)[:num])
        found = torch.empty(num_counters, 4, dtype=torch.int64, device=device)
        for part in found.split(COUNTERS_AT_ONCE):
            counters, nothing = torch.arange(first, first + len(part), device=device), part.new_zeros(1)
            torch.stack(philox([counters, nothing, nothing, nothing], self._key), dim=1, out=part)
            first += len(part)
        return found.view(-1).view(torch.uint8)[:num]
