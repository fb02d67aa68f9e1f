"""The fast path for a plain JPEG: its header read here, its pixels decoded by simplejpeg.

simplejpeg is libjpeg-turbo without a detour: no file object, no copy of the pixels. It gives the
very pixels that Pillow gives, which brings the same library.
"""

from __future__ import annotations

from typing import NamedTuple

import simplejpeg
from PIL import Image

# Markers (ITU-T T.81 table B.1) that say nothing about the picture beyond how to decode it. Others,
# such as APP1 with EXIF, need Pillow: a turn, a second picture, a colour profile.
_QUIET = frozenset({0xDB, 0xC4, 0xDD, 0xE0, 0xFE})  # DQT, DHT, DRI, APP0 (JFIF), COM
_MARKER = 0xFF  # the first of its two bytes
_BASELINE = 0xC0
_START_OF_SCAN = 0xDA
_GREY, _YCC = 1, 3  # components
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
    found = None
    at = 2
    while at + 4 <= len(data) and data[at] == _MARKER:
        marker = data[at + 1]
        if marker == _START_OF_SCAN:
            return found
        if marker == _BASELINE:
            if found is not None or data[at + 4 : at + 5] != b"\x08" or at + 10 > len(data):
                return None
            if data[at + 9] not in (_GREY, _YCC):
                return None
            height, width = data[at + 5] << 8 | data[at + 6], data[at + 7] << 8 | data[at + 8]
            found = Header(width, height)
        elif marker not in _QUIET:
            return None
        at += 2 + (data[at + 2] << 8 | data[at + 3])
    return None


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
