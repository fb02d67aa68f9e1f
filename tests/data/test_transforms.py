"""Augmentation is torchvision's, but each image of a batch has its own draw."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import functional as tv
from torchvision.transforms.v2 import functional as tv2

from fieldguide.data.transforms import (
    Preprocessing,
    augment,
    color_jitter,
    crop_and_flip,
    normalize,
    resize,
    to_unit,
)

# Pillow rounds to whole numbers after rows, by half a step that columns enlarge by 1.25 at most
# (the sum of bicubic's weights without their signs), and after columns, by half a step.
ROUNDING = 1.13 / 255


def random_pixels(count, height, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, height, width, 3), generator=generator, dtype=torch.uint8)


def draw_of(shift, border):
    """The middle of the draws that give this shift: 2 * border + 1 shifts share [0, 1) evenly."""
    return (shift + border + 0.5) / (2 * border + 1)


def reference_crop_and_flip(image, shift_row, shift_column, border, *, flip):
    """One (H, W, C) image: torchvision's reflected padding, crop and mirror."""
    height, width, _ = image.shape
    padded = tv.pad(image.permute(2, 0, 1), border, padding_mode="reflect")
    cropped = tv.crop(padded, border + shift_row, border + shift_column, height, width)
    return (tv.hflip(cropped) if flip else cropped).permute(1, 2, 0)


@pytest.mark.parametrize(("size", "border"), [(32, 4), (28, 3), (17, 2), (9, 1)])
def test_every_shift_and_flip_equals_torchvision(size, border):
    steps = range(-border, border + 1)
    moves = [(row, column, flip) for row in steps for column in steps for flip in (False, True)]
    images = random_pixels(len(moves), size, size)
    draws = torch.tensor(
        [
            [draw_of(row, border), draw_of(column, border), 0.25 if flip else 0.75]
            for row, column, flip in moves
        ]
    )
    result = crop_and_flip(images, draws)
    for image, (row, column, flip), found in zip(images, moves, result, strict=True):
        assert torch.equal(found, reference_crop_and_flip(image, row, column, border, flip=flip))


def test_crop_keeps_height_and_width_apart():
    images = random_pixels(1, 16, 24)  # borders 2 and 3
    draws = torch.tensor([[draw_of(-2, 2), draw_of(3, 3), 0.9]])
    padded = tv.pad(images[0].permute(2, 0, 1), [3, 2], padding_mode="reflect")
    expected = tv.crop(padded, 0, 6, 16, 24).permute(1, 2, 0)
    assert torch.equal(crop_and_flip(images, draws)[0], expected)


def test_smallest_and_largest_draw_are_the_two_ends():
    images = random_pixels(2, 16, 16)
    almost_one = 1 - 2**-24  # the largest float32 that torch.rand gives
    draws = torch.tensor([[0.0, 0.0, 0.5], [almost_one, almost_one, 0.5]])
    result = crop_and_flip(images, draws)
    assert torch.equal(result[0], reference_crop_and_flip(images[0], -2, -2, 2, flip=False))
    assert torch.equal(result[1], reference_crop_and_flip(images[1], 2, 2, 2, flip=False))


def test_image_too_small_for_a_border_is_only_flipped():
    images = random_pixels(2, 7, 7)
    result = crop_and_flip(images, torch.tensor([[0.0, 0.99, 0.0], [0.99, 0.0, 0.99]]))
    assert torch.equal(result[0], images[0].flip(1))
    assert torch.equal(result[1], images[1])


def test_crop_and_flip_leaves_its_input_alone():
    images = random_pixels(3, 16, 16)
    before = images.clone()
    crop_and_flip(images, torch.zeros(3, 3))
    assert torch.equal(images, before)


@pytest.mark.parametrize("strength", [0.1, 0.4, 0.9])
@pytest.mark.parametrize(("height", "width"), [(16, 16), (7, 13)])
def test_color_jitter_equals_torchvision_for_each_image(strength, height, width):
    images = random_pixels(6, height, width).permute(0, 3, 1, 2) / 255
    draws = torch.rand(6, 3, generator=torch.Generator().manual_seed(1))
    result = color_jitter(images, draws, strength)
    for image, draw, found in zip(images, draws, result, strict=True):
        brightness, contrast, saturation = (
            1 - strength + 2 * strength * value for value in draw.tolist()
        )
        expected = tv2.adjust_brightness(image, brightness)
        expected = tv2.adjust_contrast(expected, contrast)
        expected = tv2.adjust_saturation(expected, saturation)
        # torchvision's luma is .2989, .587, .114; ours ends in .299, as in the standard.
        torch.testing.assert_close(found, expected, rtol=0, atol=5e-4)


def test_color_jitter_by_hand():
    # Strength 0.5: factors 1.5, 0.5 and 1. Red 0.4 -> 0.6; grey 0.299 * 0.6 = 0.1794;
    # 0.1794 + 0.5 * (0.6 - 0.1794) = 0.3897 and 0.1794 + 0.5 * (0 - 0.1794) = 0.0897.
    image = torch.tensor([0.4, 0.0, 0.0])[None, :, None, None].expand(1, 3, 4, 4)
    result = color_jitter(image, torch.tensor([[1.0, 0.0, 0.5]]), 0.5)
    expected = torch.tensor([0.3897, 0.0897, 0.0897])[None, :, None, None].expand(1, 3, 4, 4)
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-6)


def test_color_jitter_stays_between_0_and_1():
    images = random_pixels(64, 8, 8).permute(0, 3, 1, 2) / 255
    draws = torch.rand(64, 3, generator=torch.Generator().manual_seed(2))
    result = color_jitter(images, draws, 0.9)
    assert result.min() >= 0
    assert result.max() <= 1


def test_color_jitter_of_strength_0_changes_nothing():
    images = random_pixels(4, 8, 8).permute(0, 3, 1, 2) / 255
    torch.testing.assert_close(color_jitter(images, torch.rand(4, 3), 0.0), images)


def test_augment_is_crop_and_flip_then_jitter():
    images = random_pixels(5, 16, 16)
    draws = torch.rand(5, 6, generator=torch.Generator().manual_seed(3))
    moved = crop_and_flip(images, draws[:, :3]).permute(0, 3, 1, 2) / 255
    torch.testing.assert_close(augment(images, draws, 0.0), moved)
    torch.testing.assert_close(augment(images, draws, 0.3), color_jitter(moved, draws[:, 3:], 0.3))


@pytest.mark.parametrize("strength", [0.0, 0.3])
def test_each_image_depends_on_its_own_draw_alone(strength):
    images = random_pixels(1, 16, 16).expand(4, -1, -1, -1)
    draws = torch.rand(4, 6, generator=torch.Generator().manual_seed(4))
    together = augment(images, draws, strength)
    for k in range(4):
        alone = augment(images[k : k + 1], draws[k : k + 1], strength)
        torch.testing.assert_close(alone[0], together[k])
    assert not torch.equal(together[0], together[1])


def test_to_unit_divides_by_255_and_is_channels_last():
    images = random_pixels(2, 5, 7)
    result = to_unit(images)
    assert result.shape == (2, 3, 5, 7)
    assert result.dtype == torch.float32
    assert result.is_contiguous(memory_format=torch.channels_last)
    assert result[1, 2, 4, 6] == images[1, 4, 6, 2].item() / torch.tensor(255.0)
    assert images.dtype == torch.uint8


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(
    ("before", "after"), [(32, 48), (32, 160), (32, 17), (64, 32), (17, 16), (96, 8), (9, 40)]
)
def test_resize_equals_pillow(before, after, interpolation):
    images = random_pixels(3, before, before)
    kind = Image.Resampling[interpolation.upper()]
    for image, found in zip(images, resize(to_unit(images), after, interpolation), strict=True):
        resized = Image.fromarray(image.numpy()).resize((after, after), kind)
        expected = torch.from_numpy(np.array(resized)).permute(2, 0, 1) / 255
        torch.testing.assert_close(found, expected, rtol=0, atol=ROUNDING)
        assert (found - expected).abs().mean() < 0.5 / 255


def test_resize_to_the_same_size_changes_nothing():
    images = to_unit(random_pixels(2, 16, 16))
    assert torch.equal(resize(images.clone(), 16, "bicubic"), images)


def test_bicubic_stays_between_0_and_1():
    image = torch.zeros(1, 3, 16, 16)
    image[..., 8:] = 1  # an edge, beyond which bicubic overshoots
    found = resize(image, 40, "bicubic")
    assert (found.min(), found.max()) == (0, 1)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [16, 20, 11])
def test_preprocessing_is_pillows_resize_then_normalisation(size, interpolation):
    mean, std = [0.5, 0.25, 0.75], [0.1, 0.2, 0.4]
    images = random_pixels(2, 16, 16)
    result = Preprocessing(size, interpolation, mean, std)(to_unit(images))
    assert result.shape == (2, 3, size, size)
    assert result.dtype == torch.float32
    assert result.is_contiguous(memory_format=torch.channels_last)
    kind = Image.Resampling[interpolation.upper()]
    for image, found in zip(images, result, strict=True):
        pixels = np.array(Image.fromarray(image.numpy()).resize((size, size), kind)) / 255
        for channel in range(3):
            expected = (pixels[..., channel] - mean[channel]) / std[channel]
            np.testing.assert_allclose(found[channel], expected, atol=ROUNDING / std[channel])


def test_normalize_by_hand():
    images = torch.tensor([0.5, 0.25, 1.0])[None, :, None, None].repeat(2, 1, 3, 5)
    result = normalize(images, mean=[0.5, 0.5, 0.5], std=[0.1, 0.25, 0.5])
    expected = torch.tensor([0.0, -1.0, 1.0])[None, :, None, None].expand(2, 3, 3, 5)
    torch.testing.assert_close(result, expected)


def test_normalize_of_a_constant_channel_is_finite():
    images = torch.full((1, 3, 2, 2), 0.7)
    result = normalize(images, mean=[0.7, 0.7, 0.7], std=[0.0, 0.0, 0.2])
    torch.testing.assert_close(result, torch.zeros(1, 3, 2, 2))
