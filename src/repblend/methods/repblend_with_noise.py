"""RepBlend with Gaussian noise on the representations in the place of blending (the paper's Figure 3)."""

from dataclasses import replace

from repblend.methods import repblend

METHOD = replace(repblend.METHOD, name="repblend-with-noise", title="RepBlend, noise for RB", perturbation="noise")
