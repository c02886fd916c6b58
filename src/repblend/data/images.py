"""Images as tensors: read, resized, normalised, shown, and made ahead of their use by threads.

Shapes: N images, H and W height and width in pixels.
"""

import io
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from repblend.data.image_store import ImageStore, open_image
from repblend.progress import progress

Item = TypeVar("Item")
Made = TypeVar("Made")
MAX_WORKERS = 16


def read_image(store: ImageStore, name: str, size: int) -> Tensor:
    """Read one image, resized to a square (bicubic, as the published test transform).

    Args:
        name: as the annotations give it.
        size: height and width in pixels.

    Returns:
        (3, size, size) float32 in [0, 1].

    Raises:
        ValueError: the image is missing, empty, truncated or no image; the message names it.
    """
    return square(open_image(store, name), size)


def read_images(store: ImageStore, names: Sequence[str], size: int) -> Tensor:
    """Read images by their names, (N, 3, size, size) in [0, 1]; raises as `read_image`."""
    return torch.stack([read_image(store, name, size) for name in progress(names, "read images", "image")])


def square(image: Image.Image, size: int) -> Tensor:
    """Resize an RGB image to a square (bicubic), (3, size, size) float32 in [0, 1]."""
    return as_tensor(image.resize((size, size), Image.Resampling.BICUBIC))


def as_tensor(image: Image.Image) -> Tensor:
    """Return an RGB image as (3, H, W) float32 in [0, 1]."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


def normalise(images: Tensor, mean: Tensor | Sequence[float], std: Tensor | Sequence[float]) -> Tensor:
    """Subtract the channel means and divide by the standard deviations, three each; images (..., 3, H, W)."""
    mean, std = torch.as_tensor(mean), torch.as_tensor(std)
    return (images - mean[:, None, None]) / std[:, None, None]


def png_bytes(image: Tensor, mean: Tensor, std: Tensor) -> bytes:
    """Return a normalised image (3, H, W) as a PNG file; values outside the displayable range are cut off."""
    shown = (image.cpu() * std[:, None, None] + mean[:, None, None]).clamp(0, 1)
    pixels = (shown * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def num_workers() -> int:
    """Return how many threads read ahead: one per processor that this process may use, 16 at most."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()  # macOS has none
    return min(MAX_WORKERS, usable or 1)


def prefetched(make: Callable[[Item], Made], items: Iterable[Item], workers: int | None = None,
               ahead: int = 2) -> Iterator[tuple[Item, Made]]:
    """Yield each item with `make(item)`, in order, while threads make the next few.

    Reading, decoding and augmenting images release Python's lock for most of their time, so threads suffice.

    Args:
        make: called in another thread; must not depend on the order of calls.
        items: taken one by one, never more than `workers + ahead` before they are yielded.
        workers: number of threads; by default `num_workers()`. Changes no result.
        ahead: finished results that may wait besides those that are being made.

    Raises:
        whatever `make` raises, when its item is due; what was begun is finished first, the rest is not begun.
    """
    workers = workers or num_workers()
    waiting: deque[tuple[Item, Future[Made]]] = deque()

    def due() -> tuple[Item, Made]:
        item, future = waiting.popleft()
        return item, future.result()

    with ThreadPoolExecutor(workers, thread_name_prefix="prefetch") as pool:
        try:
            for item in items:
                waiting.append((item, pool.submit(make, item)))
                if len(waiting) > workers + ahead - 1:
                    yield due()
            while waiting:
                yield due()
        finally:
            for _, future in waiting:
                future.cancel()
