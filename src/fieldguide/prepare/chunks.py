"""Decode a chunk of photos: bytes in, pixels and hashes out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fieldguide.core.params import DataParams
from fieldguide.prepare.decode import UnusablePhotoError, decode


class Failure(NamedTuple):
    """Why a photo cannot be used."""

    reason: str  # one of `left_out.REASONS`
    detail: str


class Decoded(NamedTuple):
    """A photo that can be used."""

    pixels: npt.NDArray[np.uint8]  # (H, W, 3)
    digest: bytes  # SHA-256 of the source file


Chunks = Iterator[tuple[list[int], Iterable[bytes | Failure]]]  # rows, and their photos
DecodedChunks = Iterator[tuple[list[int], list[Decoded | Failure]]]  # rows, and their results


def decode_chunk(photos: Iterable[bytes | Failure], params: DataParams) -> list[Decoded | Failure]:
    """Decode and hash each photo; one that could not be read stays a failure."""
    return [
        photo if isinstance(photo, Failure) else _decode_photo(photo, params) for photo in photos
    ]


def _decode_photo(photo: bytes, params: DataParams) -> Decoded | Failure:
    try:
        pixels = decode(photo, params.image_size, resize=params.resize, min_size=params.min_size)
    except UnusablePhotoError as err:
        return Failure(err.reason, err.detail)
    return Decoded(np.ascontiguousarray(pixels), hashlib.sha256(photo).digest())
