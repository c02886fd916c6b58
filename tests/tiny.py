"""Parameters for a workspace that is prepared, encoded and evaluated within seconds."""

from pathlib import Path
from typing import Any

from repblend.params.reading import read_yaml

ROOT = Path(__file__).parents[1]


def tiny_content() -> dict[str, Any]:
    """The content of `params.yaml` with 12 training images of 32 px, 40 test images, and three students."""
    content = read_yaml(ROOT / "params.yaml")
    content["compute"]["threads"] = 1
    content["data"] |= {"image_size": 32, "num_val": 12, "num_test": 40, "max_train": 12}
    content["encode"]["views"]["num"] = 1
    content["heads"]["width"] = 16
    content["evaluate"] |= {"num_seeds": 3, "batch_size": 4, "distilled": {"epochs": 6, "scored_intervals": 3}}
    return content
