"""Convert decoded pixels of any mode to RGB."""

from __future__ import annotations

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
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    rows = max(1, _BAND_PIXELS // image.width)
    if rows >= image.height:
        return _converted(image, grey_bits, invert=invert)
    rgb = Image.new("RGB", image.size)
    for top in range(0, image.height, rows):
        band = image.crop((0, top, image.width, min(top + rows, image.height)))
        rgb.paste(_converted(band, grey_bits, invert=invert), (0, top))
    return rgb


def _converted(image: Image.Image, grey_bits: int, *, invert: bool) -> Image.Image:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _wide_grey(image, grey_bits, invert=invert)
    return _on_white(image)


def _on_white(image: Image.Image) -> Image.Image:
    """Convert 8-bit samples, and put pixels with alpha on white."""
    if image.mode == "La":
        image = image.convert("LA")  # Pillow has no way from La to RGBA
    if not image.has_transparency_data:
        return image.convert("RGB")
    rgba = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


def _wide_grey(image: Image.Image, bits: int, *, invert: bool) -> Image.Image:
    """Convert integers from 0 to 2**bits - 1, or floats from 0 to 1, to 8 bits.

    Pillow's own conversion clips at 255 instead of scaling.
    """
    wide: npt.NDArray[np.number] = np.asarray(image)
    if image.mode == "F":
        if not (wide.min() >= 0 and wide.max() <= 1):  # NaN too
            raise ValueError(
                f"floating-point samples from {wide.min():g} to {wide.max():g}: allowed: 0 to 1"
            )
        grey = (wide * 255).round().astype(np.uint8)
    else:
        grey = (wide >> (bits - 8)).astype(np.uint8)
        if invert:
            grey = 255 - grey
    converted = Image.fromarray(grey)
    if "transparency" in image.info:
        seen = wide != image.info["transparency"]
        converted.putalpha(Image.fromarray(seen.astype(np.uint8) * 255))
    return _on_white(converted)
