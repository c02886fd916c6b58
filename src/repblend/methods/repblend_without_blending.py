"""RepBlend without RB (SM only): the ablation that matches both projection heads but blends nothing."""

from dataclasses import replace

from repblend.methods import repblend

METHOD = replace(repblend.METHOD, name="repblend-without-blending", title="RepBlend without RB", perturbation="none")
