"""What `runs.jsonl` says of a machine tells processors of one name apart."""

from pathlib import Path

import pytest

from repblend.records.base import GpuUse, Machine, Run
from repblend.runtime.provenance import generation, machine_here, processor

CPU_INFO = """processor\t: 0
vendor_id\t: AuthenticAMD
cpu family\t: 25
model\t\t: {model}
model name\t: AMD EPYC
flags\t\t: fpu avx2

processor\t: 1
cpu family\t: 6
model\t\t: 1
model name\t: Another
"""


def test_two_generations_of_one_name_are_two_machines(tmp_path: Path) -> None:
    found = []
    for model in (1, 17):
        path = tmp_path / f"cpuinfo-{model}"
        path.write_text(CPU_INFO.format(model=model))
        machine = Machine(processor=processor(path), generation=generation(path), cores=2, system="Linux")
        found.append(Run(stage="encode", commit=None, dirty=None, image_digest=None, started="", wall_seconds=1,
                         peak_memory_mib=1, machine=machine, python="3.11").computed_on)
    assert found == ["AMD EPYC (family 25, model 1)", "AMD EPYC (family 25, model 17)"]


@pytest.mark.parametrize("text", ["", "CPU implementer\t: 0x41\nCPU part\t: 0xd0c\n"])
def test_a_system_that_says_less_is_named_all_the_same(text: str, tmp_path: Path) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text(text)
    assert processor(path) == "unknown" and generation(path) is None
    assert generation(tmp_path / "none") is None
    machine = machine_here()
    assert machine.processor and (machine.cores or 0) >= 1


def test_a_gpu_stands_for_the_machine_that_it_is_in() -> None:
    run = Run(stage="encode", commit=None, dirty=None, image_digest=None, started="", wall_seconds=1, peak_memory_mib=1,
              machine=Machine(processor="AMD EPYC", cores=2, system="Linux"), python="3.11",
              gpu=GpuUse(name="A GPU", cuda=None, peak_memory_mib=1))
    assert run.computed_on == "A GPU" and run.model_copy(update={"gpu": None}).computed_on == "AMD EPYC"
