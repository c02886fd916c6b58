"""Processors with AVX-512 compute as those without it, from the first operation on."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from repblend.runtime.harness import COMMON_INSTRUCTIONS, common_instructions

CODE = """
from repblend.runtime.harness import prepare_process
prepare_process()
import torch
torch.nn.functional.conv2d(torch.ones(4, 16, 32, 32), torch.ones(16, 16, 3, 3))
print("aten", torch.backends.cpu.get_cpu_capability())
"""


@pytest.mark.parametrize(("flags", "expected"), [("fma avx2 avx512f avx512bw", COMMON_INSTRUCTIONS), ("fma avx2", {})])
def test_only_processors_with_wider_registers_are_told(flags: str, expected: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text(f"model name\t: Any\nflags\t\t: fpu {flags} sha_ni\nbugs\t\t:\n")
    assert common_instructions(path) == expected
    assert common_instructions(tmp_path / "none") == {}


def test_no_library_uses_wider_registers() -> None:
    own = {name: value for name, value in os.environ.items() if name not in COMMON_INSTRUCTIONS}
    done = subprocess.run([sys.executable, "-c", CODE], env=own | {"ONEDNN_VERBOSE": "1"}, capture_output=True,
                          text=True, check=True)
    lines = done.stdout.splitlines()
    assert next(line for line in lines if line.startswith("aten")) != "aten AVX512"
    used = [line for line in lines if "cpu,isa:" in line]
    assert used and not any("AVX-512" in line for line in used)
