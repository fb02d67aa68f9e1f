"""Recognise a photo's format by its first bytes, and open it without decoding pixels."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable

from PIL.AvifImagePlugin import AvifImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.WebPImagePlugin import WebPImageFile
from pillow_heif import HeifImageFile

from fieldguide.prepare.bmp import open_bmp
from fieldguide.prepare.tiff import open_tiff

FORMATS = ("AVIF", "BMP", "GIF", "HEIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
_Open = Callable[[io.BytesIO], ImageFile]
_STARTS: tuple[tuple[bytes, _Open], ...] = (
    (b"\xff\xd8\xff", JpegImageFile),  # an MPO of a phone too: a JPEG, and a second image behind it
    (b"\x89PNG\r\n\x1a\n", PngImageFile),
    (b"GIF8", GifImageFile),
    (b"BM", open_bmp),
    (b"II", open_tiff),
    (b"MM", open_tiff),
    *((b"P%d" % number, PpmImageFile) for number in range(1, 7)),
)

# Pillow warns of odd metadata, which does not matter, and logs errors that it raises too; a program
# that wants the log still gets it. `catch_warnings` would not be safe in several threads.
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").addHandler(logging.NullHandler())


def open_photo(data: bytes) -> ImageFile:
    """Open a photo and read its header.

    The class of each format is used directly, not `PIL.Image.open`: `Image.open` compares the size
    with a limit that belongs to the whole program (`Image.MAX_IMAGE_PIXELS`).

    Raises:
        ValueError: the data has another format.
        Exception: what Pillow raises for a broken header.
    """
    open_file = next((open_file for start, open_file in _STARTS if data.startswith(start)), None)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        open_file = WebPImageFile
    elif data[4:8] == b"ftyp":
        open_file = _heif_or_avif(data)
    if open_file is None:
        raise ValueError("cannot identify image file")
    return open_file(io.BytesIO(data))


def _heif_or_avif(data: bytes) -> _Open:
    """Choose by the brands in the box `ftyp`: the major one, mif1 or msf1, may be that of both.

    Source: ISO/IEC 14496-12, section 4.3; ISO/IEC 23008-12, annex B.
    """
    major, end = data[8:12], min(int.from_bytes(data[:4]), 256)
    if major in (b"mif1", b"msf1"):
        brands = [data[at : at + 4] for at in range(16, end, 4)]
        found = [brand for brand in brands if brand[:3] in (b"avi", b"hei", b"hev")]
        major = found[0] if found else major
    return AvifImageFile if major in (b"avif", b"avis") else HeifImageFile
