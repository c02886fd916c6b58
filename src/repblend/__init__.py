"""RepBlend (NeurIPS 2025), reproducible: multimodal dataset distillation by representation blending.

One sub-package per subject, named as the paper names it. Dependencies point one way: `stages` call the
library packages, those call `encoders` and `data`, and these call the small modules beside this file.
"""

__version__ = "0.1.0"
