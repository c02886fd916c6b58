"""Past one machine: a job per stage, and per expert, on a SLURM cluster or on the GPUs of one machine.

`settings` is `cluster.yaml`; `jobs` what is written down of every job; `engines` submits, asks and cancels, by
submitit; `head` is what a run with `--on` does: it submits what is ready and records what has finished, and computes
nothing itself. `node` is what a job runs: a private checkout, and in it, by `inside`, one stage. `table` is
`repro jobs`, `check` is `repro cluster check`.

Nothing here is needed, or imported, without `--on`.
"""
