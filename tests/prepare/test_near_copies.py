"""Photos that look the same are found; photos that only have something in common are not."""

import io

import numpy as np
import pytest
from PIL import Image, ImageOps
from scenes import scene, store_looks

from fieldguide.prepare import near_copies as module
from fieldguide.prepare.most_alike import most_alike
from fieldguide.prepare.near_copies import contradictions, near_copies


def saved(image, **options):
    file = io.BytesIO()
    image.save(file, **options)
    return Image.open(file).convert("RGB")


def noisy(image, seed, sigma=3.0):
    noise = np.random.default_rng(seed).normal(0, sigma, (96, 96, 3))
    return Image.fromarray((np.asarray(image) + noise).clip(0, 255).astype(np.uint8))


@pytest.fixture
def stored(tmp_path):
    """The looks of pictures, in a file: stored([scene(0), scene(1)])."""
    return lambda images: store_looks(images, tmp_path / "looks")


@pytest.mark.parametrize(
    "changed",
    [
        lambda image: image,
        lambda image: saved(image, format="JPEG", quality=30),
        lambda image: saved(image, format="WEBP", quality=50),
        lambda image: saved(image.resize((48, 48)), format="JPEG"),
        lambda image: image.resize((192, 192)),
        lambda image: image.convert("L").convert("RGB"),
        lambda image: image.point(lambda value: value * 0.8 + 10),
        ImageOps.mirror,
        lambda image: image.crop((1, 1, 95, 95)),
    ],
    ids=["equal", "jpeg", "webp", "half", "double", "grey", "contrast", "mirror", "crop"],
)
def test_a_changed_copy_is_found_among_others(changed, stored):
    images = [*map(scene, range(30)), *map(changed, map(scene, range(5)))]
    assert near_copies(stored(images), range(35)) == [(seed, 30 + seed) for seed in range(5)]


def test_only_the_given_rows_are_compared_and_a_group_has_one_pair_less_than_photos(stored):
    copies = stored([scene(0), scene(1), scene(0), scene(0), scene(1), scene(0)])
    assert near_copies(copies, range(6)) == [(0, 2), (0, 3), (0, 5), (1, 4)]
    assert near_copies(copies, [5, 4, 2]) == [(5, 2)]
    assert near_copies(copies, [5]) == near_copies(copies, []) == []


@pytest.mark.parametrize("place", [(8, 8), (40, 60), (70, 20)])
def test_a_small_animal_in_front_of_the_same_background_is_another_photo(place, stored):
    for seed in range(5):
        empty, visited = noisy(scene(seed), 1), noisy(scene(seed), 2)
        visited.paste((90, 60, 30), (*place, place[0] + 20, place[1] + 20))  # 4 % of the area
        assert near_copies(stored([empty, noisy(scene(seed), 3), visited]), range(3)) == [(0, 1)]


def test_the_same_thing_in_another_colour_is_another_photo(stored):
    def coloured(colour):
        image = scene(0).convert("L").convert("RGB")
        image.paste(colour, (10, 20, 60, 80))
        return noisy(image, 0, 1.0)

    red, blue = (200, 20, 20), (20, 82, 200)  # equally bright
    pictures = stored([coloured(red), coloured(blue), coloured(red).convert("L").convert("RGB")])
    assert near_copies(pictures, [0, 1]) == []
    assert near_copies(pictures, [0, 2]) == [(0, 2)]  # in black and white it may be either


def test_photos_that_look_like_one_of_another_class_are_found_in_a_group(stored):
    copies = stored([*[scene(0)] * 30, *map(ImageOps.mirror, [scene(0)] * 100), scene(1)])
    found = contradictions(copies, range(131), ["ant"] * 30 + ["bee"] * 101)
    assert set(found) == set(range(130))
    assert all((row < 30) != (other < 30) for row, other in found.items())


def test_photos_without_contrast_have_no_near_copies(stored):
    images = [Image.new("RGB", (96, 96), color) for color in ["black"] * 3 + ["white"] * 3]
    images += [noisy(Image.new("RGB", (96, 96), (9, 9, 9)), seed, 6.0) for seed in range(3)]
    images += [scene(0).point(lambda value: value * 0.02 + 9)] * 2
    assert near_copies(stored(images), range(len(images))) == []


def test_a_static_camera_is_one_group_although_few_of_its_frames_are_compared(stored, monkeypatch):
    monkeypatch.setattr(module, "_CANDIDATES", 2)
    monkeypatch.setattr(module, "_BLOCK", 16)
    frames = stored([noisy(scene(0), seed) for seed in range(60)])
    pairs = near_copies(frames, range(60))
    assert len(pairs) == 59
    assert {row for pair in pairs for row in pair} == set(range(60))


def test_the_most_alike_pair_of_two_splits(stored):
    larger = scene(3).crop((6, 3, 90, 87)).resize((96, 96))  # no near-copy
    pictures = stored([*map(scene, range(6)), larger, *map(scene, range(10, 14))])
    assert near_copies(pictures, range(11)) == []
    first, second, correlation = most_alike(pictures, range(6), range(6, 11))
    assert (first, second) == (3, 6)
    assert 0.5 < correlation < 1
    mirrored = stored([scene(0), scene(1), ImageOps.mirror(scene(1))])
    assert most_alike(mirrored, [0, 1], [2]) == (1, 2, 1)
    assert most_alike(mirrored, [0], []) is None
    assert most_alike(stored([Image.new("RGB", (9, 9))] * 2), [0], [1]) is None
