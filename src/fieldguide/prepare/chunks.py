"""What a worker does with its part of the photos: bytes in, pixels and hashes out."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from fieldguide.prepare.decode import UnusablePhotoError, decode


class Failure(NamedTuple):
    """Why a photo cannot be used."""

    reason: str  # "unreadable", "too small" or "too large"
    detail: str


class Wanted(NamedTuple):
    """How photos are decoded: knobs of params.yaml's `data`, described there."""

    size: int  # pixels
    resize: Literal["crop", "squash"]
    min_size: int  # pixels

    @property
    def nbytes(self) -> int:
        """Of one decoded photo."""
        return self.size**2 * 3


class Decoded(NamedTuple):
    """A part of the photos, decoded."""

    pixels: list[npt.NDArray[np.uint8]]  # (H, W, 3) of each that is no failure
    results: list[bytes | Failure]  # SHA-256, or why there is none, of each


def decode_part(photos: Iterable[bytes | Failure], wanted: Wanted) -> Decoded:
    """Decode and hash photos, each by itself; what could not be read stays a failure."""
    pixels: list[npt.NDArray[np.uint8]] = []
    results: list[bytes | Failure] = []
    for photo in photos:
        if isinstance(photo, Failure):
            results.append(photo)
            continue
        try:
            square = decode(photo, wanted.size, resize=wanted.resize, min_size=wanted.min_size)
        except UnusablePhotoError as err:
            results.append(Failure(err.reason, err.detail))
            continue
        pixels.append(np.ascontiguousarray(square))
        results.append(hashlib.sha256(photo).digest())
    return Decoded(pixels, results)


@contextmanager
def pillow_without_limit() -> Iterator[None]:
    """Pillow refuses by the size on paper; `decode` refuses by what decoding needs."""
    limit = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata; a broken picture is an error
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit
