"""Augmentation of whole batches on their own device; each image has its own random numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from fieldguide.network.preprocessing import Interpolation, resize, to_unit

# Largest shift, as a fraction of the side: 4 of 32 pixels, as in the CIFAR recipe (He et al. 2016,
# section 4.2, https://arxiv.org/abs/1512.03385).
CROP_BORDER = 1 / 8
# Width / height of a random crop (Szegedy et al. 2015, section 6, https://arxiv.org/abs/1409.4842).
CROP_ASPECT = (3 / 4, 4 / 3)
# Area and width / height of an erased rectangle: torchvision's defaults (Zhong et al. 2017,
# section 3.3, https://arxiv.org/abs/1708.04896).
ERASED_AREA, ERASED_ASPECT = (0.02, 0.33), (0.3, 3.3)
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as in torchvision's and Pillow's greyscale
# What each random number of an image decides.
CROP_POSITION = slice(0, 2)  # row, column
FLIP = 2
JITTER = slice(3, 6)  # brightness, contrast, saturation
CROP_SHAPE = slice(6, 8)  # area, aspect
ERASING = slice(8, 13)  # yes or no, area, aspect, row, column
DRAWS = 13

Mix = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Augmentation:
    """How images are changed; section `train` of params.yaml describes the settings."""

    crop: Literal["shift", "resized", "none"] = "none"
    crop_area: float = 1.0
    color_jitter: float = 0.0
    random_erasing: float = 0.0

    def __call__(
        self,
        images: Tensor,
        draws: Tensor,
        size: int,
        interpolation: Interpolation = "bilinear",
    ) -> Tensor:
        """Crop, flip half of the images, resize and change colours.

        Args:
            images: (B, H, W, 3), uint8.
            draws: (B, DRAWS), uniform in [0, 1).
            size: height and width of the result, in pixels.
            interpolation: of the resize; a random resized crop is always bilinear.

        Returns:
            (B, 3, size, size), float32 in [0, 1].
        """
        if self.crop == "resized":
            images = random_resized_crop(to_unit(images), draws, size, smallest=self.crop_area)
        else:
            border = int(images.shape[1] * CROP_BORDER) if self.crop == "shift" else 0
            images = resize(to_unit(shift_and_flip(images, draws, border)), size, interpolation)
        return color_jitter(images, draws[:, JITTER], self.color_jitter)

    def erase(self, images: Tensor, draws: Tensor) -> Tensor:
        """Set a rectangle of some images to zero: (B, 3, H, W), normalised, in and out."""
        if self.random_erasing == 0:
            return images
        return images.masked_fill(_erased_pixels(images, draws, self.random_erasing), 0.0)


def shift_and_flip(images: Tensor, draws: Tensor, border: int) -> Tensor:
    """Shift each image by its own random step, fill the border by reflection, and flip half.

    Args:
        images: (B, H, W, C), any type.
        draws: (B, 3) or wider, uniform in [0, 1): row, column, flip.
        border: the largest step, in pixels, below H and W.

    Returns:
        (B, H, W, C), of the same type.
    """
    count, height, width, channels = images.shape
    row, column = (draws[:, CROP_POSITION] * (2 * border + 1)).long().unbind(1)  # (B,)
    flipped = is_flipped(draws).long()
    column = torch.where(flipped > 0, 2 * border - column, column)  # counted in the flipped image
    # `both` holds every image and its mirror image. Each row of the result is a run of W pixels in
    # it, so that only the first pixel of each row has to be found.
    wide = _reflect_sides(images, border) if border > 0 else images  # (B, H, W + 2 border, C)
    both = torch.cat([wide, wide.flip(2)])
    image = flipped * count + torch.arange(count, device=images.device)
    rows = row[:, None] - border + torch.arange(height, device=images.device)  # (B, H)
    rows = height - 1 - (height - 1 - rows.abs()).abs()  # reflected
    first = (image[:, None] * height + rows) * wide.shape[2] + column[:, None]
    runs = both.flatten().unfold(0, width * channels, channels)  # a run from each pixel on
    return runs.index_select(0, first.flatten()).view(images.shape)


def _reflect_sides(images: Tensor, border: int) -> Tensor:
    left = images[:, :, 1 : border + 1].flip(2)
    right = images[:, :, -1 - border : -1].flip(2)
    return torch.cat([left, images, right], 2)


def is_flipped(draws: Tensor) -> Tensor:
    """Return which images are flipped: (B, DRAWS) -> (B,), bool."""
    return draws[:, FLIP] < 0.5  # noqa: PLR2004


def random_resized_crop(images: Tensor, draws: Tensor, size: int, *, smallest: float) -> Tensor:
    """Take a random rectangle of each image, flip half of them and resize all to one size.

    As torchvision's `RandomResizedCrop`, but each image has its own rectangle, and only those
    aspects are drawn that a rectangle of this area can have. Sampling is bilinear. Large images are
    first made smaller, with antialiasing, until the smallest rectangle has as many pixels as the
    result. If the largest rectangle still has more, each pixel is the mean of several samples.

    Args:
        images: (B, C, H, W), float.
        draws: (B, DRAWS), uniform in [0, 1).
        size: height and width of the result, in pixels.
        smallest: the smallest area of a rectangle, as a fraction of the image; in (0, 1].

    Returns:
        (B, C, size, size), of the same type.
    """
    enough = math.ceil(size / smallest**0.5)
    if enough < images.shape[-1]:
        images = resize(images, enough, "bilinear")
    area, aspect = draws[:, CROP_SHAPE].unbind(1)
    area = smallest + (1 - smallest) * area
    bounds = (area.clamp(min=CROP_ASPECT[0]), (1 / area).clamp(max=CROP_ASPECT[1]))
    high, wide = _rectangle_sides(area, aspect, bounds)
    row, column = (2 * draws[:, CROP_POSITION] - 1).unbind(1)
    # Maps the result to the image; the corners of both are (-1, -1) and (1, 1).
    to_image = images.new_zeros(len(images), 2, 3)
    to_image[:, 0, 0] = torch.where(is_flipped(draws), -wide, wide)
    to_image[:, 1, 1] = high
    # By how much a pixel of the result is larger than a pixel of the image.
    beyond = [(2 * side / size - 2 / images.shape[-1]).clamp(min=0) for side in (wide, high)]
    samples = math.ceil(images.shape[-1] / size)  # of each pixel of the result, along each side
    places = [(k + 0.5) / samples - 0.5 for k in range(samples)]
    result = images.new_zeros(*images.shape[:2], size, size)
    for right, down in product(places, places):
        to_image[:, 0, 2] = column * (1 - wide) + right * beyond[0]
        to_image[:, 1, 2] = row * (1 - high) + down * beyond[1]
        grid = F.affine_grid(to_image, list(result.shape), align_corners=False)
        result += F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    return result / len(places) ** 2


def _rectangle_sides(
    area: Tensor, aspect: Tensor, bounds: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """Return height and width as fractions; aspects are uniform on a log scale within bounds."""
    # In float64, because logarithms and roots of float32 differ between processors.
    low, high = bounds[0].double().log(), bounds[1].double().log()
    ratio = torch.exp(low + (high - low) * aspect)  # width / height
    return (area / ratio).sqrt().float(), (area * ratio).sqrt().float()


def color_jitter(images: Tensor, draws: Tensor, strength: float) -> Tensor:
    """Change brightness, then contrast, then saturation of each image by its own factor.

    The operations are those of torchvision's `ColorJitter`, but values are clamped to [0, 1] only
    once, at the end, so that the three operations are one linear change of colours.

    Args:
        images: (B, 3, H, W), in [0, 1]; changed in place.
        draws: (B, 3), uniform in [0, 1).
        strength: factors are in [1 - strength, 1 + strength].

    Returns:
        (B, 3, H, W), in [0, 1].
    """
    if strength == 0:
        return images
    factors = 1 + strength * (2 * draws - 1)  # (B, 3)
    brightness, contrast, saturation = factors[:, :, None, None].unbind(1)  # (B, 1, 1)
    grey = images[:, 0] * LUMA[0]  # (B, 3, H, W) -> (B, H, W)
    for channel in (1, 2):
        grey.add_(images[:, channel], alpha=LUMA[channel])
    mean = grey.mean(dim=(1, 2), keepdim=True)  # (B, 1, 1)
    # With brightness b, contrast c and saturation s a pixel p becomes b c s p + added.
    added = grey.mul_(brightness * contrast * (1 - saturation))
    added.add_(brightness * (1 - contrast) * mean)
    images.mul_((brightness * contrast * saturation)[:, None]).add_(added[:, None])
    return images.clamp_(0, 1)


def _erased_pixels(images: Tensor, draws: Tensor, probability: float) -> Tensor:
    """Return which pixels are erased: (B, 1, H, W), bool."""
    chance, area, aspect, *place = draws[:, ERASING].unbind(1)
    low, high = ERASED_AREA
    bounds = (area.new_tensor(ERASED_ASPECT[0]), area.new_tensor(ERASED_ASPECT[1]))
    sides = _rectangle_sides(low + (high - low) * area, aspect, bounds)
    inside = []
    for length, fraction, start in zip(images.shape[-2:], sides, place, strict=True):
        pixels = (fraction * length).round().clamp(1, length)[:, None]  # (B, 1)
        first = (start[:, None] * (length - pixels + 1)).floor()
        at = torch.arange(length, device=images.device)
        inside.append((at >= first) & (at < first + pixels))  # (B, length)
    rectangle = inside[0][:, :, None] & inside[1][:, None, :]  # (B, H, W)
    return (rectangle & (chance < probability)[:, None, None])[:, None]


def make_mix(mixup: float, cutmix: float, num_classes: int) -> Mix | None:
    """Return torchvision's MixUp or CutMix, or a random choice of both for each batch.

    Args:
        mixup: alpha of a Beta distribution; 0: no MixUp.
        cutmix: the same for CutMix.
        num_classes: K.

    Returns:
        A function from images (B, 3, H, W) and labels (B,) to images and class fractions (B, K).
        It draws from PyTorch's global generator. None if both are 0.

    Source: https://arxiv.org/abs/1710.09412 and https://arxiv.org/abs/1905.04899.
    """
    if mixup == cutmix == 0:
        return None
    from torchvision.transforms import v2  # noqa: PLC0415 - takes seconds

    kinds = ((v2.MixUp, mixup), (v2.CutMix, cutmix))
    mixes = [kind(alpha=alpha, num_classes=num_classes) for kind, alpha in kinds if alpha > 0]
    mix: Mix = mixes[0] if len(mixes) == 1 else v2.RandomChoice(mixes)
    return mix
