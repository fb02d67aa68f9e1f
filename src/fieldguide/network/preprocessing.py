"""Turn pixels of whole batches into network input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Interpolation = Literal["bilinear", "bicubic"]


@dataclass(frozen=True)
class Preprocessing:
    """The size, mean and standard deviation that a network expects of its input."""

    size: int  # pixels
    interpolation: Interpolation
    mean: list[float]  # per channel, [0, 1]
    std: list[float]

    def __call__(self, images: Tensor) -> Tensor:
        """Resize and normalise, perhaps in place: (B, 3, H, W) in [0, 1] -> (B, 3, size, size)."""
        return normalize(resize(images, self.size, self.interpolation), self.mean, self.std)


def resize(images: Tensor, size: int, interpolation: Interpolation) -> Tensor:
    """Resize with antialiasing, as Pillow does: (B, 3, H, W) -> (B, 3, size, size), in [0, 1]."""
    if images.shape[-2:] == (size, size):
        return images
    # Width first, then height: bicubic overshoots in both steps, and Pillow clamps after each.
    for shape in ((images.shape[-2], size), (size, size)):
        images = F.interpolate(
            images, shape, mode=interpolation, align_corners=False, antialias=True
        ).clamp_(0, 1)
    return images


def to_unit(images: Tensor) -> Tensor:
    """(B, H, W, 3) uint8 -> (B, 3, H, W) float32 in [0, 1], channel by channel in memory.

    Augmentation is several times as fast in this layout. `Batches` changes the finished input to
    channels-last.
    """
    planes = images.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
    return planes.div_(255)


def normalize(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Subtract `mean` and divide by `std`, per channel: (B, 3, H, W), in place."""
    shift = images.new_tensor(mean)[:, None, None]
    scale = images.new_tensor(std).clamp_min(1e-6)[:, None, None]  # a channel may be constant
    return images.sub_(shift).div_(scale)
