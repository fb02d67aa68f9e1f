"""Decode a photo of any format, mode and orientation to a small RGB square."""

from __future__ import annotations

import io
import threading
from contextlib import nullcontext
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image

from fieldguide.prepare.jpeg import decode_jpeg, is_streamed, plain_size

# Without EPS, which starts Ghostscript, and without Pillow's rarely tested formats. An MPO of a
# phone, which is a JPEG followed by a second image, is opened as a JPEG.
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
# Pillow's own limit for a "decompression bomb" (2 × Image.MAX_IMAGE_PIXELS): 0.5 GB as RGB.
MAX_PIXELS = 178_956_970
# Larger photos are decoded one at a time, so that memory does not grow with the number of cores.
LARGE_PIXELS = 16_000_000
_one_large = threading.Lock()
Box = tuple[float, float, float, float]  # left, top, right, bottom, in pixels
# What turns each value of the tag Orientation upright (EXIF 2.32).
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class UnusablePhotoError(Exception):
    """The photo cannot be used; reason and detail are those in dataset.json."""

    def __init__(
        self, reason: Literal["unreadable", "too small", "too large"], detail: str
    ) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


def decode(
    data: bytes,
    size: int,
    *,
    resize: Literal["crop", "squash"],
    min_size: int = 1,
    max_pixels: int | None = None,
) -> npt.NDArray[np.uint8]:
    """Decode a photo as RGB, turn it upright, and resize it with antialiasing.

    A large JPEG is decoded at a reduced DCT scale (1/2, 1/4 or 1/8) of at least twice the final
    size, so the result differs from a full decode only by rounding. simplejpeg decodes plain JPEGs
    and Pillow all other photos; for plain JPEGs both give the same pixels. Transparent pixels
    become white.

    Args:
        data: a whole file in one of FORMATS.
        size: pixels of a side of the result.
        resize: "crop" takes the centre square, "squash" the whole photo.
        min_size: smallest shorter side of the photo, in pixels.
        max_pixels: largest number of pixels in the photo; None for the limit of memory.

    Returns:
        (size, size, 3), RGB.

    Raises:
        UnusablePhotoError: the photo is empty, broken, in another format, too small or too large.
    """
    if not data:
        raise UnusablePhotoError("unreadable", "the file is empty")
    plain = _decode_plain_jpeg(data, size, resize, min_size=min_size, max_pixels=max_pixels)
    if plain is not None:
        return plain
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if min(image.size) < min_size:
                width, height = image.size
                raise UnusablePhotoError("too small", f"{width}×{height} pixels")
            if max_pixels is not None and image.width * image.height > max_pixels:
                raise UnusablePhotoError(
                    "too large", f"{image.width}×{image.height} pixels; allowed: {max_pixels:,}"
                )
            area, pixels = _reduce(image, size, streamed=is_streamed(data))
            with _one_large if pixels > LARGE_PIXELS else nullcontext():
                turn = _orientation(image)
                square = _resized(_to_rgb(image), area, size, resize)
            return np.asarray(square if turn is None else square.transpose(turn))
    except (UnusablePhotoError, MemoryError):
        raise
    # For damaged files Pillow raises many types: OSError, SyntaxError, ValueError, ...
    except Exception as err:
        detail = str(err).partition(" <_io")[0] or type(err).__name__
        raise UnusablePhotoError("unreadable", detail) from err


def _decode_plain_jpeg(
    data: bytes,
    size: int,
    resize: Literal["crop", "squash"],
    *,
    min_size: int,
    max_pixels: int | None,
) -> npt.NDArray[np.uint8] | None:
    """Decode the fast way; None if it is no plain JPEG, or `decode` may have to refuse it."""
    found = plain_size(data)
    if found is None or min(found) < max(1, min_size):
        return None
    width, height = found
    wanted = _twice(width, height, size)
    most = min(width // wanted[0], height // wanted[1])
    scale = next((scale for scale in (8, 4, 2) if most >= scale), 1)  # as Pillow's `draft` chooses
    if width * height > min(max_pixels or MAX_PIXELS, LARGE_PIXELS * scale**2):
        return None
    image = decode_jpeg(data, found, scale=scale)
    if image is None:
        return None
    area = (0.0, 0.0, width / scale, height / scale)
    return np.asarray(_resized(image, area, size, resize).convert("RGB"))


def _twice(width: int, height: int, size: int) -> tuple[int, int]:
    """Return a width and height of twice the final size, so that `resize` can antialias.

    Pillow does the same for reducing_gap=2.0.
    """
    shorter = min(width, height)
    return width * 2 * size // shorter, height * 2 * size // shorter


def _reduce(image: Image.Image, size: int, *, streamed: bool) -> tuple[Box, int]:
    """Make libjpeg decode at a smaller scale, if the photo is a JPEG.

    Returns:
        The area that the photo then fills: if the scale does not divide a side, there is a border
        of less than a pixel. And the number of pixels that decoding holds in memory.
    """
    width, height = image.size
    drafted = image.draft(None, _twice(width, height, size))
    area = drafted[1] if drafted else (0.0, 0.0, float(width), float(height))
    # A JPEG that is not streamed keeps the coefficients of all its pixels.
    pixels = image.width * image.height if streamed else width * height
    if pixels > MAX_PIXELS:
        raise UnusablePhotoError(
            "too large",
            f"{width}×{height} pixels do not fit into memory; allowed: {MAX_PIXELS:,} pixels, or "
            "any number in a baseline JPEG of one scan",
        )
    return area, pixels


def _resized(
    image: Image.Image, area: Box, size: int, resize: Literal["crop", "squash"]
) -> Image.Image:
    if resize == "crop":
        left, top, right, bottom = area
        side = min(right - left, bottom - top)
        left, top = (left + right - side) / 2, (top + bottom - side) / 2
        area = (left, top, left + side, top + side)
    return image.resize((size, size), Image.Resampling.BILINEAR, box=area, reducing_gap=2.0)


def _orientation(image: Image.Image) -> Image.Transpose | None:
    """Return how to turn the photo upright, from its EXIF; None if that is damaged."""
    if image.format == "TIFF":
        return None  # Pillow turns a TIFF itself
    try:
        return _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # noqa: BLE001 - odd metadata does not make a photo unusable
        return None


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I;16"):
        # Pillow's conversion clips at 255 instead of scaling.
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        return _from_wide(np.asarray(image, dtype=np.float64))
    if "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _from_wide(values: npt.NDArray[np.float64]) -> Image.Image:
    """Convert 32-bit grey: the range is [0, 1], 8 bits or 16 bits if values fit, else their own."""
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    ranges = [top for top in (1.0, 255.0, 65535.0) if low >= 0 and high <= top]
    if ranges:
        low, high = 0.0, ranges[0]
    scaled = np.nan_to_num((values - low) / max(high - low, 1e-12)) * 255
    return Image.fromarray(scaled.round().astype(np.uint8)).convert("RGB")
