"""Decode a photo of any format, mode and orientation to a small RGB square."""

from __future__ import annotations

import threading
from contextlib import nullcontext, suppress
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from pillow_heif import HeifImageFile

from fieldguide.core.errors import first_line
from fieldguide.prepare.jpeg import decode_jpeg, is_streamed, plain_size
from fieldguide.prepare.left_out import TOO_LARGE, TOO_SMALL, UNREADABLE
from fieldguide.prepare.open_photo import open_photo
from fieldguide.prepare.png import mend_transparent_color, without_metadata
from fieldguide.prepare.tiff import is_inverted, sample_bits
from fieldguide.prepare.to_rgb import to_rgb

# Pillow's own limit for a "decompression bomb" (2 × Image.MAX_IMAGE_PIXELS). Decoding that many
# needs 0.7 to 1.5 GB in most formats and modes, 2.1 GB for AVIF and 2.9 GB for WebP.
MAX_PIXELS = 178_956_970
# Larger photos are decoded one at a time, so that memory does not grow with the number of cores.
LARGE_PIXELS = 16_000_000
_one_large = threading.Lock()
Resize = Literal["crop", "squash", "fit"]
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
    """The photo cannot be used; reason and detail are those in left_out.csv."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


def decode(data: bytes, size: int, *, resize: Resize, min_size: int = 1) -> npt.NDArray[np.uint8]:
    """Decode a photo as RGB, turn it upright, and resize it with antialiasing.

    A large JPEG is decoded at a reduced DCT scale (1/2, 1/4 or 1/8) of at least twice the final
    size, so the result differs from a full decode only by rounding. simplejpeg decodes plain JPEGs,
    pillow-heif HEIC photos and Pillow all others; for plain JPEGs, Pillow gives the same pixels.
    Transparent pixels become white.

    Args:
        data: a whole file in one of `open_photo.FORMATS`.
        size: pixels of a side of the result.
        resize: "crop" takes the centre square, "squash" the whole photo. "fit" keeps the photo's
            shape: its longer side gets `size` pixels, or fewer if the photo is smaller.
        min_size: smallest shorter side of the photo, in pixels.

    Returns:
        (H, W, 3), RGB; H and W are `size`, except for "fit".

    Raises:
        UnusablePhotoError: the photo is empty, broken, in another format or a layout that is not
            supported, too small or too large.
    """
    if not data:
        raise UnusablePhotoError(UNREADABLE, "the file is empty")
    plain = _decode_plain_jpeg(data, size, resize, min_size=min_size)
    if plain is not None:
        return plain
    try:
        return _decode_any(data, size, resize, min_size=min_size)
    except UnusablePhotoError as err:
        if err.reason == UNREADABLE:
            for lighter in without_metadata(data):
                with suppress(UnusablePhotoError):
                    return _decode_any(lighter, size, resize, min_size=min_size)
        raise


def _decode_any(data: bytes, size: int, resize: Resize, *, min_size: int) -> npt.NDArray[np.uint8]:
    """Decode any format; see `decode`."""
    try:
        with open_photo(data) as image:
            if min(image.size) < min_size:
                width, height = image.size
                raise UnusablePhotoError(TOO_SMALL, f"{width}×{height} pixels")
            area, pixels = _reduce(image, size, streamed=is_streamed(data))
            with _one_large if pixels > LARGE_PIXELS else nullcontext():
                image.load()
                rgb = _rgb(image, data)
                square = _resized(rgb, area or (0.0, 0.0, *rgb.size), size, resize)
            turn = _orientation(image)
            return np.asarray(square if turn is None else square.transpose(turn))
    except (UnusablePhotoError, MemoryError):
        raise
    # For damaged files Pillow raises many types: OSError, SyntaxError, ValueError, ...
    except Exception as err:
        detail = first_line(err).partition(" <_io")[0]
        if not isinstance(err, OSError | SyntaxError | ValueError):
            detail = f"damaged ({detail})"
        raise UnusablePhotoError(UNREADABLE, detail) from err


def _decode_plain_jpeg(
    data: bytes,
    size: int,
    resize: Resize,
    *,
    min_size: int,
) -> npt.NDArray[np.uint8] | None:
    """Decode the fast way; None if it is no plain JPEG, or `decode` may have to refuse it."""
    found = plain_size(data)
    if found is None or min(found) < max(1, min_size):
        return None
    width, height = found
    wanted = _twice(width, height, size)
    most = min(width // wanted[0], height // wanted[1])
    scale = next((scale for scale in (8, 4, 2) if most >= scale), 1)  # as Pillow's `draft` chooses
    if width * height > min(MAX_PIXELS, LARGE_PIXELS * scale**2):
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


def _reduce(image: ImageFile, size: int, *, streamed: bool) -> tuple[Box | None, int]:
    """Make libjpeg decode at a smaller scale, if the photo is a JPEG.

    Returns:
        The area that the photo then fills: if the scale does not divide a side, there is a border
        of less than a pixel; None for other formats. And the number of pixels that decoding holds
        in memory.
    """
    width, height = image.size
    drafted = None
    if isinstance(image, JpegImageFile):
        drafted = image.draft(None, _twice(width, height, size))
    # A JPEG that is not streamed keeps the coefficients of all its pixels.
    pixels = image.width * image.height if streamed else width * height
    if pixels > MAX_PIXELS:
        raise UnusablePhotoError(
            TOO_LARGE,
            f"{width}×{height} pixels do not fit into memory; allowed: {MAX_PIXELS:,} pixels, or "
            "any number in a baseline JPEG of one scan",
        )
    return drafted[1] if drafted else None, pixels


def _rgb(image: ImageFile, data: bytes) -> Image.Image:
    """Convert a loaded photo to RGB, with what only its own format knows."""
    if isinstance(image, TiffImageFile):
        return to_rgb(image, grey_bits=sample_bits(image), invert=is_inverted(image))
    if isinstance(image, PngImageFile):
        mend_transparent_color(image, data)
    return to_rgb(image)


def _resized(image: Image.Image, area: Box, size: int, resize: Resize) -> Image.Image:
    if resize == "crop":
        left, top, right, bottom = area
        side = min(right - left, bottom - top)
        left, top = (left + right - side) / 2, (top + bottom - side) / 2
        area = (left, top, left + side, top + side)
    if resize == "fit":
        left, top, right, bottom = area
        scale = min(1.0, size / max(right - left, bottom - top))
        shape = (max(1, round((right - left) * scale)), max(1, round((bottom - top) * scale)))
        return image.resize(shape, Image.Resampling.BILINEAR, box=area, reducing_gap=2.0)
    return image.resize((size, size), Image.Resampling.BILINEAR, box=area, reducing_gap=2.0)


def _orientation(image: ImageFile) -> Image.Transpose | None:
    """Return how to turn a loaded photo upright, from its EXIF; None if that is damaged.

    Reading the EXIF of a PNG loads its pixels, so an error of theirs must have been raised before.
    """
    if isinstance(image, TiffImageFile | HeifImageFile):
        return None  # these are turned when they are loaded
    try:
        return _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # noqa: BLE001 - odd metadata does not make a photo unusable
        return None
