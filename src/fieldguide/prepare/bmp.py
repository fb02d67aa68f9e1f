"""Which BMPs Pillow decodes rightly; all others are refused."""

from __future__ import annotations

import io

from PIL.BmpImagePlugin import BmpImageFile


def open_bmp(file: io.BytesIO) -> BmpImageFile:
    """Open a BMP; refuse 16 bits with alpha, which Pillow ignores, and a short grey palette.

    For the palette Pillow assumes 1 or 8 bits a sample.

    Raises:
        ValueError: says what is not supported.

    Source: bV5BitCount in Microsoft's description of BITMAPV5HEADER, and in BITMAPCOREHEADER.
    """
    image = BmpImageFile(file)
    data = file.getbuffer()
    has_masks = data[30] == 3 and data[14] >= 56  # noqa: PLR2004 - from BITMAPV3INFOHEADER on
    if has_masks and data[28] == 16 and any(data[66:70]):  # noqa: PLR2004
        raise ValueError("BMP with 16-bit pixels and alpha: not supported; save it as 32-bit RGBA")
    at = 24 if data[14] == 12 else 28  # noqa: PLR2004 - BITMAPCOREHEADER has 12 bytes
    bits = int.from_bytes(data[at : at + 2], "little")
    assumed = {"1": 1, "L": 8}.get(image.mode, bits)
    if bits != assumed:
        raise ValueError(
            f"BMP with {bits}-bit samples and a short grey palette: not supported; "
            "save it as 24-bit RGB"
        )
    return image
