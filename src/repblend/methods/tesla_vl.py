"""TESLA-VL: LoRS without soft similarity. Every image belongs to its own text only."""

from dataclasses import replace

from repblend.methods import lors

METHOD = replace(lors.METHOD, name="tesla-vl", title="TESLA-VL", similarity="identity")
