"""RepBlend without SM (RB only): LoRS with representation blending."""

from dataclasses import replace

from repblend.methods import lors

METHOD = replace(lors.METHOD, name="repblend-without-matching", title="RepBlend without SM", perturbation="blending")
