"""Artifacts: bring what was computed elsewhere from a DVC remote (`pull`) or publish it there (`push`), every byte
checked.

`manifest` knows the outputs of a workspace, their groups, and the SHA-256 of what was pushed; `remote` moves single
objects between DVC's cache and a remote.
"""
