"""Files of the release, imported: prepared images (`tensor_K.pt`, class folders) and teachers' checkpoints.

`.pt` and `.pth` files are read with `weights_only`, so that no code in them runs.
"""

import pickle
from pathlib import Path

import torch
from torch import Tensor, nn

from repblend.store import atomic_path, write_tensors
from repblend.ufc.data import MAX_PIXEL, Normalisation
from repblend.ufc.image_files import ImageFiles
from repblend.ufc.initial import InitialImages, image_file, write_manifest
from repblend.ufc.networks import build

CHECKPOINTS = {"resnet18": "resnet18_E200", "mobilenet_v2": "mobilenetV2_E200", "efficientnet_b0": "efficientnet_E200",
               "shufflenet_g2": "shufflenet_E200"}
"""Architecture -> the released folder that holds its `ckpt.pth`."""


def import_tensors(folder: Path, target: Path, num: int, num_classes: int,
                   normalisation: Normalisation) -> InitialImages:
    """Turn released `tensor_0.pt` .. `tensor_<num - 1>.pt`, one normalised image per class each, into initial images.

    Raises:
        ValueError: a file is missing, is not such a tensor, or does not come from bytes by this normalisation.
    """
    with atomic_path(target) as aside:
        aside.mkdir()
        for image in range(num):
            path = folder / f"tensor_{image}.pt"
            tensor = _load(path)
            if not isinstance(tensor, Tensor) or tensor.ndim != 4 or tensor.shape[:2] != (num_classes, 3):
                raise ValueError(f"{path}: expected a tensor ({num_classes}, 3, H, W); fetch the released files again")
            write_tensors(aside / image_file(image), {"images": _bytes(path, tensor, normalisation)})
        write_manifest(aside, num, num_classes, tensor.shape[-1])
    return InitialImages(target)


def _bytes(path: Path, tensor: Tensor, normalisation: Normalisation) -> Tensor:
    pixels = normalisation.denormalise(tensor.float()) * MAX_PIXEL
    if (pixels - pixels.round()).abs().max() > 0.05:
        raise ValueError(f"{path}: its values are no bytes once they are de-normalised; is --dataset the right one?")
    return pixels.round().clamp(0, MAX_PIXEL).to(torch.uint8)


def import_class_folders(folder: Path, target: Path, num: int, num_classes: int, image_size: int) -> InitialImages:
    """Turn class folders into initial images as the release does: image k is the k-th of its class by name, squashed.

    Raises:
        ValueError: there is another number of folders, one has fewer images, or a file is not an image.
    """
    names = sorted(path for path in folder.iterdir() if path.is_dir())
    if len(names) != num_classes:
        raise ValueError(f"{folder}: expected {num_classes} class folders, found {len(names)}")
    files = [sorted(path for path in name.iterdir() if path.is_file()) for name in names]
    for name, own in zip(names, files, strict=True):
        if len(own) < num:
            raise ValueError(f"{name}: {len(own)} images, the budget asks for {num}; lower --ipc or add images")
    with atomic_path(target) as aside:
        aside.mkdir()
        for image in range(num):
            found = ImageFiles([own[image] for own in files], image_size, "squash")
            write_tensors(aside / image_file(image), {"images": found[torch.arange(num_classes)]})
        write_manifest(aside, num, num_classes, image_size)
    return InitialImages(target)


def read_official_teacher(folder: Path, architecture: str, num_classes: int, image_size: int,
                          device: str = "cpu") -> nn.Module:
    """Return a released teacher, frozen and in evaluation mode, from `<folder>/<name>_E200/ckpt.pth`.

    Raises:
        ValueError: the file is missing, or holds no weights of this architecture.
    """
    path = folder / CHECKPOINTS.get(architecture, architecture) / "ckpt.pth"
    content, network = _load(path), build(architecture, num_classes, image_size)
    weights = content.get("state_dict", content) if isinstance(content, dict) else {}
    try:
        network.load_state_dict({name.removeprefix("module."): value for name, value in weights.items()})
    except RuntimeError as error:
        raise ValueError(f"{path}: its weights are not those of a {architecture} with {num_classes} classes ({error}); "
                         "fetch the released checkpoints again") from error
    return network.to(device).eval().requires_grad_(False)


def _load(path: Path) -> object:
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(f"{path}: cannot be read without running code in it ({error})") from error
