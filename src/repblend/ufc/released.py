"""Files of the release, imported: prepared images (`tensor_K.pt`, class folders) and teachers' checkpoints.

`.pt` and `.pth` files are read as tensors, never as code. Images become what `repblend.ufc.data.InitialImages` reads; a
teacher is loaded by the released names of its modules. Their hashes are checked before they are used.
"""

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from repblend.archives import read_torch
from repblend.params.experts import ImportFrom
from repblend.store import fingerprint, sha256
from repblend.ufc.data import MAX_PIXEL, ImageFiles, Normalisation, write_image_files
from repblend.ufc.training import read_teacher, with_weights

CHECKPOINTS = {"resnet18": "resnet18", "mobilenet_v2": "mobilenetV2", "efficientnet_b0": "efficientnet",
               "shufflenet_g2": "shufflenet"}
"""Architecture -> how the released folder that holds its `ckpt.pth` begins; its epochs follow."""
EPOCHS = (200, 100)
"""Of CIFAR's checkpoints and of Tiny-ImageNet's."""
WEIGHTS = ("state_dict", "model")
"""What a checkpoint calls its weights: CIFAR's, and Tiny-ImageNet's; one of weights alone has no name for them."""


def imported_sha256(folder: Path, files: Iterable[Path]) -> str:
    """Return the one SHA-256 of imported files: of the JSON of their names, as seen from the folder, and hashes; raises
    `ValueError` if a file is missing.
    """
    hashes = {}
    for path in files:
        if not path.is_file():
            raise ValueError(f"{path}: no such file. Fetch it, or mend the parameter that names its folder")
        hashes[path.relative_to(folder).as_posix()] = sha256(path)
    return fingerprint(hashes)


def check_imported(setting: str, source: ImportFrom, folder: Path, files: Iterable[Path]) -> None:
    """Check files of the release against the parameters.

    Args:
        setting: the parameter that holds `source`, for messages.
        folder: where `source.path` is.

    Raises:
        ValueError: a file is missing, or the parameter gives no SHA-256, or another one.
    """
    found = imported_sha256(folder, files)
    if source.sha256 != found:
        raise ValueError(f"{setting}.sha256: {source.sha256 or 'not given'}, but what is at {source.path} has {found}. "
                         "If that is what you mean to import, put it into params.yaml; otherwise fetch the files again")


def initial_files(folder: Path, num: int, num_classes: int) -> list[list[Path]]:
    """Return the files of every image index from 0: the one tensor of all classes, or, from class folders, the image of
    every class that is the so-many-th by name, as the release takes them; raises `ValueError` if there is another
    number of folders, or one has fewer images.
    """
    if (folder / "tensor_0.pt").is_file():
        return [[folder / f"tensor_{image}.pt"] for image in range(num)]
    names = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    if len(names) != num_classes:
        raise ValueError(f"{folder}: expected tensor_0.pt and so on, or {num_classes} class folders, found "
                         f"{len(names)}; fetch the released files again")
    every = [sorted(path for path in name.iterdir() if path.is_file()) for name in names]
    for name, own in zip(names, every, strict=True):
        if len(own) < num:
            raise ValueError(f"{name}: {len(own)} images, the budget asks for {num}; lower the budgets or add images")
    return [[own[image] for own in every] for image in range(num)]


def import_initial(files: list[list[Path]], target: Path, num_classes: int, image_size: int,
                   normalisation: Normalisation) -> None:
    """Turn released images, as `initial_files` finds them, into initial images; those of class folders are squashed;
    raises `ValueError` if a file is damaged or not an image, or a tensor is not one normalised image per class of this
    size, or does not come from bytes by this normalisation.
    """
    def of_index(own: list[Path]) -> dict[str, Tensor]:
        if own[0].suffix != ".pt":
            return {"images": ImageFiles(own, image_size, "squash", own[0].parents[1])[torch.arange(num_classes)]}
        path, shape = own[0], (num_classes, 3, image_size, image_size)
        tensor = read_torch(path)
        if not isinstance(tensor, Tensor) or tensor.shape != shape:
            raise ValueError(f"{path}: expected a tensor {shape}, found something else; is it of this data set?")
        pixels = normalisation.denormalise(tensor.float()) * MAX_PIXEL
        if not (pixels - pixels.round()).abs().max() <= 0.05:
            raise ValueError(f"{path}: its values are no bytes once they are de-normalised; is it of this data set?")
        return {"images": pixels.round().clamp(0, MAX_PIXEL).to(torch.uint8)}

    write_image_files(target, map(of_index, files))


def teacher_file(folder: Path, architecture: str) -> Path:
    """Return where a folder has a teacher: a workspace's own, or, where there is none, the release's checkpoint."""
    own = folder / "teachers" / f"{architecture}.safetensors"
    if own.is_file() or architecture not in CHECKPOINTS:
        return own
    paths = [folder / f"{CHECKPOINTS[architecture]}_E{epochs}" / "ckpt.pth" for epochs in EPOCHS]
    return next((path for path in paths if path.is_file()), paths[0])


def import_teacher(path: Path, architecture: str, num_classes: int, image_size: int, device: str = "cpu") -> nn.Module:
    """Return a teacher, frozen and in evaluation mode, from a file as `teacher_file` names it; raises `ValueError` if
    the file is missing or damaged, or holds no weights of this architecture.
    """
    if path.suffix == ".safetensors":
        return read_teacher(path, architecture, num_classes, image_size, device)
    content = read_torch(path)
    content = content if isinstance(content, dict) else {}
    weights = next((content[name] for name in WEIGHTS if name in content), content)
    weights = {name.removeprefix("module."): value for name, value in weights.items()}
    return with_weights(architecture, num_classes, image_size, weights, path).to(device)
