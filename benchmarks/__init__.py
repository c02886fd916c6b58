"""The performance claims, runnable: `make bench`."""
