"""Every PNG gives the right pixels; odd metadata does not matter, damage does."""

import itertools
import struct
import zlib

import numpy as np
import pytest
from corpus import encode, picture
from PIL import Image

from fieldguide.prepare.decode import UnusablePhotoError, decode

SIDE = 16
GREY, RGB, INDEXED, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6
SAMPLES = {GREY: 1, RGB: 3, INDEXED: 1, GREY_ALPHA: 2, RGBA: 4}
BITS = {GREY: (1, 2, 4, 8, 16), RGB: (8, 16), INDEXED: (1, 2, 4, 8), GREY_ALPHA: (8, 16),
        RGBA: (8, 16)}  # fmt: skip
# Adam7: first row and column, and steps (PNG, third edition, section 8.1).
PASSES = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2),
          (1, 0, 2, 1)]  # fmt: skip


def chunk(kind, value):
    crc = zlib.crc32(kind + value)
    return struct.pack(">I", len(value)) + kind + value + struct.pack(">I", crc)


def write_png(samples, bits, color_type, *extra, interlace=False):
    """Write samples (H, W, samples per pixel); `extra` are chunks before the pixels."""
    height, width, _ = samples.shape
    passes = PASSES if interlace else [(0, 0, 1, 1)]
    pieces = [samples[y::down, x::right] for y, x, down, right in passes]
    rows = [b"\0" + row for piece in pieces if piece.size for row in pack(piece, bits)]
    head = struct.pack(">IIBBBBB", width, height, bits, color_type, 0, 0, interlace)
    chunks = [chunk(b"IHDR", head), *extra, chunk(b"IDAT", zlib.compress(b"".join(rows)))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks) + chunk(b"IEND", b"")


def pack(samples, bits):
    rows = samples.reshape(len(samples), -1)
    if bits >= 8:
        return [row.astype(f">u{bits // 8}").tobytes() for row in rows]
    lines = rows[..., None].astype(int) >> np.arange(bits - 1, -1, -1) & 1
    return [np.packbits(line.ravel().astype(np.uint8)).tobytes() for line in lines]


def case(bits, color_type, *, transparent):
    """Return samples, chunks, and the expected pixels on white."""
    rng, top = np.random.default_rng(bits), 2**bits - 1
    samples = rng.integers(0, top, (SIDE, SIDE, SAMPLES[color_type]), endpoint=True)
    samples[:4] = samples[0, 0]  # an area of one colour
    samples[4:6] = np.minimum(samples[0, 0] + 1, top)  # and one that is nearly the same
    color, alpha, chunks = samples / top, np.ones((SIDE, SIDE, 1)), []
    if color_type == INDEXED:
        palette = rng.integers(0, 256, (2**bits, 3)).astype(np.uint8)
        color, chunks = palette[samples[..., 0]] / 255, [chunk(b"PLTE", palette.tobytes())]
        if transparent:
            alphas = rng.integers(0, 256, top).astype(np.uint8)  # the last colour is opaque
            alpha = np.append(alphas, 255)[samples] / 255
            chunks.append(chunk(b"tRNS", alphas.tobytes()))
    elif color_type in (GREY_ALPHA, RGBA):
        color, alpha = color[..., :-1], color[..., -1:]
    elif transparent:
        alpha = 1.0 - (samples == samples[0, 0]).all(axis=-1, keepdims=True)
        chunks = [chunk(b"tRNS", samples[0, 0].astype(">u2").tobytes())]
    return samples, chunks, np.broadcast_to((color * alpha + 1 - alpha) * 255, (SIDE, SIDE, 3))


@pytest.mark.parametrize("interlace", [False, True])
@pytest.mark.parametrize("color_type", BITS)
def test_the_pixels_are_right(color_type, interlace):
    for bits, transparent in itertools.product(BITS[color_type], (False, True)):
        if (bits, color_type, transparent) == (16, RGB, True):
            continue
        samples, chunks, expected = case(bits, color_type, transparent=transparent)
        data = write_png(samples, bits, color_type, *chunks, interlace=interlace)
        assert abs(decode(data, SIDE, resize="crop") - expected).max() <= 2, (bits, transparent)


def test_a_transparent_color_of_16_bit_rgb_is_refused():
    samples, chunks, _ = case(16, RGB, transparent=True)
    with pytest.raises(UnusablePhotoError, match="16-bit RGB and a transparent colour: not supp"):
        decode(write_png(samples, 16, RGB, *chunks), SIDE, resize="crop")


def test_indexed_colors_without_a_palette_are_refused():
    samples, _, _ = case(8, INDEXED, transparent=False)
    with pytest.raises(UnusablePhotoError, match=r"unreadable: broken PNG file .no palette"):
        decode(write_png(samples, 8, INDEXED), SIDE, resize="crop")


LONG = zlib.compress(bytes(2_000_000))  # Pillow refuses more than 1 MB


@pytest.mark.parametrize(
    "odd",
    [
        (b"zTXt", b"workflow\0\0" + LONG),
        (b"iTXt", b"workflow\0\1\0\0\0" + LONG),
        (b"iCCP", b"icc\0\0" + LONG),
        (b"iCCP", b"icc\0\7unknown compression"),
        (b"pHYs", b"short"),
        (b"gAMA", b""),
        (b"acTL", b"short"),
    ],
    ids=lambda odd: odd[0].decode(),
)
def test_odd_metadata_does_not_matter(odd):
    samples, chunks, expected = case(8, GREY, transparent=True)
    data = write_png(samples, 8, GREY, chunk(*odd), *chunks)
    assert abs(decode(data, SIDE, resize="crop") - expected).max() <= 1
    assert abs(decode(data[:-12] + chunk(*odd), SIDE, resize="crop") - expected).max() <= 1
    bad = data.replace(odd[1] + chunk(*odd)[-4:], odd[1] + b"crc!")
    with pytest.raises(UnusablePhotoError, match="unreadable"):
        decode(bad, SIDE, resize="crop")


@pytest.mark.parametrize("where", ["eXIf", "XMP", "profile"])
def test_a_photo_with_odd_metadata_is_still_made_upright(where):
    exif = Image.Exif()
    exif[0x112] = 6
    hexadecimal = b"Exif\0\0" + exif.tobytes()
    note = {
        "eXIf": chunk(b"eXIf", exif.tobytes()[6:]),
        "XMP": chunk(b"iTXt", b'XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation="6"/>'),
        "profile": chunk(
            b"tEXt", b"Raw profile type exif\0\nexif\n  9\n" + hexadecimal.hex().encode() + b"\n"
        ),
    }[where]
    samples, _, expected = case(8, RGB, transparent=False)
    data = write_png(samples, 8, RGB, note, chunk(b"zTXt", b"workflow\0\0" + LONG))
    assert abs(decode(data, SIDE, resize="crop") - np.rot90(expected, -1)).max() <= 1


def test_a_damaged_png_is_unreadable():
    """Reading its EXIF loads it; the error of that must not be lost."""
    data = bytearray(encode(picture(96, 96).convert("RGB"), "PNG"))
    data[len(data) // 3] ^= 0x55
    with pytest.raises(UnusablePhotoError, match="unreadable"):
        decode(bytes(data), SIDE, resize="crop")
