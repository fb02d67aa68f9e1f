"""Pixels to network input, and augmentation of whole batches on whatever device they are on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

# Reflected border that a random crop may move into, as a fraction of the image: the 4 pixels at 32
# of the CIFAR recipe (He et al. 2016, section 4.2, https://arxiv.org/abs/1512.03385).
CROP_BORDER = 1 / 8
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as in torchvision's and Pillow's greyscale
DRAWS = 6  # random numbers an image: crop row, crop column, flip, brightness, contrast, saturation
FLIP = 2  # which of them


@dataclass(frozen=True)
class Preprocessing:
    """From a stored photo to what a network takes: its size, then its mean and deviation."""

    size: int  # pixels
    interpolation: Literal["bilinear", "bicubic"]
    mean: list[float]  # per channel, [0, 1]
    std: list[float]

    def __call__(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, 3, size, size), normalised; may change its argument."""
        return normalize(resize(images, self.size, self.interpolation), self.mean, self.std)


def crop_and_flip(images: Tensor, draws: Tensor) -> Tensor:
    """Shift each image by its own random step, its border reflected, and mirror every second one.

    Args:
        images: (B, H, W, C), any type.
        draws: (B, 3) or wider, uniform in [0, 1): row, column, flip.

    Returns:
        (B, H, W, C), of the same type.
    """
    height, width = images.shape[1:3]
    rows = _shifted(height, draws[:, 0])  # (B, H)
    columns = _shifted(width, draws[:, 1])  # (B, W)
    flip = mirrored(draws)[:, None]  # (B, 1)
    columns = torch.where(flip, columns.flip(1), columns)
    batch = torch.arange(len(images), device=images.device)
    return images[batch[:, None, None], rows[:, :, None], columns[:, None, :]]  # (B, H, W, C)


def mirrored(draws: Tensor) -> Tensor:
    """Whether each image is flipped: (B, DRAWS) -> (B,)."""
    return draws[:, FLIP] < 0.5  # noqa: PLR2004


def _shifted(size: int, draw: Tensor) -> Tensor:
    """Source index of each target index after a shift in [-border, border]: (B,) -> (B, size)."""
    border = int(size * CROP_BORDER)
    shift = (draw * (2 * border + 1)).long() - border  # (B,)
    index = (torch.arange(size, device=draw.device) + shift[:, None]).abs()  # reflect at 0
    return size - 1 - (size - 1 - index).abs()  # reflect at the other end


def color_jitter(images: Tensor, draws: Tensor, strength: float) -> Tensor:
    """Change brightness, then contrast, then saturation of each image by its own factor.

    The operations are torchvision's (`ColorJitter`), each image with its own draw.

    Args:
        images: (B, 3, H, W), in [0, 1].
        draws: (B, 3), uniform in [0, 1).
        strength: factors are in [1 - strength, 1 + strength].

    Returns:
        (B, 3, H, W), in [0, 1].
    """
    factors = 1 + strength * (2 * draws - 1)  # (B, 3)
    brightness, contrast, saturation = factors[:, :, None, None, None].unbind(1)  # (B, 1, 1, 1)
    images = (images * brightness).clamp(0, 1)
    grey = _luma(images).mean(dim=(2, 3), keepdim=True)  # (B, 1, H, W) -> (B, 1, 1, 1)
    images = (grey + contrast * (images - grey)).clamp(0, 1)
    grey = _luma(images)
    return (grey + saturation * (images - grey)).clamp(0, 1)


def _luma(images: Tensor) -> Tensor:
    weights = images.new_tensor(LUMA)[:, None, None]
    return (images * weights).sum(dim=1, keepdim=True)  # (B, 3, H, W) -> (B, 1, H, W)


def augment(images: Tensor, draws: Tensor, strength: float) -> Tensor:
    """Crop, flip and jitter: (B, H, W, 3) uint8 and (B, 6) -> (B, 3, H, W) float32 in [0, 1]."""
    images = to_unit(crop_and_flip(images, draws[:, :3]))
    return color_jitter(images, draws[:, 3:], strength) if strength > 0 else images


def resize(images: Tensor, size: int, interpolation: Literal["bilinear", "bicubic"]) -> Tensor:
    """Antialiased, as Pillow does it: (B, 3, H, W) in [0, 1] -> (B, 3, size, size), the same."""
    if images.shape[-2:] == (size, size):
        return images
    # Width, then height; each time bicubic overshoots, and Pillow cuts that off.
    for shape in ((images.shape[-2], size), (size, size)):
        images = F.interpolate(
            images, shape, mode=interpolation, align_corners=False, antialias=True
        ).clamp_(0, 1)
    return images


def to_unit(images: Tensor) -> Tensor:
    """(B, H, W, 3) uint8 -> (B, 3, H, W) float32 in [0, 1], laid out channels last in memory."""
    return images.permute(0, 3, 1, 2).float().div_(255)


def normalize(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Subtract `mean` and divide by `std`, per channel: (B, 3, H, W), in place."""
    shift = images.new_tensor(mean)[:, None, None]
    scale = images.new_tensor(std).clamp_min(1e-6)[:, None, None]  # a channel may be constant
    return images.sub_(shift).div_(scale)
