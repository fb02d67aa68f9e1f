"""BMP, PPM, GIF, WebP, AVIF and HEIF of every mode give the right pixels or are refused."""

import struct

import numpy as np
import pytest
from corpus import encode, heif, picture
from PIL import Image, ImageOps

from fieldguide.prepare.decode import UnusablePhotoError, decode
from fieldguide.prepare.open_photo import open_photo

SIDE = 16
RGBA = picture(SIDE, SIDE)
PIXELS = np.asarray(RGBA).astype(float)
RGB = PIXELS[..., :3]
ON_WHITE = RGB * PIXELS[..., 3:] / 255 + 255 - PIXELS[..., 3:]
GREY = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE))


def found(data):
    return decode(data, SIDE, resize="crop").astype(float)


def refusal(data):
    with pytest.raises(UnusablePhotoError) as caught:
        found(data)
    assert caught.value.reason == "unreadable"
    return caught.value.detail


def bmp(rows, bits, *, palette=b"", masks=b"", compression=0, top_down=False, colors=0, header=40):
    """Write rows of bytes, the upper one first."""
    rows = [row + bytes(-len(row) % 4) for row in rows]
    body = b"".join(rows if top_down else rows[::-1])
    height = -SIDE if top_down else SIDE
    info = struct.pack("<IiiHHIIiiII", header, SIDE, height, 1, bits, compression, len(body), 0, 0,
                       colors, 0)  # fmt: skip
    info = (info + masks).ljust(header, b"\0")
    at = 14 + len(info) + len(palette)
    return b"BM" + struct.pack("<IHHI", at + len(body), 0, 0, at) + info + palette + body


def packed(values, bits):
    lines = values[..., None] >> np.arange(bits - 1, -1, -1) & 1
    return [np.packbits(line.ravel().astype(np.uint8)).tobytes() for line in lines]


@pytest.mark.parametrize("top_down", [False, True])
class TestBmp:
    """Bit counts from 1 to 32."""

    @pytest.mark.parametrize("bits", [1, 4, 8])
    @pytest.mark.parametrize("kind", ["colours", "grey", "inverted grey"])
    def test_palettes(self, bits, kind, top_down):
        top = 2**bits - 1
        ramp = np.arange(top + 1) * 255 // top
        palette = {
            "colours": np.random.default_rng(0).integers(0, 256, (top + 1, 3)),
            "grey": np.repeat(ramp[:, None], 3, axis=1),
            "inverted grey": np.repeat(255 - ramp[:, None], 3, axis=1),
        }[kind].astype(np.uint8)
        entries = b"".join(bytes(color[::-1]) + b"\0" for color in palette)
        values = GREY % (top + 1)
        data = bmp(packed(values, bits), bits, palette=entries, top_down=top_down)
        assert np.array_equal(found(data), palette[values])

    @pytest.mark.parametrize(("bits", "colors"), [(8, 2), (4, 2), (4, 16)])
    def test_a_short_grey_palette_is_refused(self, bits, colors, top_down):
        """Pillow takes it for 1 or 8 bits a sample."""
        steps = (0, 255) if colors == 2 else range(colors)
        entries = b"".join(bytes([step] * 3 + [0]) for step in steps)
        data = bmp(packed(GREY % colors, bits), bits, palette=entries, colors=colors,
                   top_down=top_down)  # fmt: skip
        assert refusal(data).startswith(f"BMP with {bits}-bit samples and a short grey palette")

    def test_rgb_and_alpha(self, top_down):
        rows = [row[:, ::-1].tobytes() for row in RGB.astype(np.uint8)]
        assert np.array_equal(found(bmp(rows, 24, top_down=top_down)), RGB)
        rows = [row[:, [2, 1, 0, 3]].tobytes() for row in PIXELS.astype(np.uint8)]
        assert np.array_equal(found(bmp(rows, 32, top_down=top_down)), RGB)
        masks = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
        data = bmp(rows, 32, masks=masks, compression=3, header=56, top_down=top_down)
        assert abs(found(data) - ON_WHITE).max() <= 1

    @pytest.mark.parametrize("green", [5, 6])
    def test_16_bits(self, green, top_down):
        values = np.random.default_rng(0).integers(0, 65536, (SIDE, SIDE))
        tops = (31, 2**green - 1, 31)
        shifts = (5 + green, 5, 0)
        parts = [values >> shift & top for shift, top in zip(shifts, tops, strict=True)]
        expected = np.stack([p * 255 / top for p, top in zip(parts, tops, strict=True)], axis=-1)
        masks = struct.pack("<4I", *(t << s for s, t in zip(shifts, tops, strict=True)), 0)
        rows = [row.astype("<u2").tobytes() for row in values]
        data = bmp(rows, 16, masks=masks, compression=3, header=56, top_down=top_down)
        assert abs(found(data) - expected).max() <= 1

    def test_16_bits_with_alpha_are_refused(self, top_down):
        """Pillow ignores the alpha."""
        masks = struct.pack("<4I", 0x7C00, 0x3E0, 0x1F, 0x8000)
        rows = [bytes(2 * SIDE)] * SIDE
        data = bmp(rows, 16, masks=masks, compression=3, header=56, top_down=top_down)
        assert refusal(data).startswith("BMP with 16-bit pixels and alpha")


class TestPpm:
    """PBM, PGM and PPM."""

    @pytest.mark.parametrize("top", [1, 15, 200, 255, 256, 4095, 65535])
    @pytest.mark.parametrize("kind", [2, 3, 5, 6])
    def test_each_maximum(self, kind, top):
        shape = (SIDE, SIDE, 3 if kind in (3, 6) else 1)
        for largest in (top, top // 5):  # a dark photo stays dark
            values = np.random.default_rng(0).integers(0, largest, shape, endpoint=True)
            body = values.astype(">u2" if top > 255 else "u1").tobytes()
            if kind in (2, 3):
                body = b" ".join(b"%d" % value for value in values.ravel())
            data = b"P%d\n# comment\n%d %d\n%d\n" % (kind, SIDE, SIDE, top) + body
            assert abs(found(data) - values * 255 / top).max() <= 1

    @pytest.mark.parametrize("kind", [1, 4])
    def test_bits(self, kind):
        bits = GREY % 2
        body = np.packbits(bits.astype(np.uint8), axis=1).tobytes()
        if kind == 1:
            body = b"\n".join(b" ".join(b"%d" % bit for bit in row) for row in bits)
        data = b"P%d %d %d\n" % (kind, SIDE, SIDE) + body
        assert np.array_equal(found(data)[..., 0], 255 - bits * 255)

    @pytest.mark.parametrize(
        "data", [b"Pf 1 1 -1.0\n\0\0\0\0", b"P7\nWIDTH 1\n", b"P0CMYK 1 1 9\n"]
    )
    def test_other_kinds_are_refused(self, data):
        assert refusal(data) == "cannot identify image file"


class TestGif:
    """The first frame, on the whole area."""

    def test_a_transparent_frame_beside_the_corner_is_on_white(self):
        image = Image.new("P", (SIDE, SIDE), 1)
        image.putpalette([9, 9, 9, 200, 80, 40])
        data = bytearray(encode(image, "GIF", transparency=0, optimize=False))
        at = data.index(b"\x2c\0\0\0\0")
        data[6:10] = struct.pack("<HH", 2 * SIDE, 2 * SIDE)
        data[at + 1 : at + 5] = struct.pack("<HH", SIDE, SIDE)
        expected = np.full((2 * SIDE, 2 * SIDE, 3), 255)
        expected[SIDE:, SIDE:] = (200, 80, 40)
        assert np.array_equal(decode(bytes(data), 2 * SIDE, resize="crop"), expected)


def test_webp_without_loss():
    rgb = RGBA.convert("RGB")
    assert np.array_equal(found(encode(rgb, "WEBP", lossless=True)), RGB)
    assert abs(found(encode(RGBA, "WEBP", lossless=True, exact=True)) - ON_WHITE).max() <= 1
    animated = encode(rgb, "WEBP", lossless=True, save_all=True, append_images=[RGBA])
    assert np.array_equal(found(animated), RGB)


class TestHeif:
    """HEIC by pillow-heif; without loss, YCbCr still rounds by up to 2."""

    @pytest.mark.parametrize("bits", [8, 10])
    @pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
    def test_the_pixels_are_right(self, mode, bits):
        expected = ON_WHITE if mode == "RGBA" else np.asarray(RGBA.convert(mode).convert("RGB"))
        assert abs(found(heif(RGBA.convert(mode), bits=bits)) - expected).max() <= 2

    def test_tiles_of_a_phone(self):
        large = picture(130, 200).convert("RGB")
        expected = decode(encode(large, "PNG"), SIDE, resize="crop").astype(int)
        data = heif(large, tile_size=64)
        assert data.count(b"hvc1") > 6
        assert abs(found(data) - expected).max() <= 3

    @pytest.mark.parametrize("turn", range(1, 9))
    def test_irot_and_exif_together_turn_once(self, turn):
        exif = Image.Exif()
        exif[0x112] = turn
        stored = RGBA.convert("RGB")
        stored.info["exif"] = exif.tobytes()
        data = heif(stored, exif=exif.tobytes())
        assert (turn > 1) == (b"irot" in data or b"imir" in data)
        expected = np.asarray(ImageOps.exif_transpose(stored)).astype(int)
        assert abs(found(data) - expected).max() <= 2

    def test_broken_exif_does_not_matter(self):
        data = heif(RGBA.convert("RGB"), exif=b"Exif\0\0II*\0\xff\xff\xff\x7f")
        assert abs(found(data) - RGB).max() <= 2

    def test_too_small_and_truncated(self):
        data = heif(RGBA.convert("RGB"))
        with pytest.raises(UnusablePhotoError, match="too small: 16×16 pixels"):
            decode(data, 8, resize="crop", min_size=17)
        for end in range(12, len(data), len(data) // 20):
            assert refusal(data[:end])

    def test_the_size_is_checked_before_pixels_are_decoded(self, monkeypatch):
        monkeypatch.setattr("fieldguide.prepare.decode.MAX_PIXELS", SIDE * SIDE - 1)
        with pytest.raises(UnusablePhotoError, match="too large: 16×16 pixels do not fit"):
            found(heif(RGBA.convert("RGB")))

    @pytest.mark.parametrize(
        ("brands", "format_"),
        [
            (b"heic\0\0\0\0mif1heic", "HEIF"),
            (b"mif1\0\0\0\0mif1heic", "HEIF"),
            (b"avif\0\0\0\0mif1avif", "AVIF"),
            (b"mif1\0\0\0\0mif1avif", "AVIF"),
        ],
    )
    def test_heif_and_avif_are_told_apart_by_their_brands(self, brands, format_):
        image = RGBA.convert("RGB")
        data = heif(image) if format_ == "HEIF" else encode(image, "AVIF")
        end = int.from_bytes(data[:4])
        data = struct.pack(">I", end) + b"ftyp" + brands.ljust(end - 8, b"\0") + data[end:]
        assert open_photo(data).format == format_


@pytest.mark.parametrize("turn", range(1, 9))
def test_avif_is_made_upright(turn):
    exif = Image.Exif()
    exif[0x112] = turn
    quarters = Image.fromarray(
        np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 255]]], np.uint8)
    ).resize((48, 32), Image.Resampling.NEAREST)
    quarters.info["exif"] = exif.tobytes()
    data = encode(quarters, "AVIF", quality=100, subsampling="4:4:4", exif=exif)
    expected = ImageOps.exif_transpose(quarters).resize((2, 2), Image.Resampling.NEAREST)
    corners = decode(data, SIDE, resize="squash")[::15, ::15].astype(int)
    assert abs(corners - np.asarray(expected)).max() <= 5


@pytest.mark.parametrize("precision", [12, 16])
def test_a_jpeg_of_more_than_8_bits_is_refused(precision):
    data = encode(RGBA.convert("RGB"), "JPEG", progressive=True)
    at = data.index(b"\xff\xc2") + 4
    assert f"{precision}-bit" in refusal(data[:at] + bytes([precision]) + data[at + 1 :])
