"""Augmentation equals torchvision's, with other random numbers for each image of a batch."""

import pytest
import torch
from torchvision.transforms import functional as tv
from torchvision.transforms.v2 import functional as tv2

from fieldguide.network.augmentation import (
    CROP_POSITION,
    CROP_SHAPE,
    DRAWS,
    ERASING,
    FLIP,
    JITTER,
    Augmentation,
    color_jitter,
    random_resized_crop,
    shift_and_flip,
)
from fieldguide.network.preprocessing import resize, to_unit


def random_pixels(count, height, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, height, width, 3), generator=generator, dtype=torch.uint8)


def draw_of(shift, border):
    """Return a random number that gives this shift; 2 * border + 1 shifts divide [0, 1)."""
    return (shift + border + 0.5) / (2 * border + 1)


def reference_crop_and_flip(image, shift_row, shift_column, border, *, flip):
    """Shift and flip one (H, W, C) image by torchvision: reflected padding, crop, flip."""
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
    result = shift_and_flip(images, draws, border)
    for image, (row, column, flip), found in zip(images, moves, result, strict=True):
        assert torch.equal(found, reference_crop_and_flip(image, row, column, border, flip=flip))


def test_shift_keeps_height_and_width_apart():
    images = random_pixels(1, 16, 24)
    draws = torch.tensor([[draw_of(-3, 3), draw_of(2, 3), 0.9]])
    expected = reference_crop_and_flip(images[0], -3, 2, 3, flip=False)
    assert torch.equal(shift_and_flip(images, draws, 3)[0], expected)


def test_smallest_and_largest_number_give_the_largest_shifts():
    images = random_pixels(2, 16, 16)
    almost_one = 1 - 2**-24  # the largest float32 that torch.rand gives
    draws = torch.tensor([[0.0, 0.0, 0.5], [almost_one, almost_one, 0.5]])
    result = shift_and_flip(images, draws, 2)
    assert torch.equal(result[0], reference_crop_and_flip(images[0], -2, -2, 2, flip=False))
    assert torch.equal(result[1], reference_crop_and_flip(images[1], 2, 2, 2, flip=False))


def test_without_a_border_images_are_only_flipped():
    images = random_pixels(2, 7, 7)
    result = shift_and_flip(images, torch.tensor([[0.0, 0.99, 0.0], [0.99, 0.0, 0.99]]), 0)
    assert torch.equal(result[0], images[0].flip(1))
    assert torch.equal(result[1], images[1])


@pytest.mark.parametrize("border", [0, 2])
def test_shift_and_flip_leaves_its_input_alone(border):
    images = random_pixels(3, 16, 16)
    before = images.clone()
    shift_and_flip(images, torch.zeros(3, 3), border)
    assert torch.equal(images, before)


@pytest.mark.parametrize("strength", [0.1, 0.2])
@pytest.mark.parametrize(("height", "width"), [(16, 16), (7, 13)])
def test_color_jitter_equals_torchvision_for_each_image(strength, height, width):
    # Values of mid-range, so that torchvision clamps nothing between its operations.
    images = 0.4 + 0.2 * random_pixels(6, height, width).permute(0, 3, 1, 2) / 255
    draws = torch.rand(6, 3, generator=torch.Generator().manual_seed(1))
    result = color_jitter(images.clone(), draws, strength)
    for image, draw, found in zip(images, draws, result, strict=True):
        brightness, contrast, saturation = (
            1 - strength + 2 * strength * value for value in draw.tolist()
        )
        expected = tv2.adjust_brightness(image, brightness)
        expected = tv2.adjust_contrast(expected, contrast)
        expected = tv2.adjust_saturation(expected, saturation)
        # torchvision's luma begins with 0.2989, the standard's and ours with 0.299.
        torch.testing.assert_close(found, expected, rtol=0, atol=5e-4)


def test_color_jitter_by_hand():
    # Strength 0.5: factors 1.5, 0.5 and 1. Red 0.4 -> 0.6; grey 0.299 * 0.6 = 0.1794;
    # 0.1794 + 0.5 * (0.6 - 0.1794) = 0.3897 and 0.1794 + 0.5 * (0 - 0.1794) = 0.0897.
    image = torch.tensor([0.4, 0.0, 0.0])[None, :, None, None].repeat(1, 1, 4, 4)
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
    before = images.clone()
    assert torch.equal(color_jitter(images, torch.rand(4, 3), 0.0), before)


def draws_of(count, seed=0):
    return torch.rand(count, DRAWS, generator=torch.Generator().manual_seed(seed))


def test_augmentation_is_shift_and_flip_then_resize_then_jitter():
    images, draws = random_pixels(5, 16, 16), draws_of(5)
    moved = resize(to_unit(shift_and_flip(images, draws, 2)), 24, "bicubic")
    change = Augmentation(crop="shift", color_jitter=0.3)
    found = change(images, draws, 24, "bicubic")
    torch.testing.assert_close(found, color_jitter(moved, draws[:, JITTER], 0.3))


def test_augmentation_without_a_crop_only_flips():
    images, draws = random_pixels(8, 16, 16), draws_of(8)
    found = Augmentation()(images, draws, 16)
    for image, draw, result in zip(images, draws, found, strict=True):
        expected = image.flip(1) if draw[FLIP] < 0.5 else image
        torch.testing.assert_close(result, expected.permute(2, 0, 1) / 255)


def crop_draws(area, aspect, row, column, flip=0.9):
    draws = torch.zeros(1, DRAWS)
    draws[0, CROP_POSITION] = torch.tensor([row, column])
    draws[0, FLIP] = flip
    draws[0, CROP_SHAPE] = torch.tensor([area, aspect])
    return draws


@pytest.mark.parametrize("flip", [0.1, 0.9])
@pytest.mark.parametrize(("row", "column"), [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (0.5, 0.5)])
def test_a_quarter_of_a_photo_at_half_the_size_is_a_window(row, column, flip):
    # An area of 1/4 and aspect 1 (the middle of the log scale) is a square of half the side. At
    # half the size the samples fall on whole pixels.
    images = to_unit(random_pixels(1, 16, 16))
    found = random_resized_crop(images, crop_draws(0.0, 0.5, row, column, flip), 8, smallest=0.25)
    top, left = round(row * 8), round(column * 8)
    window = images[..., top : top + 8, left : left + 8]
    torch.testing.assert_close(found, window.flip(-1) if flip < 0.5 else window)


@pytest.mark.parametrize("draw", [0.0, 0.25, 1.0])
def test_an_enlarged_crop_equals_torchvision(draw):
    images = to_unit(random_pixels(1, 24, 24))
    # A crop of 12 × 12 pixels; its first row and column are between 0 and 12.
    found = random_resized_crop(images, crop_draws(0.0, 0.5, draw, draw), 24, smallest=0.25)
    first = int(draw * 12)
    window = images.narrow(2, first, 12).narrow(3, first, 12)
    expected = tv2.resize(window, [24, 24], antialias=False)
    # Not the rim: there our crop uses the pixels beyond, which torchvision's window does not have.
    torch.testing.assert_close(found[..., 1:-1, 1:-1], expected[..., 1:-1, 1:-1])


def test_random_resized_crops_have_areas_and_aspects_within_bounds():
    # Red rises by 1 per row and green by 1 per column, so that colours tell where a pixel was.
    ramp = torch.arange(64.0)
    image = torch.stack([ramp[:, None].expand(64, 64), ramp.expand(64, 64), ramp.expand(64, 64)])
    images = image.expand(500, -1, -1, -1)
    found = random_resized_crop(images, draws_of(500), 64, smallest=0.3)
    high = (found[:, 0, 60, 32] - found[:, 0, 3, 32]) / 57  # source pixels per pixel of the result
    wide = (found[:, 1, 32, 60] - found[:, 1, 32, 3]).abs() / 57
    area, aspect = high * wide, wide / high
    assert 0.3 - 1e-3 <= area.min() < 0.35
    assert 0.95 < area.max() <= 1 + 1e-3
    assert 0.75 - 1e-3 <= aspect.min() < 0.78
    assert 1.28 < aspect.max() <= 4 / 3 + 1e-3
    assert abs(((found[:, 1, 32, 60] < found[:, 1, 32, 3]).float().mean()) - 0.5) < 0.1


@pytest.mark.parametrize("smallest", [0.75, 0.9, 1.0])
def test_no_crop_is_smaller_than_allowed(smallest):
    ramp = torch.arange(64.0)
    image = torch.stack([ramp[:, None].expand(64, 64), ramp.expand(64, 64)])
    found = random_resized_crop(image.expand(500, -1, -1, -1), draws_of(500), 64, smallest=smallest)
    high = (found[:, 0, 60, 32] - found[:, 0, 3, 32]) / 57
    wide = (found[:, 1, 32, 60] - found[:, 1, 32, 3]).abs() / 57
    assert (high * wide).min() >= smallest - 1e-3
    assert max(high.max(), wide.max()) <= 1 + 1e-3


@pytest.mark.parametrize("smallest", [1.0, 0.35, 0.08])
def test_a_crop_of_a_much_larger_photo_is_antialiased(smallest):
    # Noise would keep its standard deviation without antialiasing. Means of 4 × 4 pixels have a
    # quarter of it, which bilinear weights change a little.
    images = to_unit(random_pixels(4, 128, 128))
    draws = draws_of(4)
    draws[:, CROP_SHAPE] = torch.tensor([1.0, 0.5])  # the whole photo, whatever `smallest`
    found = random_resized_crop(images, draws, 32, smallest=smallest)
    assert 0.15 < found.std() / images.std() < 0.3


def erasing_draws(chance, area=0.5, aspect=0.5, row=0.0, column=0.0):
    draws = torch.zeros(1, DRAWS)
    draws[0, ERASING] = torch.tensor([chance, area, aspect, row, column])
    return draws


@pytest.mark.parametrize(
    ("row", "column", "top", "left"), [(0.0, 0.0, 0, 0), (0.999, 0.999, 12, 12), (0.5, 0.0, 6, 0)]
)
def test_erasing_by_hand(row, column, top, left):
    # An area of 1/16 and the middle aspect, sqrt(0.3 × 3.3) = 0.995: 4 of 16 pixels, rounded.
    area = (0.0625 - 0.02) / (0.33 - 0.02)
    images = torch.ones(1, 3, 16, 16)
    found = Augmentation(random_erasing=0.5).erase(
        images, erasing_draws(0.4, area, 0.5, row, column)
    )
    expected = torch.ones(1, 3, 16, 16)
    expected[..., top : top + 4, left : left + 4] = 0
    assert torch.equal(found, expected)
    assert images.min() == 1


def test_erasing_skips_photos_whose_number_is_not_below_the_probability():
    images = torch.ones(1, 3, 16, 16)
    assert torch.equal(Augmentation(random_erasing=0.5).erase(images, erasing_draws(0.5)), images)


def test_erasing_changes_the_right_fraction_of_photos():
    found = Augmentation(random_erasing=0.25).erase(torch.ones(2000, 3, 16, 16), draws_of(2000))
    fraction = (found.amin((1, 2, 3)) == 0).float().mean()
    assert abs(fraction - 0.25) < 0.03  # three standard deviations
    blank = (found[:, 0] == 0).float().mean((1, 2))
    assert blank.max() < 0.45  # an area of 0.33, rounded to whole pixels


@pytest.mark.parametrize(
    "change",
    [
        Augmentation(crop="shift"),
        Augmentation(crop="shift", color_jitter=0.3),
        Augmentation(crop="resized", crop_area=0.3, color_jitter=0.3),
    ],
)
def test_each_image_depends_only_on_its_own_numbers(change):
    images = random_pixels(1, 16, 16).expand(4, -1, -1, -1)
    draws = draws_of(4)
    together = change(images, draws, 16)
    for k in range(4):
        alone = change(images[k : k + 1], draws[k : k + 1], 16)
        torch.testing.assert_close(alone[0], together[k])
    assert not torch.equal(together[0], together[1])
