"""Photos for the benchmarks: drawn from a seed, packed, unpacked, resized, prepared."""

from __future__ import annotations

import contextlib
import io
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageOps

CLASSES = 10
DISTINCT = 100  # pictures that are drawn; the others are copies with another comment
QUALITY = 90


def draw(width: int, height: int, *, seed: int) -> bytes:
    """Draw a JPEG that has, like a photo, smooth colours, edges and fine grain.

    Args:
        width: pixels.
        height: pixels.
        seed: each seed gives another picture.
    """
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(image)
    for _ in range(12):
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        radius = rng.uniform(0.03, 0.25) * min(width, height)
        color = tuple(int(value) for value in rng.integers(0, 256, 3))
        box = (x - radius, y - radius * rng.uniform(0.4, 1), x + radius, y + radius)
        pen.ellipse(box, fill=color)
    grain = rng.normal(0, 6, (height, width, 1))
    pixels = np.clip(np.asarray(image) + grain, 0, 255).astype(np.uint8)
    return jpeg(Image.fromarray(pixels))


def jpeg(image: Image.Image) -> bytes:
    """Encode an image as JPEG."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def encoded_again(photo: bytes) -> bytes:
    """Return the mirror image of a JPEG, encoded with another quality."""
    with Image.open(io.BytesIO(photo)) as image:
        buffer = io.BytesIO()
        ImageOps.mirror(image).save(buffer, "JPEG", quality=QUALITY - 20)
    return buffer.getvalue()


def commented(photo: bytes, number: int) -> bytes:
    """Return a JPEG with the number as its comment, so that no two files are equal."""
    text = str(number).encode()
    segment = b"\xff\xfe" + struct.pack(">H", len(text) + 2) + text  # COM, ITU-T T.81 B.2.4.5
    return photo[:2] + segment + photo[2:]


def archive(path: Path, count: int, *, width: int, height: int) -> Path:
    """Write a zip of `count` photos train/<class>/*.jpg, and one test photo per class."""
    drawn = [draw(width, height, seed=seed) for seed in range(min(DISTINCT, count))]
    with zipfile.ZipFile(path, "w") as target:
        for number in range(count + CLASSES):
            split = "train" if number < count else "test"
            name = f"{split}/class{number % CLASSES}/{number:06d}.jpg"
            target.writestr(name, commented(drawn[number % len(drawn)], number))
    return path


def unpack(packed: Path, folder: Path, *, size: int | None = None) -> Path:
    """Unpack a zip; if `size` is given, crop each photo to its centre square and resize it."""
    with zipfile.ZipFile(packed) as source:
        for name in source.namelist():
            data = source.read(name)
            file = folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data if size is None else resized(data, size))
    return folder


def resized(data: bytes, size: int) -> bytes:
    """Return a JPEG of the photo's centre square at `size` pixels."""
    with Image.open(io.BytesIO(data)) as image:
        side = min(image.size)
        left, top = (image.width - side) / 2, (image.height - side) / 2
        box = (left, top, left + side, top + side)
        return jpeg(image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR, box=box))


def prepared(packed: Path, folder: Path, *, size: int, **changes: Any) -> Path:
    """Prepare fieldguide's store from an archive; the copies of `archive` are photos like others.

    Args:
        packed: zip.
        folder: of the store.
        size: pixels of the store's photos.
        changes: other keys of params.yaml's section `data`.
    """
    from contender import ROOT

    from fieldguide.core.params import load_params
    from fieldguide.prepare.prepare import prepare

    params = load_params(ROOT / "params.yaml").data
    update = {"archive": str(packed), "image_size": size, "val_fraction": 0.01}
    update |= {"near_copies": False, **changes}
    with contextlib.redirect_stderr(io.StringIO()):
        prepare(params.model_copy(update=update), folder)
    return folder
