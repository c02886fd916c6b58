"""Fetching: data sets and checkpoints from their publishers, before anything is computed; the library has no network.

`repro data` is `datasets`, `repro checkpoints` is `checkpoints`. Both ask the model hub through `hub`, fetch with
`download`, which goes on where it stopped, and unpack with `unpack`.
"""
