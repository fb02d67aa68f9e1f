"""What Pillow does not read rightly in a PNG: some transparent colours, and odd metadata."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from PIL.PngImagePlugin import PngImageFile

_SIGNATURE = 8  # bytes
_GREY, _RGB = 0, 2  # colour types (PNG, third edition, table 8)
# Keywords of texts that may hold a rotation.
_ROTATING = (b"XML:com.adobe.xmp\0", b"Raw profile type exif\0", b"Raw profile type APP1\0")


def mend_transparent_color(image: PngImageFile, data: bytes) -> None:
    """Give the transparent grey (chunk tRNS) the scale of the pixels that Pillow decodes.

    Pillow scales grey of 1, 2 and 4 bits to 8 bits, but not the transparent one.

    Raises:
        ValueError: indexed colours without a palette; or a transparent colour in 16-bit RGB, of
            which Pillow decodes only the upper 8 bits.

    Source: PNG, third edition, sections 11.2.2 and 11.3.1.1.
    """
    if image.mode == "P" and image.palette is None:
        raise ValueError("broken PNG file (no palette)")
    if "transparency" not in image.info:
        return
    bits, color_type = data[24], data[25]  # the header is always the first chunk
    if data[12:16] != b"IHDR" or (bits, color_type) == (16, _RGB):
        raise ValueError(
            "PNG with 16-bit RGB and a transparent colour: not supported; save it as 8-bit RGBA"
        )
    if color_type == _GREY:
        top = 2**bits - 1
        grey = image.info["transparency"] & top
        image.info["transparency"] = grey * 255 // top if bits < 8 else grey  # noqa: PLR2004


def without_metadata(data: bytes) -> Iterator[bytes]:
    """Drop the chunks of a PNG that a decoder may ignore: first all but a rotation, then all.

    Pillow refuses some odd ones: a text or colour profile above 1 MB, a short pHYs, ... What may
    hold transparency stays. A chunk with a wrong CRC stays too, so that Pillow refuses the damage.

    Yields:
        The file without them, for each of the two ways in which it is then shorter; nothing for a
        file of another format.

    Source: PNG, third edition, sections 5.3 and 5.4.
    """
    if not data.startswith(b"\x89PNG"):
        return
    length = len(data)
    for needed in (_ROTATING, ()):
        rest = data[:_SIGNATURE] + b"".join(_kept_chunks(data, needed))
        if len(rest) < length:
            yield rest
            length = len(rest)


def _kept_chunks(data: bytes, needed: tuple[bytes, ...]) -> Iterator[bytes]:
    at = _SIGNATURE
    while at < len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4])
        chunk = data[at:end]
        kind, value, crc = chunk[4:8], chunk[8:-4], int.from_bytes(chunk[-4:])
        ancillary = kind[:1].islower() and kind not in (b"tRNS", b"eXIf")
        if not ancillary or value.startswith(needed) or zlib.crc32(chunk[4:-4]) != crc:
            yield chunk
        at = end
