"""The bytes of one picture to a small RGB square, whatever its format, mode or orientation."""

from __future__ import annotations

import io
import threading
from contextlib import nullcontext
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image

from fieldguide.prepare.jpeg import decode_jpeg, is_streamed, plain_header

# No EPS (which starts Ghostscript) and none of Pillow's rarely tested formats. A phone's MPO, a
# JPEG with a second picture behind it, is opened as JPEG.
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
# Pillow's own limit for a "decompression bomb" (2 × Image.MAX_IMAGE_PIXELS): 0.5 GB as RGB.
MAX_PIXELS = 178_956_970
# Beyond this, one picture at a time, so that memory does not grow with the number of cores.
LARGE_PIXELS = 16_000_000
_one_large = threading.Lock()
Box = tuple[float, float, float, float]  # left, top, right, bottom, in pixels
# EXIF 2.32, tag Orientation: what undoes each value.
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
    """The picture cannot be used; `reason` is one of dataset.json's and `detail` says more."""

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
    """Decode a picture, upright, as RGB, resized with antialiasing.

    A large JPEG is decoded at a reduced DCT scale (1/2, 1/4 or 1/8) of at least twice the wanted
    size, so that the result stays within rounding of a full decode. A plain JPEG goes through
    simplejpeg, all else through Pillow, with the same result. Transparent pixels become white.

    Args:
        data: a whole file of one of FORMATS.
        size: pixels of the square that is returned.
        resize: "crop" takes the centre square, "squash" the whole picture.
        min_size: pixels that the shorter side must have.
        max_pixels: that the whole picture may have; None for what memory allows.

    Returns:
        (size, size, 3), RGB.

    Raises:
        UnusablePhotoError: empty, broken, of another format, too small, or too large for memory.
    """
    if not data:
        raise UnusablePhotoError("unreadable", "the file is empty")
    square = _plain_square(data, size, resize, min_size=min_size, max_pixels=max_pixels)
    if square is not None:
        return square
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if min(image.size) < min_size:
                width, height = image.size
                raise UnusablePhotoError("too small", f"{width}×{height} pixels")
            if max_pixels is not None and image.width * image.height > max_pixels:
                raise UnusablePhotoError(
                    "too large", f"{image.width}×{image.height} pixels; allowed: {max_pixels:,}"
                )
            streamed = is_streamed(data)
            area = _reduce(image, size, streamed=streamed)
            large = _pixels_in_memory(image, streamed=streamed) > LARGE_PIXELS
            with _one_large if large else nullcontext():
                return _square(image, area, size, resize)
    except (UnusablePhotoError, MemoryError):
        raise
    # Damaged files make Pillow raise nearly anything: OSError, SyntaxError, ValueError, ...
    except Exception as err:
        detail = str(err).partition(" <_io")[0] or type(err).__name__
        raise UnusablePhotoError("unreadable", detail) from err


def _plain_square(
    data: bytes,
    size: int,
    resize: Literal["crop", "squash"],
    *,
    min_size: int,
    max_pixels: int | None,
) -> npt.NDArray[np.uint8] | None:
    """Decode the fast way; None for what is no plain JPEG, or may have to be refused."""
    header = plain_header(data)
    if header is None or min(header) < max(1, min_size):
        return None
    width, height = header
    wanted = _twice(width, height, size)
    # As Pillow's `draft` chooses.
    most = min(width // wanted[0], height // wanted[1])
    scale = next((scale for scale in (8, 4, 2) if most >= scale), 1)
    if width * height > min(max_pixels or MAX_PIXELS, LARGE_PIXELS * scale**2):
        return None
    image = decode_jpeg(data, header, scale=scale)
    if image is None:
        return None
    area = (0.0, 0.0, width / scale, height / scale)
    square = _resized(image, area, size, resize).tobytes("raw", "RGB")
    return np.frombuffer(square, np.uint8).reshape(size, size, 3)


def _twice(width: int, height: int, size: int) -> tuple[int, int]:
    """Width and height of at least twice the wanted size, which leaves antialiasing to `resize`.

    Pillow does so with reducing_gap=2.0.
    """
    shorter = min(width, height)
    return width * 2 * size // shorter, height * 2 * size // shorter


def _reduce(image: Image.Image, size: int, *, streamed: bool) -> Box:
    """Ask libjpeg for a smaller decode; return the area of it that holds the picture.

    Sides that the scale does not divide are decoded with a border of a fraction of a pixel.
    """
    width, height = image.size
    drafted = image.draft(None, _twice(width, height, size))
    if _pixels_in_memory(image, streamed=streamed) > MAX_PIXELS:
        raise UnusablePhotoError(
            "too large",
            f"{width}×{height} pixels do not fit into memory; allowed: {MAX_PIXELS:,} pixels, or "
            "any number in a baseline JPEG of one scan",
        )
    return drafted[1] if drafted else (0.0, 0.0, float(width), float(height))


def _pixels_in_memory(image: Image.Image, *, streamed: bool) -> int:
    """Pixels that decoding holds at once; a JPEG that is not streamed keeps all coefficients."""
    width, height = image.size
    scale = () if streamed else getattr(image, "decoderconfig", ())
    # decoderconfig = (scale, quality) once `draft` has reduced the size.
    return width * height * (scale[0] ** 2 if scale else 1)


def _square(
    image: Image.Image, area: Box, size: int, resize: Literal["crop", "squash"]
) -> npt.NDArray[np.uint8]:
    turn = _orientation(image)
    square = _resized(_to_rgb(image), area, size, resize)
    return np.asarray(square if turn is None else square.transpose(turn))


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
    """How to turn the picture upright, by its EXIF; nothing where that is damaged."""
    if image.format == "TIFF":
        return None  # Pillow turns these itself
    try:
        return _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # noqa: BLE001 - a good photo with odd metadata is a good photo
        return None


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I;16"):
        # Pillow's own conversion clips at 255 instead of scaling.
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        return _from_wide(np.asarray(image, dtype=np.float64))
    if "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _from_wide(values: npt.NDArray[np.float64]) -> Image.Image:
    """32-bit grey: the range is that of 16 or 8 bits or [0, 1] where values fit, else their own."""
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    if low >= 0 and 255 < high <= 65535:  # noqa: PLR2004
        low, high = 0.0, 65535.0
    elif low >= 0 and 1 < high <= 255:  # noqa: PLR2004
        low, high = 0.0, 255.0
    elif low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    scaled = np.nan_to_num((values - low) / max(high - low, 1e-12)) * 255
    return Image.fromarray(scaled.round().astype(np.uint8)).convert("RGB")
