"""What a set looks like, for the report: a few images as stored, and compensators as pictures, as PNG in text."""

import io
from collections.abc import Mapping

import torch
from PIL import Image
from torch import Tensor

from repblend.analysis.specimens import as_base64
from repblend.store import JSON
from repblend.ufc.budget import Budget
from repblend.ufc.data import MAX_PIXEL, Normalisation
from repblend.ufc.generation import Compensators
from repblend.ufc.integration import ImageSet

NUM_CLASSES, NUM_IMAGES = 10, 2
"""At most so many classes and image indices are shown: the first ones."""


def specimens(images: ImageSet, compensators: Mapping[str, Compensators], budget: Budget,
              normalisation: Normalisation) -> JSON:
    """Return a picture of every shown slot of every shown class, and of every compensator that was added.

    A compensator is a difference: 0 is mid-grey, and the largest of the shown ones reaches black or white.
    """
    num_shown = min(NUM_IMAGES, budget.num_real)
    slots = [slot for slot in budget.slots() if slot.image < num_shown]
    names = list(compensators)
    deviation = torch.tensor(normalisation.std).view(3, 1, 1)
    pictures = {(name, image): compensators[name].of_class(image, 0) * deviation
                for name in names for image in range(num_shown)}
    largest = max(float(picture.abs().max()) for picture in pictures.values()) or 1.0
    return {
        "slots": [{"architecture": None if slot.architecture is None else names[slot.architecture],
                   "image": slot.image, "png": [as_base64(png(images.pixels[label * budget.num_slots + slot.number]))
                                                for label in range(min(NUM_CLASSES, budget.num_classes))]}
                  for slot in slots],
        "compensators": [{"architecture": name, "image": image, "png": as_base64(png(0.5 + picture / (2 * largest)))}
                         for (name, image), picture in pictures.items()],
        "largest_change": round(largest, 6),
    }


def png(pixels: Tensor) -> bytes:
    """Return (3, H, W) pixels, uint8 or floats between 0 and 1, as a PNG file."""
    if pixels.dtype != torch.uint8:
        pixels = (pixels.clamp(0, 1) * MAX_PIXEL).round().to(torch.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy()).save(buffer, format="PNG")
    return buffer.getvalue()
