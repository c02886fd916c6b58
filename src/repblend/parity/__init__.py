"""Replays of recorded runs of the official implementation against this one, array by array."""
