"""A look is small and grey; its hash is exact, and that of the mirror image comes with it."""

import numpy as np
import pytest
from PIL import Image, ImageOps
from scenes import scene, store_looks

from fieldguide.prepare.looks import hashes, look_of


@pytest.fixture
def stored(tmp_path):
    """The looks of pictures, in a file: stored([scene(0), scene(1)])."""
    return lambda images: store_looks(images, tmp_path / "looks")


def test_a_look_is_the_mean_grey_of_each_area():
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[:2, :2] = [[[0, 0, 0], [40, 40, 40]], [[80, 80, 80], [120, 120, 120]]]
    pixels[2:4, 2:4] = [255, 0, 0]  # 0.299 × 255 = 76.2
    look = look_of(pixels)
    assert (look[0, 0], look[1, 1], look.sum()) == (60, 76, 136)


def test_looks_are_read_in_the_requested_order(stored):
    images = [scene(seed) for seed in range(4)]
    read = stored(images).read([3, 0, 3])
    np.testing.assert_array_equal(read, [look_of(np.asarray(images[row])) for row in (3, 0, 3)])


def test_hashes_of_mirror_images_are_those_of_mirrored_photos(stored):
    """Coefficients of 0, as symmetric pictures have them, included."""
    half = scene(1).crop((0, 0, 48, 96))
    symmetric = Image.new("RGB", (96, 96))
    symmetric.paste(half, (0, 0))
    symmetric.paste(ImageOps.mirror(half), (48, 0))
    images = [scene(0), symmetric]
    _, direct = hashes(stored(images), range(2))
    _, mirrored = hashes(stored([ImageOps.mirror(image) for image in images]), range(2))
    np.testing.assert_array_equal(mirrored, direct[:, ::-1])
    assert direct[0, 0] != direct[0, 1]
    assert direct[1, 0] == direct[1, 1]


def test_a_hash_is_exact(stored):
    """Integers of any size give the same bits, so the order of float64 sums does not matter."""
    pictures = stored([scene(seed) for seed in range(20)])
    k, x = np.ogrid[:8, :32]
    cosines = np.rint(1024 * np.cos(np.pi * k * (2 * x + 1) / 64)).astype(int).astype(object)
    signs = [cosines @ look.astype(object) @ cosines.T > 0 for look in pictures.read(range(20))]
    bits = np.packbits(np.array(signs, bool).reshape(20, 64), axis=1).view(np.uint64)[:, 0]
    np.testing.assert_array_equal(hashes(pictures, range(20))[1][:, 0], bits)
