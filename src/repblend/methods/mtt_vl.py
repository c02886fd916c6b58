"""MTT-VL: TESLA-VL with the exact gradient through all inner steps.

Its released student multiplies cosines by ln(1 / temperature), because an exponential is missing, while its experts
are trained with 1 / temperature. That is `logit_scale: log` in `params.yaml`; `reciprocal` is what was meant.
"""

from dataclasses import replace

from repblend.methods import tesla_vl

METHOD = replace(tesla_vl.METHOD, name="mtt-vl", title="MTT-VL", gradient="unrolled")
