"""Memory of the stage `encode`: the same for many images as for few. And that of what reads the cache."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

NUM_FILES = 10
SCRIPT = r"""
import json, sys
from functools import partial
from pathlib import Path
import torch
from torch import nn
from repblend.data.features import feature_files, read_features
from repblend.data.karpathy import AnnotatedImage
from repblend.encoders.image import ImageEncoder
from repblend.encoders.text import CaptionEncoder
from repblend.params import Params
from repblend.runtime.context import Paths
from repblend.stages.encode import Encoding
from repblend.stages.setup import view_source
from tests.tiny import tiny_content

torch.set_num_threads(1)
WIDTH, VIEWS = 2048, 4


class Texts(CaptionEncoder):
    feature_dim = WIDTH

    def encode_batches(self, captions, first=0):
        for row in range(first * 32, len(captions), 32):
            rows = torch.arange(row, min(row + 32, len(captions)))
            yield rows, rows[:, None] + torch.arange(WIDTH) / WIDTH


def mib(name):
    fields = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields[name].split()[0]) / 1024


folder, num_images = Path(sys.argv[1]), int(sys.argv[2])
content = tiny_content()
content["encode"]["views"]["num"] = VIEWS
params = Params.model_validate(content)
encoder = ImageEncoder(nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, WIDTH)), WIDTH, (0.5,) * 3, (0.25,) * 3)
images = tuple(AnnotatedImage(f"{number % 10}.png", ("a", "b")) for number in range(num_images))
unfinished = folder / str(num_images)
unfinished.mkdir()
work = Encoding(encoder, Texts(), partial(view_source, params, Paths(folder)), unfinished, chunk=20)
image_file, text_file, val, test = feature_files(unfinished)
before = mib("VmRSS")
work.training(image_file, text_file, images, VIEWS, "float32")
writing = mib("VmHWM") - before
work.split(val, images[:10])
work.split(test, images[:10])
before = mib("RssAnon")
features = read_features(unfinished)
rows = torch.arange(0, num_images, 7)
assert torch.equal(features.train_texts[rows * 2, 0], (rows * 2).float())
assert features.train_images[rows % VIEWS, rows].std() > 0
print(json.dumps({"writing": writing, "reading": mib("RssAnon") - before, "file": image_file.stat().st_size / 2**20}))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    (folder / "data/prepared").mkdir(parents=True)
    for number in range(NUM_FILES):
        pixels = np.random.default_rng(number).integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "data/prepared" / f"{number}.png")
    return folder


def measured(folder: Path, num_images: int) -> dict[str, float]:
    """MiB that writing and reading a cache takes, in a process of its own."""
    done = subprocess.run([sys.executable, "-c", SCRIPT, folder, str(num_images)], check=True, capture_output=True,
                          text=True, cwd=Path(__file__).parents[2])
    return json.loads(done.stdout.splitlines()[-1])


def test_memory_does_not_grow_with_the_images(folder: Path) -> None:
    few, many = measured(folder, 200), measured(folder, 2000)
    assert many["file"] - few["file"] > 50
    assert many["writing"] - few["writing"] < 10
    assert many["reading"] - few["reading"] < 10
