"""What stages that only need the embedded image encoder import: PyTorch, and none of what takes seconds besides."""

import subprocess
import sys

SLOW = ("timm", "torchvision", "transformers", "open_clip", "torch._dynamo", "scipy", "pandas", "matplotlib")
SCRIPT = f"""
import importlib, sys
from repblend.stages.pipeline import STAGES
for stage, made_of in STAGES.items():
    if made_of.module is None:
        importlib.import_module(f"repblend.stages.{{stage.replace('-', '_')}}")
import torch
from repblend.encoders.registry import load_image_encoder
from repblend.experts.training import Descent
from repblend.runtime.harness import compute_deterministically
compute_deterministically(1)
load_image_encoder("efficientnet_lite0", 32)
weight = torch.ones(2, requires_grad=True)
weight.sum().backward()
Descent([[weight]], [0.1], 0.9, 0.0, fused=True).step()
print([name for name in {SLOW} if name in sys.modules])
"""


def test_stages_compute_without_model_libraries_and_without_the_compiler() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"
