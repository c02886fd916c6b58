"""Engines: where DVC runs, in containers or on this machine.

`base` is what is asked (the options `--engine`, `--gpus` and `--memory` become one `Request`) and what every engine
offers; `choose` picks one; `local` and `container` are the two there are; `client` finds the Docker engine. `spec` says
what a container may do and see: `--gpus` ends there. `guard` is the first process in every container.
"""
