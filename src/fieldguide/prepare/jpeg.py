"""The fast path for plain JPEGs: read the header here, decode the pixels with simplejpeg.

simplejpeg calls libjpeg-turbo directly, without a file object and without copying the pixels. It
returns exactly the pixels that Pillow returns, because Pillow's wheels contain that library too.
"""

from __future__ import annotations

from collections.abc import Iterator

import simplejpeg
from PIL import Image

# Markers (ITU-T T.81 table B.1) that say nothing about the photo except how to decode it. Others,
# such as APP1 with EXIF, need Pillow, because they may hold a rotation or a colour profile.
_QUIET = frozenset({0xDB, 0xC4, 0xDD, 0xE0, 0xFE})  # DQT, DHT, DRI, APP0 (JFIF), COM
_MARKER = 0xFF  # the first of a marker's two bytes
_JFIF = 0xE0
_JFIF_BYTES = 14  # Pillow refuses a shorter one; libjpeg ignores it
_BASELINE = 0xC0
_SEQUENTIAL = frozenset({_BASELINE, 0xC1, 0xC9})  # baseline, extended, arithmetic
_START_OF_SCAN = 0xDA
_BARE = frozenset(range(0xD0, 0xDA))  # RST, SOI, EOI: no length follows
_COMPONENTS = (b"\1", b"\3")  # grey, YCC
_SMALLEST = 8  # pixels; on shorter sides several scales give the same size


def plain_size(data: bytes) -> tuple[int, int] | None:
    """Return width and height of a baseline JPEG, grey or in colour; None for any other file.

    Source: ITU-T T.81, B.1 and B.2.
    """
    if data[:2] != b"\xff\xd8":
        return None
    size, components = None, b""
    for marker, start, end in _segments(data):
        if marker == _START_OF_SCAN:
            return size if data[start : start + 1] == components else None
        if marker == _BASELINE:
            components = data[start + 5 : start + 6]
            if size or data[start : start + 1] != b"\x08" or components not in _COMPONENTS:
                return None
            height, width = (int.from_bytes(data[start + k : start + k + 2]) for k in (1, 3))
            size = (width, height)
        elif marker not in _QUIET or (marker == _JFIF and end - start < _JFIF_BYTES):
            return None
    return None


def is_streamed(data: bytes) -> bool:
    """Tell whether decoding a JPEG holds a few rows at a time, not all coefficients.

    True for a sequential JPEG with all components in one scan; False if that is unclear.
    """
    components = None
    for marker, start, _ in _segments(data):
        if marker in _SEQUENTIAL:
            components = data[start + 5 : start + 6]
        elif marker == _START_OF_SCAN:
            return data[start : start + 1] == components
    return False


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield marker, start and end of each segment, up to the first scan or anything unusual."""
    at = 2
    while at + 4 <= len(data) and data[at] == _MARKER:
        marker, end = data[at + 1], at + 2 + int.from_bytes(data[at + 2 : at + 4])
        if marker < _BASELINE or marker in _BARE:
            return
        yield marker, at + 4, end
        at = end


def decode_jpeg(data: bytes, size: tuple[int, int], *, scale: int) -> Image.Image | None:
    """Decode at a reduced size; None if the file is damaged, so that Pillow decides.

    Args:
        data: the whole file.
        size: width and height from `plain_size`.
        scale: 1, 2, 4 or 8; sides are divided by it and rounded up.

    Returns:
        An image of mode RGBX, the only colour mode that Pillow takes without a copy.
    """
    if min(size) < _SMALLEST:
        return None
    width, height = (-(-side // scale) for side in size)
    try:
        pixels = simplejpeg.decode_jpeg(data, "RGBX", min_width=width, min_height=height)
    except ValueError:
        return None
    if pixels.shape[:2] != (height, width):
        return None
    return Image.frombuffer("RGBX", (width, height), pixels, "raw", "RGBX", 0, 1)
