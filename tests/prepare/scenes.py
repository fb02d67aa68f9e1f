"""Made photos, and their looks in a file."""

import numpy as np
from PIL import Image

from fieldguide.prepare.looks import Looks, look_of


def scene(seed):
    """A colourful picture of 96×96 pixels with large and small soft shapes, as photos have them."""
    rng = np.random.default_rng(seed)
    large, small = (
        Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)).resize((96, 96))
        for side in (5, 15)
    )
    return Image.blend(large, small, 0.4)


def store_looks(images, path):
    path.write_bytes(b"".join(look_of(np.asarray(image)).tobytes() for image in images))
    return Looks(path)
