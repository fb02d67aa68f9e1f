"""Convert decoded pixels of any mode to RGB."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

_BAND_PIXELS = 1_000_000  # converted at a time, so that copies need little memory


def to_rgb(image: Image.Image, *, grey_bits: int = 16, invert: bool = False) -> Image.Image:
    """Convert a photo to RGB; transparent pixels become white.

    Args:
        image: loaded, of any mode.
        grey_bits: bits of a sample, if there are more than 8.
        invert: 0 is white, not black; only for grey of more than 8 bits.
    """
    wide = image.mode in ("I", "F") or image.mode.startswith("I;16")
    if not wide and not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    rgb = Image.new("RGB", image.size)
    rows = max(1, _BAND_PIXELS // image.width)
    for top in range(0, image.height, rows):
        band = image.crop((0, top, image.width, min(top + rows, image.height)))
        rgb.paste(_wide_grey(band, grey_bits, invert=invert) if wide else _on_white(band), (0, top))
    return rgb


def _on_white(image: Image.Image) -> Image.Image:
    """Put pixels with alpha on white."""
    if image.mode == "La":
        image = image.convert("LA")  # Pillow has no way from La to RGBA
    rgba = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


def _wide_grey(image: Image.Image, bits: int, *, invert: bool) -> Image.Image:
    """Convert integers from 0 to 2**bits - 1, or floats from 0 to 1, to 8 bits.

    Pillow's own conversion clips at 255 instead of scaling.
    """
    wide: npt.NDArray[Any] = np.asarray(image)
    if image.mode == "F":
        if not (wide.min() >= 0 and wide.max() <= 1):  # NaN too
            raise ValueError(
                f"floating-point samples from {wide.min():g} to {wide.max():g}: allowed: 0 to 1"
            )
        grey = (wide * 255).round().astype(np.uint8)
    else:
        grey = (wide >> (bits - 8)).astype(np.uint8)
    converted = Image.fromarray(255 - grey if invert else grey)
    if "transparency" in image.info:
        seen = wide != image.info["transparency"]
        converted.putalpha(Image.fromarray(seen.astype(np.uint8) * 255))
        return _on_white(converted)
    return converted
