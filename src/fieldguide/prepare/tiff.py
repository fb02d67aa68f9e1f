"""Which TIFFs Pillow decodes rightly; all others are refused."""

from __future__ import annotations

import ctypes
import io
from contextlib import suppress
from math import prod

from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

# Tags (TIFF 6.0, appendix A).
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 256, 257, 258, 259, 262
_FILL_ORDER, _STRIPS, _SAMPLES, _ROWS, _PLANAR = 266, 273, 277, 278, 284
_TILE_WIDTH, _TILE_HEIGHT, _TILES = 322, 323, 324
_COLORS, _INKS, _EXTRA, _FORMAT, _SUBSAMPLING = 320, 332, 338, 339, 530
_COEFFICIENTS, _REFERENCE = 529, 532
_RAW, _JPEG = 1, 7  # compressions
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK, _YCBCR = 0, 1, 2, 3, 5, 6
_NAMES = {4: "a mask", 8: "CIELab colours", 9: "ICCLab colours", 32803: "raw sensor data"}
_UINT, _FLOAT = 1, 3
# Bits of unsigned samples.
_ALLOWED_BITS = {
    _WHITE_IS_ZERO: (1, 2, 4, 8, 16),
    _BLACK_IS_ZERO: (1, 2, 4, 8, 12, 16),
    _RGB: (8, 16),
    _PALETTE: (1, 2, 4, 8),
    _CMYK: (8, 16),
    _YCBCR: (8,),
}

# libtiff prints an error of a broken file, which Pillow raises too. Its handler of errors is shared
# by the whole program; TIFFSetErrorHandler is part of libtiff's documented interface. Where it is
# not found (Pillow for Windows), the messages are printed. Checked with Pillow 13.0 for Linux.
with suppress(OSError, AttributeError):
    ctypes.CDLL(Image.core.__file__).TIFFSetErrorHandler(None)


def open_tiff(file: io.BytesIO) -> TiffImageFile:
    """Open a TIFF, and refuse what Pillow reads wrongly or what programs read differently.

    Raises:
        ValueError: says what is not supported.
    """
    try:
        image = TiffImageFile(file)
        problem = _problem(image)
    except SyntaxError as err:
        if str(err) not in ("unknown pixel mode", "unknown data organization"):
            raise
        problem = "samples in a layout that Pillow does not know"
    if problem:
        raise ValueError(f"TIFF with {problem}: not supported; save it as 8-bit RGB")
    return image


def is_inverted(image: TiffImageFile) -> bool:
    """Tell whether 0 is white; Pillow inverts only samples of up to 8 bits."""
    return bool(image.tag_v2.get(_PHOTOMETRIC) == _WHITE_IS_ZERO)


def sample_bits(image: TiffImageFile) -> int:
    """Return the bits of the first sample."""
    return int(_first(image, _BITS, 1))


def _problem(image: TiffImageFile) -> str | None:
    """Say what is not supported; None if Pillow's pixels are right.

    Each rule was found by comparing all combinations with ImageMagick and with arithmetic
    (tests/prepare/test_decode_tiff.py).
    """
    tags = image.tag_v2
    photometric, bits = tags.get(_PHOTOMETRIC), sample_bits(image)
    kind, compression = _first(image, _FORMAT, _UINT), tags.get(_COMPRESSION, _RAW)
    planes = tags.get(_PLANAR, 1) == 2  # noqa: PLR2004
    swapped = tags.prefix == b"MM" and compression != _RAW
    if photometric is None:
        return "no PhotometricInterpretation"
    if kind == _FLOAT:
        grey = photometric == _BLACK_IS_ZERO and tags.get(_SAMPLES, 1) == 1
        right = grey and bits == 32 and not swapped  # noqa: PLR2004
        return None if right else f"{bits}-bit floating-point samples in this layout"
    if kind != _UINT:
        return f"signed or undefined samples (SampleFormat {kind})"
    if bits not in _ALLOWED_BITS.get(photometric, ()):
        what = _NAMES.get(photometric, f"PhotometricInterpretation {photometric}")
        return what if photometric not in _ALLOWED_BITS else f"{bits}-bit samples in this layout"
    if bits == 16 and _first(image, _EXTRA, 0) == 1:  # noqa: PLR2004 - rounded twice, by up to 3
        return "16-bit samples multiplied by alpha"
    if planes and not _planes_are_right(image, photometric, bits, compression):
        return f"{bits}-bit samples in separate planes"
    return _color_problem(image, photometric, compression) or _missing(image)


def _planes_are_right(image: TiffImageFile, photometric: int, bits: int, compression: int) -> bool:
    """Tell whether Pillow puts separate planes together rightly."""
    extra = image.tag_v2.get(_EXTRA, ())
    if compression == _RAW and (
        bits != 8  # noqa: PLR2004
        or photometric == _WHITE_IS_ZERO
        or image.tag_v2.get(_FILL_ORDER, 1) != 1
        or extra not in ((), (2,))
    ):
        return False
    if any(extra):
        return photometric == _RGB
    return image.mode != "RGBA"  # a fourth sample of unknown meaning


def _color_problem(image: TiffImageFile, photometric: int, compression: int) -> str | None:
    """Say which tag of a colour space Pillow ignores."""
    tags = image.tag_v2
    if photometric == _CMYK and tags.get(_INKS, 1) != 1:
        return "inks other than CMYK"
    if photometric == _PALETTE and max(tags.get(_COLORS, (0,))) < 256:  # noqa: PLR2004
        return "a palette of 8-bit colours"
    if photometric == _YCBCR and compression != _JPEG:
        if tags.get(_SUBSAMPLING, (2, 2)) != (1, 1):
            return "subsampled YCbCr colours"
        if _COEFFICIENTS in tags or _REFERENCE in tags:
            return "its own YCbCr coefficients"
    return None


def _missing(image: TiffImageFile) -> str | None:
    """Say if there are fewer strips or tiles than the size needs; Pillow leaves those black."""
    tags = image.tag_v2
    width, height = tags[_WIDTH], tags[_HEIGHT]
    side = (width, tags.get(_ROWS, height))
    found = tags.get(_STRIPS)
    if found is None:
        found = tags.get(_TILES, ())
        side = (tags.get(_TILE_WIDTH, width), tags.get(_TILE_HEIGHT, height))
    needed = prod(-(-whole // part) for whole, part in zip((width, height), side, strict=True))
    if tags.get(_PLANAR, 1) == 2:  # noqa: PLR2004
        needed *= tags.get(_SAMPLES, 1)
    return None if len(found) >= needed else f"{len(found)} of {needed} strips or tiles"


def _first(image: TiffImageFile, tag: int, default: int) -> int:
    """Return the first value of a tag that has one value for each sample."""
    found = image.tag_v2.get(tag, default)
    return int(found[0] if isinstance(found, tuple) and found else found or default)
