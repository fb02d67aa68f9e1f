"""Which BMPs Pillow decodes rightly; all others are refused."""

from __future__ import annotations

import io

from PIL.BmpImagePlugin import BmpImageFile


def open_bmp(file: io.BytesIO) -> BmpImageFile:
    """Open a BMP, and refuse a short grey palette, for which Pillow assumes 1 or 8 bits a sample.

    Raises:
        ValueError: says what is not supported.

    Source: bV5BitCount in Microsoft's description of BITMAPV5HEADER, and in BITMAPCOREHEADER.
    """
    image = BmpImageFile(file)
    data = file.getbuffer()
    at = 24 if data[14] == 12 else 28  # noqa: PLR2004 - BITMAPCOREHEADER has 12 bytes
    bits = int.from_bytes(data[at : at + 2], "little")
    assumed = {"1": 1, "L": 8}.get(image.mode, bits)
    if bits != assumed:
        raise ValueError(
            f"BMP with {bits}-bit samples and a short grey palette: not supported; "
            "save it as 24-bit RGB"
        )
    return image
