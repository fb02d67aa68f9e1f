"""Preprocessing equals Pillow and arithmetic by hand."""

import numpy as np
import pytest
import torch
from PIL import Image

from fieldguide.network.preprocessing import Preprocessing, normalize, resize, to_unit

# Largest difference from Pillow, which rounds to whole numbers after rows and after columns. Each
# is half a step; columns enlarge the first one by at most 1.25, the sum of bicubic's absolute
# weights.
ROUNDING = 1.13 / 255


def random_pixels(count, height, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, height, width, 3), generator=generator, dtype=torch.uint8)


def test_to_unit_divides_by_255_and_lays_out_channel_by_channel():
    images = random_pixels(2, 5, 7)
    result = to_unit(images)
    assert result.shape == (2, 3, 5, 7)
    assert result.dtype == torch.float32
    assert result.is_contiguous()
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
def test_preprocessing_equals_a_resize_by_pillow_and_normalisation(size, interpolation):
    mean, std = [0.5, 0.25, 0.75], [0.1, 0.2, 0.4]
    images = random_pixels(2, 16, 16)
    result = Preprocessing(size, interpolation, mean, std)(to_unit(images))
    assert result.shape == (2, 3, size, size)
    assert result.dtype == torch.float32
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
