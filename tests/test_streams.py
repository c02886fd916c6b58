"""Named random streams: stable across processes, different for different names, touched by nothing else."""

import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from repblend.streams import CounterStream, philox, stream


def draw(*name: str | int) -> list[int]:
    return torch.randint(2**31, (4,), generator=stream(0, *name)).tolist()


def test_a_stream_is_its_name_and_seed() -> None:
    assert draw("a", 1) == draw("a", 1)
    assert len({tuple(draw(*name)) for name in [("a", 1), ("a", 2), ("b", 1), ("a",), ("a1",), ("a", "1", 1)]}) == 6
    assert torch.randint(9, (9,), generator=stream(0, "a")).tolist() != torch.randint(
        9, (9,), generator=stream(1, "a")).tolist()


def test_a_stream_is_the_same_in_another_process_and_leaves_the_global_one_alone() -> None:
    code = "import torch; from repblend.streams import stream; " \
           "print(torch.randint(2**31, (4,), generator=stream(0, 'a', 1)).tolist())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                          env=os.environ | {"PYTHONHASHSEED": "77"})
    assert done.stdout.strip() == str(draw("a", 1))
    before = torch.random.get_rng_state()
    draw("a", 1)
    assert torch.equal(before, torch.random.get_rng_state())


def test_the_numbers_do_not_drift() -> None:
    recorded = [0, 2, 3, 6, 7, 5, 4, 1]  # by this very line, with torch 2.14.1 on a CPU
    assert torch.randperm(8, generator=stream(0, "golden")).tolist() == recorded


KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B, 0x7E68B68AEC7BA23B)),
    ((2**64 - 1,) * 4, (2**64 - 1,) * 2,
     (0x87B092C3013FE90B, 0x438C3C67BE8D0224, 0x9CC7D7C69CD777B6, 0xA09CAEBF594F0BA0)),
    ((0x243F6A8885A308D3, 0x13198A2E03707344, 0xA4093822299F31D0, 0x082EFA98EC4E6C89),
     (0x452821E638D01377, 0xBE5466CF34E90C6C),
     (0xA528F45403E61D95, 0x38C72DBD566E9788, 0xA5A1610E72FD18B5, 0x57BD43B5E52B7FE6)),
]
"""Counter, key and words: the answers of Philox4x64-10 in the file `kat_vectors` of Random123."""


def signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_philox_gives_the_known_answers_of_its_authors(counter: tuple[int, ...], key: tuple[int, int],
                                                       expected: tuple[int, ...]) -> None:
    found = philox([torch.tensor([signed(word)]) for word in counter], key)
    assert tuple(int(word) % 2**64 for word in found) == expected
    before = (sum(word << 64 * place for place, word in enumerate(counter)) - 1) % 2**256
    assert np.random.Philox(counter=before, key=key[0] + 2**64 * key[1]).random_raw(4).tolist() == list(expected)


def bytes_of(counter: int, key: tuple[int, int]) -> list[int]:
    """The 32 bytes of a counter, by the integers that `philox` gives."""
    words = philox([torch.tensor([counter]), *torch.zeros(3, 1, dtype=torch.int64)], key)
    return [int(word) % 2**64 >> 8 * place & 0xFF for word in words for place in range(8)]


def test_what_dropout_keeps_follows_the_definition() -> None:
    draws = CounterStream(3, "a")
    kept = draws.kept((7, 33, 5), 0.3, "cpu").flatten().tolist()  # 1155 elements: counters 0 to 36
    upper, lower = divmod(round(0.3 * 2**16), 2**8)
    first = [byte for counter in range(37) for byte in bytes_of(counter, draws._key)][:1155]
    undecided = [place for place, byte in enumerate(first) if byte == upper]
    second = dict(zip(undecided, bytes_of(37, draws._key), strict=False))
    assert 0 < len(undecided) <= 32
    assert kept == [byte > upper or (byte == upper and second[place] >= lower) for place, byte in enumerate(first)]
    following = draws.kept((8,), 0.3, "cpu").tolist()
    assert following == [byte > upper for byte in bytes_of(38, draws._key)[:8]]  # none of these is undecided
    assert CounterStream(4, "a").kept((7, 33, 5), 0.3, "cpu").flatten().tolist() != kept


def test_other_devices_compute_the_bytes_that_numpy_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = CounterStream(3, "a")._bytes(1000, "cpu")
    monkeypatch.setattr("repblend.streams.COUNTERS_AT_ONCE", 4)
    draws = CounterStream(3, "a")
    with monkeypatch.context() as patched:
        patched.setattr("torch.device", lambda device: SimpleNamespace(type="cuda"))
        found = draws._bytes(1000, "cpu")
    assert torch.equal(found, expected) and draws._counter == 32


def test_dropout_drops_its_share() -> None:
    kept = CounterStream(0, "share").kept((1000, 1000), 0.1, "cpu")
    assert abs(kept.double().mean().item() - (1 - round(0.1 * 2**16) / 2**16)) < 5 * (0.09 / 1e6) ** 0.5
