"""A run of whole folders says how much disk it needs, and does not start where there is less."""

import shutil
from pathlib import Path

import pytest

from tests.conftest import disk_needed


@pytest.mark.parametrize(("marker", "needed"), [("", 3), ("faults", 1), ("image", 14), ("not image and not faults", 3)])
def test_too_little_disk_stops_a_run_before_its_first_test(marker: str, needed: int, tmp_path: Path,
                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    def disk_with(free: float) -> None:
        found = {tmp_path: shutil._ntuple_diskusage(100e9, 100e9 - free, free)}
        monkeypatch.setattr(shutil, "disk_usage", found.__getitem__)

    disk_with(needed * 1e9)
    assert disk_needed(marker, tmp_path / "not there") == (
        f"these tests need {needed} GB of disk below {tmp_path}, which has {needed:.1f} GB")
    disk_with(needed * 1e9 - 1e8)
    with pytest.raises(pytest.UsageError, match=rf"^these tests need {needed} GB .* {needed - 0.1:.1f} GB\. Free some"):
        disk_needed(marker, tmp_path)
