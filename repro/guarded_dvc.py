"""`python -m repro.guarded_dvc ARGUMENTS`: DVC, stopped when the `repro` that started it is gone.

DVC runs in a session of its own, so that a Ctrl-C can stop all of it; `kill -9` on `repro` alone would leave it
running.
"""

import sys

from repblend.stages.guard import stop_with_the_runner

if __name__ == "__main__":
    stop_with_the_runner()
    from dvc.cli import main  # slow to import: the guard stands before it

    sys.exit(main(sys.argv[1:]))
