"""Decode a chunk of photos: bytes in, pixels and hashes out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fieldguide.core.params import DataParams
from fieldguide.prepare.bursts import Taken, when_taken
from fieldguide.prepare.decode import UnusablePhotoError, decode
from fieldguide.prepare.looks import look_of


class Failure(NamedTuple):
    """Why a photo is left out."""

    reason: str  # one of `left_out.REASONS`
    detail: str
    other: int | None = None  # row of the photo that it equals or looks like


class Decoded(NamedTuple):
    """A photo that can be used."""

    pixels: npt.NDArray[np.uint8]  # (H, W, 3)
    digest: bytes  # SHA-256 of the source file
    look: npt.NDArray[np.uint8]  # (32, 32), see `looks.py`
    taken: Taken | None  # if `data.burst_seconds` needs it and the file says it


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
    taken = when_taken(photo) if params.burst_seconds > 0 else None
    digest = hashlib.sha256(photo).digest()
    return Decoded(np.ascontiguousarray(pixels), digest, look_of(pixels), taken)
