"""What libraries print goes to a stage's log; what the project says, to the log and to the terminal."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from repblend.progress import progress
from repblend.runtime.harness import _logging_to


def test_libraries_are_heard_in_the_log_alone(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "logs/encode.log"
    with _logging_to(path):
        os.write(1, b"a library of C\n")
        os.write(2, b"Loading weights: 100%\n")
        subprocess.run([sys.executable, "-c", "print('a child')"], check=True)
        logging.getLogger("repblend").info("what the project says")
        assert list(progress(range(3), "count", "item")) == [0, 1, 2]
    print("after the stage")
    told = capfd.readouterr()
    assert told.out == "after the stage\n"
    assert told.err.splitlines()[0] == "what the project says"
    assert told.err.splitlines()[1].startswith("count: 3 item done in")
    log = path.read_text()
    for words in ("a library of C", "Loading weights: 100%", "a child", "what the project says", "count: 3 item"):
        assert words in log


def test_output_is_put_back_after_an_error(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="a stage's own"), _logging_to(tmp_path / "x.log"):
        raise ValueError("a stage's own")
    os.write(2, b"told as before\n")
    assert capfd.readouterr().err == "told as before\n"
    assert logging.getLogger("repblend").handlers == []


def test_a_warning_of_pillow_reaches_the_log(tmp_path: Path) -> None:
    """In a process of its own: pytest takes warnings for itself."""
    code = ("import sys, warnings; from pathlib import Path; from repblend.runtime.harness import _logging_to\n"
            "with _logging_to(Path(sys.argv[1])): warnings.warn('DecompressionBombWarning')")
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "x.log")], capture_output=True, text=True,
                          check=True)
    assert done.stdout == done.stderr == "" and "DecompressionBombWarning" in (tmp_path / "x.log").read_text()
