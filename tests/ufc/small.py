"""Small networks and images that the tests of the unimodal pipeline share."""

import torch
from torch import nn

from repblend.streams import stream
from repblend.ufc.data import LabelledImages
from repblend.ufc.params import Augmentation, Generation, Teachers, Validation


def network(seed: int = 0, num_classes: int = 4, dtype: torch.dtype = torch.float64) -> nn.Module:
    """Return a frozen network with two BatchNorm layers whose statistics and weights are not those of a new one."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.BatchNorm2d(5), nn.Tanh(), nn.Conv2d(5, 6, 3, padding=1),
                             nn.BatchNorm2d(6), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                             nn.Linear(6, num_classes))
        for layer in made:
            if isinstance(layer, nn.BatchNorm2d):
                layer.running_mean.normal_()
                layer.running_var.uniform_(0.5, 2)
                nn.init.normal_(layer.weight)
                nn.init.normal_(layer.bias)
    return made.to(dtype).eval().requires_grad_(False)


def labelled(num_per_class: int, num_classes: int = 4, size: int = 8, seed: int = 0) -> LabelledImages:
    """Return classes that differ in brightness, shuffled, with noise."""
    generator = stream(seed, "tests")
    labels = torch.arange(num_classes).repeat(num_per_class)
    noise = torch.randint(0, 60, (len(labels), 3, size, size), generator=generator)
    bright = labels * (190 // (num_classes - 1))
    return LabelledImages((noise + bright[:, None, None, None]).to(torch.uint8), labels, num_classes)


AUGMENTATION = Augmentation(crop_padding=1, flip=0.5)


def teachers(**changes: object) -> Teachers:
    return Teachers.model_validate({"architectures": ["convnet-small"], "epochs": 4, "batch_size": 16, "lr": 0.1,
                                    "momentum": 0.9, "weight_decay": 5e-4, "augmentation": AUGMENTATION,
                                    "checkpoint_every": 1} | changes)


def generation(**changes: object) -> Generation:
    return Generation.model_validate({"iterations": 6, "lr": 0.25, "lambda_bn": 0.5, "transform": "shift",
                                      "max_shift": 2, "compensators_at_once": 2, "checkpoint_every": 2} | changes)


def validation(**changes: object) -> Validation:
    return Validation.model_validate({
        "labels": ["static", "dynamic"], "students": ["convnet-small"], "epochs": {"static": 4, "dynamic": 4},
        "batch_size": 16, "lr": 1e-2, "weight_decay": 0.01, "temperature": 30.0, "mixup_alpha": 0.8,
        "augmentation": AUGMENTATION, "score_every": 2, "num_seeds": 2, "checkpoint_every": 1} | changes)
