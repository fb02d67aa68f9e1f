"""Which TIFFs Pillow decodes rightly; all others are refused.

The rules were found by comparing all combinations of tags with arithmetic on made samples and with
ImageMagick; tests/prepare/test_decode_tiff.py does it again. The numbers are those of TIFF 6.0.
"""
# ruff: noqa: PLR2004 - counts of bits, and values of tags beside their names

from __future__ import annotations

import ctypes
import io
from contextlib import suppress
from math import prod
from typing import NamedTuple

from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

# Tags (appendix A).
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER = 256, 257, 258, 259, 262, 266
_STRIPS, _SAMPLES, _ROWS, _PLANAR, _COLORS = 273, 277, 278, 284, 320
_TILE_WIDTH, _TILE_HEIGHT, _TILES, _INKS, _EXTRA, _FORMAT = 322, 323, 324, 332, 338, 339
_COEFFICIENTS, _SUBSAMPLING, _REFERENCE = 529, 530, 532
# Values of Compression, PhotometricInterpretation and SampleFormat.
_RAW, _JPEG = 1, 7
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK, _YCBCR = 0, 1, 2, 3, 5, 6
_UINT, _FLOAT = 1, 3
_RIGHT_BITS = {  # of unsigned samples
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
    ctypes.CDLL(Image.core.__file__).TIFFSetErrorHandler(None)  # type: ignore[attr-defined]


class _Layout(NamedTuple):
    """How samples are stored."""

    photometric: int | None
    kind: int  # SampleFormat of the first sample
    bits: int  # of the first sample
    compression: int
    extra: tuple[int, ...]  # 0: unknown, 1: alpha that colours are multiplied by, 2: alpha
    planes: bool  # each sample in a plane of its own


def open_tiff(file: io.BytesIO) -> TiffImageFile:
    """Open a TIFF, and refuse what Pillow reads wrongly or what programs read differently.

    Raises:
        ValueError: says what is not supported.
    """
    try:
        image = TiffImageFile(file)
    except SyntaxError as err:
        if str(err) not in ("unknown pixel mode", "unknown data organization"):
            raise
        raise ValueError(_not_supported("samples in a layout that Pillow does not know")) from err
    layout = _layout(image)
    problem = (
        _sample_problem(image, layout)
        or _plane_problem(image, layout)
        or _color_problem(image, layout)
        or _missing(image, layout)
    )
    if problem:
        raise ValueError(_not_supported(problem))
    return image


def is_inverted(image: TiffImageFile) -> bool:
    """Tell whether 0 is white; Pillow inverts only samples of up to 8 bits."""
    return _layout(image).photometric == _WHITE_IS_ZERO


def sample_bits(image: TiffImageFile) -> int:
    """Return the bits of the first sample."""
    return _layout(image).bits


def _not_supported(what: str) -> str:
    return f"TIFF with {what}: not supported; save it as 8-bit RGB"


def _layout(image: TiffImageFile) -> _Layout:
    tags = image.tag_v2
    return _Layout(
        photometric=tags.get(_PHOTOMETRIC),
        kind=tags.get(_FORMAT, (_UINT,))[0],
        bits=tags.get(_BITS, (1,))[0],
        compression=tags.get(_COMPRESSION, _RAW),
        extra=tags.get(_EXTRA, ()),
        planes=tags.get(_PLANAR, 1) == 2,
    )


def _sample_problem(image: TiffImageFile, layout: _Layout) -> str | None:
    """Name samples that Pillow scales wrongly, or whose range is unclear."""
    photometric, kind, bits, compression, extra, _ = layout
    if kind == _FLOAT:
        swapped = image.tag_v2.prefix == b"MM" and compression != _RAW
        right = image.mode == "F" and photometric == _BLACK_IS_ZERO and not swapped
        return None if right else f"{bits}-bit floating-point samples in this layout"
    if kind != _UINT:
        return f"signed or undefined samples (SampleFormat {kind})"
    if photometric not in _RIGHT_BITS:
        return "CIELab colours" if photometric == 8 else "no PhotometricInterpretation"
    if bits not in _RIGHT_BITS[photometric]:
        return f"{bits}-bit samples in this layout"
    if bits == 16 and 1 in extra:
        return "16-bit samples multiplied by alpha"  # rounded twice, by up to 3 of 255
    return None


def _plane_problem(image: TiffImageFile, layout: _Layout) -> str | None:
    """Name planes that Pillow puts together wrongly."""
    photometric, _, bits, compression, extra, planes = layout
    if not planes:
        return None
    right = photometric == _RGB if any(extra) else image.mode != "RGBA"  # a sample without meaning
    if compression == _RAW:
        right = right and bits == 8 and photometric != _WHITE_IS_ZERO and extra in ((), (2,))
        right = right and image.tag_v2.get(_FILL_ORDER, 1) == 1
    return None if right else f"{bits}-bit samples in separate planes"


def _color_problem(image: TiffImageFile, layout: _Layout) -> str | None:
    """Name a tag of the colours that Pillow ignores."""
    tags = image.tag_v2
    if layout.photometric == _CMYK and tags.get(_INKS, 1) != 1:
        return "inks other than CMYK"
    if layout.photometric == _PALETTE and max(tags[_COLORS]) < 256:
        return "a palette of 8-bit colours"
    if layout.photometric == _YCBCR and layout.compression != _JPEG:
        if tags.get(_SUBSAMPLING, (2, 2)) != (1, 1):
            return "subsampled YCbCr colours"
        if _COEFFICIENTS in tags or _REFERENCE in tags:
            return "its own YCbCr coefficients"
    return None


def _missing(image: TiffImageFile, layout: _Layout) -> str | None:
    """Say if there are fewer strips or tiles than the size needs; Pillow leaves those black."""
    tags = image.tag_v2
    width, height = tags[_WIDTH], tags[_HEIGHT]
    found, side = tags.get(_STRIPS), (width, tags.get(_ROWS, height))
    if found is None:
        found = tags.get(_TILES, ())
        side = (tags.get(_TILE_WIDTH, width), tags.get(_TILE_HEIGHT, height))
    needed = prod(-(-whole // part) for whole, part in zip((width, height), side, strict=True))
    if layout.planes:
        needed *= tags.get(_SAMPLES, 1)
    return None if len(found) >= needed else f"{len(found)} of {needed} strips or tiles"
