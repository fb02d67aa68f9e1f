"""The fast path for a plain JPEG: its header read here, its pixels decoded by simplejpeg.

simplejpeg is libjpeg-turbo without a detour: no file object, no copy of the pixels. It gives the
very pixels that Pillow gives, whose wheels bring that library too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import simplejpeg
from PIL import Image

# Markers (ITU-T T.81 table B.1) that say nothing about the picture beyond how to decode it. Others,
# such as APP1 with EXIF, need Pillow: a turn, a second picture, a colour profile.
_QUIET = frozenset({0xDB, 0xC4, 0xDD, 0xE0, 0xFE})  # DQT, DHT, DRI, APP0 (JFIF), COM
_MARKER = 0xFF  # the first of its two bytes
_JFIF = 0xE0
_JFIF_BYTES = 14  # at least; Pillow refuses a shorter one, libjpeg does not read it
_BASELINE = 0xC0
_SEQUENTIAL = frozenset({_BASELINE, 0xC1, 0xC9})  # baseline, extended, arithmetic
_START_OF_SCAN = 0xDA
_BARE = frozenset(range(0xD0, 0xDA))  # RST, SOI, EOI: no length behind them
_COMPONENTS = (b"\1", b"\3")  # grey, YCC
_SMALLEST = 8  # pixels; below it, several scales give the same size


class Header(NamedTuple):
    """Of a plain JPEG."""

    width: int  # pixels
    height: int


def plain_header(data: bytes) -> Header | None:
    """Read the header of a baseline JPEG, grey or in colour; None for any other file.

    Source: ITU-T T.81, B.1 and B.2.
    """
    if data[:2] != b"\xff\xd8":
        return None
    found, components = None, b""
    for marker, start, end in _segments(data):
        if marker == _START_OF_SCAN:
            return found if data[start : start + 1] == components else None
        if marker == _BASELINE:
            components = data[start + 5 : start + 6]
            if found or data[start : start + 1] != b"\x08" or components not in _COMPONENTS:
                return None
            height, width = (int.from_bytes(data[start + k : start + k + 2]) for k in (1, 3))
            found = Header(width, height)
        elif marker not in _QUIET or (marker == _JFIF and end - start < _JFIF_BYTES):
            return None
    return None


def is_streamed(data: bytes) -> bool:
    """Whether decoding a JPEG holds a few rows at a time, not all coefficients of the picture.

    It does where a sequential JPEG has all components in one scan; False for what is unclear.
    """
    components = None
    for marker, start, _ in _segments(data):
        if marker in _SEQUENTIAL:
            components = data[start + 5 : start + 6]
        elif marker == _START_OF_SCAN:
            return data[start : start + 1] == components
    return False


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, start and end of each segment's content, up to the first scan's or anything odd."""
    at = 2
    while at + 4 <= len(data) and data[at] == _MARKER:
        marker, end = data[at + 1], at + 2 + int.from_bytes(data[at + 2 : at + 4])
        if marker < _BASELINE or marker in _BARE:
            return
        yield marker, at + 4, end
        at = end


def decode_jpeg(data: bytes, header: Header, *, scale: int) -> Image.Image | None:
    """Decode at a reduced size; None where it is damaged, which Pillow then judges.

    Args:
        data: of a whole file.
        header: what `plain_header` found in it.
        scale: 1, 2, 4 or 8: by what the sides are divided, rounded up.

    Returns:
        A picture of mode RGBX, the only one that Pillow takes without a copy.
    """
    size = -(-header.width // scale), -(-header.height // scale)
    if min(header) < _SMALLEST:
        return None
    try:
        pixels = simplejpeg.decode_jpeg(data, "RGBX", min_width=size[0], min_height=size[1])
    except ValueError:
        return None
    if pixels.shape[1::-1] != size:
        return None
    return Image.frombuffer("RGBX", size, pixels, "raw", "RGBX", 0, 1)
