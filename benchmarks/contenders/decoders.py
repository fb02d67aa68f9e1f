"""Decode and resize photos from memory on all cores: the upper limit of `prepare`'s speed."""

from __future__ import annotations

import io
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
from contender import Link
from PIL import Image

Decoder = Callable[[bytes, int], npt.NDArray[np.uint8]]


def main() -> None:
    """Measure the decoder that the settings name."""
    link, settings = Link.open()
    try:
        decode = DECODERS[settings["contender"]]()
    except (ImportError, OSError, RuntimeError) as err:
        link.leave_out(f"cannot be used here: {err}".splitlines()[0])
        return
    with zipfile.ZipFile(settings["archive"]) as file:
        photos = [file.read(name) for name in file.namelist()]
    workers = settings["workers"]
    chunks = [photos[k::workers] for k in range(workers)]

    def work(chunk: list[bytes]) -> None:
        for photo in chunk:
            decode(photo, settings["size"])

    with ThreadPoolExecutor(workers) as pool:

        def measure() -> float:
            start, count = time.perf_counter(), 0
            while time.perf_counter() - start < settings["seconds"]:
                list(pool.map(work, chunks))
                count += len(photos)
            return count / (time.perf_counter() - start)

        link.serve(measure)


def square(pixels: npt.NDArray[np.uint8], size: int) -> npt.NDArray[np.uint8]:
    """Crop and resize with Pillow, the fastest of these libraries at antialiased resizing."""
    return crop(Image.fromarray(pixels), size)


def crop(image: Image.Image, size: int) -> npt.NDArray[np.uint8]:
    """Return the centre square at `size` pixels, computed as `prepare` does."""
    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    box = (left, top, left + side, top + side)
    return np.asarray(
        image.resize((size, size), Image.Resampling.BILINEAR, box=box, reducing_gap=2.0)
    )


def pillow() -> Decoder:
    """Return a decoder with Pillow's libjpeg-turbo, at a reduced DCT scale."""

    def decode(data: bytes, size: int) -> npt.NDArray[np.uint8]:
        with Image.open(io.BytesIO(data)) as image:
            width, height = image.size
            shorter = min(width, height)
            image.draft("RGB", (width * 2 * size // shorter, height * 2 * size // shorter))
            return crop(image.convert("RGB"), size)

    return decode


def torchvision() -> Decoder:
    """Return a decoder with torchvision's libjpeg, which decodes at full size only."""
    import torch
    from torchvision.io import ImageReadMode, decode_jpeg
    from torchvision.transforms.v2 import functional

    torch.set_num_threads(1)  # the pool already has one thread per core

    def decode(data: bytes, size: int) -> npt.NDArray[np.uint8]:
        image = decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), ImageReadMode.RGB)
        side = min(image.shape[1:])
        image = functional.resize(functional.center_crop(image, [side]), [size, size])
        array: npt.NDArray[np.uint8] = image.numpy()
        return array

    return decode


def simplejpeg() -> Decoder:
    """Return a decoder with simplejpeg's libjpeg-turbo, at a reduced DCT scale."""
    import simplejpeg

    def decode(data: bytes, size: int) -> npt.NDArray[np.uint8]:
        smallest = 2 * size  # least pixels of a decoded side, as in `prepare`
        pixels = simplejpeg.decode_jpeg(data, min_height=smallest, min_width=smallest)
        return square(pixels, size)

    return decode


def turbojpeg() -> Decoder:
    """Return a decoder with the system's libjpeg-turbo, at a reduced DCT scale."""
    from turbojpeg import TJPF_RGB, TurboJPEG

    turbo = TurboJPEG()

    def decode(data: bytes, size: int) -> npt.NDArray[np.uint8]:
        width, height, *_ = turbo.decode_header(data)
        # These are the scales for which libjpeg-turbo has SIMD code.
        scale = next((k for k in (8, 4, 2) if min(width, height) >= 2 * size * k), 1)
        pixels = turbo.decode(data, pixel_format=TJPF_RGB, scaling_factor=(1, scale))
        return square(pixels, size)

    return decode


DECODERS: dict[str, Callable[[], Any]] = {
    "Pillow": pillow,
    "torchvision": torchvision,
    "simplejpeg": simplejpeg,
    "PyTurboJPEG": turbojpeg,
}

if __name__ == "__main__":
    main()
