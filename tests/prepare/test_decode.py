"""Any photo becomes an upright RGB square, or is refused with a reason."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from fieldguide.prepare.decode import UnusablePhotoError, decode

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
ORIENTATION = 0x112
pytestmark = pytest.mark.filterwarnings("ignore")  # about odd metadata, as in `prepare`
# How NumPy turns stored pixels upright (Exif 2.32, tag Orientation).
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, 1),
}


def encode(image, kind="PNG", **options):
    if not isinstance(image, Image.Image):
        image = Image.fromarray(np.asarray(image))
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def flat(color, mode, size=(8, 8)):
    return Image.new(mode, size, color)


def columns(*colors, width=10, height=20):
    """Vertical bars of colours: (height, bars × width, 3)."""
    bar = np.asarray(colors, dtype=np.uint8)
    return np.broadcast_to(bar.repeat(width, axis=0), (height, len(colors) * width, 3)).copy()


def color_of(data, **options):
    """Return the colour of a photo of one colour."""
    pixels = decode(data, 4, resize="crop", **options)
    assert pixels.shape == (4, 4, 3)
    assert pixels.dtype == np.uint8
    assert np.ptp(pixels.reshape(-1, 3), axis=0).max() <= 1
    return tuple(int(v) for v in pixels[0, 0])


def exif(*entries):
    """Return raw EXIF with entries (tag, type, count, four bytes)."""
    table = b"".join(struct.pack("<HHI4s", *entry) for entry in sorted(entries))
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + table + bytes(4)


class TestOrientation:
    """Photos are turned as a viewer shows them."""

    @pytest.mark.parametrize("orientation", UPRIGHT)
    @pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
    def test_each_orientation_is_made_upright(self, kind, orientation):
        stored = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        tags = Image.Exif()
        tags[ORIENTATION] = orientation
        options = {"lossless": True} if kind == "WEBP" else {}
        found = decode(encode(stored, kind, exif=tags, **options), 8, resize="crop")
        np.testing.assert_array_equal(found, UPRIGHT[orientation](stored))

    @pytest.mark.parametrize("orientation", UPRIGHT)
    def test_a_jpeg_that_is_decoded_smaller_is_made_upright(self, orientation):
        quarters = np.array([[RED, GREEN], [BLUE, WHITE]], dtype=np.uint8)
        stored = quarters.repeat(64, axis=0).repeat(96, axis=1)  # wider than high
        data = encode(stored, "JPEG", exif=exif((ORIENTATION, 3, 1, bytes([orientation, 0, 0, 0]))))
        corners = decode(data, 8, resize="squash")[::7, ::7].astype(int)
        assert abs(corners - UPRIGHT[orientation](quarters)).max() < 10

    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
    @pytest.mark.parametrize(
        "damaged",
        [
            b"Exif\0\0",
            b"Exif\0\0garbage!",
            b"Exif\0\0II*\0",
            b"Exif\0\0II*\0\xff\xff\xff\x7f",
            exif((ORIENTATION, 2, 4, b"abc\0")),
            exif((ORIENTATION, 3, 1, b"\x63\0\0\0")),  # 99
            exif((ORIENTATION, 3, 0, bytes(4))),
        ],
    )
    def test_damaged_exif_does_not_make_a_good_photo_unusable(self, damaged, kind):
        assert np.allclose(color_of(encode(flat(RED, "RGB"), kind, exif=damaged)), RED, atol=3)

    @pytest.mark.parametrize(
        "entry",
        [
            (0x11A, 2, 4, b"abc\0"),  # XResolution as text
            (0xA005, 2, 4, b"abc\0"),  # Interoperability as text
            (0x8769, 9, 1, b"\xff\xff\xff\xff"),  # Exif at -1
            (0x10F, 11, 1, bytes(4)),  # Make as a number
            (0x2BC, 3, 1, b"\xff\xff\0\0"),  # XMP as a number
        ],
    )
    def test_a_photo_with_odd_tags_is_made_upright(self, entry):
        stored = columns(RED, BLUE, width=16, height=32)
        data = encode(
            stored, "JPEG", quality=95, exif=exif((ORIENTATION, 3, 1, b"\6\0\0\0"), entry)
        )
        found = decode(data, 8, resize="crop").astype(int)
        assert abs(found[0] - RED).max() < 10  # left has become top
        assert abs(found[-1] - BLUE).max() < 10


class TestModes:
    """Every mode becomes RGB, transparent pixels white."""

    @pytest.mark.parametrize(
        ("image", "kind", "expected"),
        [
            (flat((10, 20, 30), "RGB"), "PNG", (10, 20, 30)),
            (flat((10, 20, 30), "RGB"), "BMP", (10, 20, 30)),
            (flat((10, 20, 30), "RGB"), "PPM", (10, 20, 30)),
            (flat((10, 20, 30), "RGB"), "TIFF", (10, 20, 30)),
            (flat(77, "L"), "PNG", (77, 77, 77)),
            (flat(77, "L"), "GIF", (77, 77, 77)),
            (flat(1, "1"), "PNG", (255, 255, 255)),
            (flat(0, "1"), "TIFF", (0, 0, 0)),
            (flat((0, 0), "LA"), "PNG", WHITE),
            (flat((90, 255), "LA"), "PNG", (90, 90, 90)),
            (flat((255, 0, 0, 0), "RGBA"), "PNG", WHITE),
            (flat((255, 0, 0, 0), "RGBA"), "TIFF", WHITE),
            (flat((255, 0, 0, 255), "RGBA"), "PNG", RED),
            # 102 / 255 = 0.4 of (0, 0, 255) over white: 0.6 × 255 = 153.
            (flat((0, 0, 255, 102), "RGBA"), "PNG", (153, 153, 255)),
        ],
    )
    def test_pixels_are_exact(self, image, kind, expected):
        assert color_of(encode(image, kind)) == expected

    @pytest.mark.parametrize("kind", ["PNG", "GIF"])
    def test_the_transparent_color_of_a_palette_is_white(self, kind):
        image = flat(0, "P")
        image.putpalette([*RED, *GREEN])
        assert color_of(encode(image, kind)) == RED
        assert color_of(encode(image, kind, transparency=0)) == WHITE

    def test_the_transparent_color_of_rgb_is_white(self):
        assert color_of(encode(flat(RED, "RGB"), transparency=RED)) == WHITE

    @pytest.mark.parametrize("color", [(0, 0, 0), WHITE, RED, GREEN, BLUE])
    def test_cmyk(self, color):
        ink = tuple(255 - v for v in color)
        data = encode(flat((*ink, 0), "CMYK"), "JPEG", quality=100)
        assert np.allclose(color_of(data), color, atol=4)

    @pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
    @pytest.mark.parametrize("grey", [0, 1, 100, 254, 255])
    def test_grey_of_16_bits_is_scaled_and_not_clipped(self, grey, kind):
        wide = np.full((8, 8), grey * 257, dtype=np.uint16)
        assert color_of(encode(wide, kind)) == (grey, grey, grey)

    @pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
    def test_the_first_of_several_photos_is_taken(self, kind):
        second = [flat(BLUE, "RGB")]
        data = encode(flat(RED, "RGB"), kind, save_all=True, append_images=second)
        assert np.allclose(color_of(data), RED, atol=3)


class TestShape:
    """Crop, squash and resizing."""

    def test_crop_takes_the_centre_square_and_squash_the_whole(self):
        wide = columns(RED, GREEN, GREEN, BLUE)  # 20 × 40
        assert np.all(decode(encode(wide), 20, resize="crop") == GREEN)
        squashed = decode(encode(wide), 20, resize="squash")
        assert tuple(squashed[10, 0]) == RED
        assert tuple(squashed[10, 10]) == GREEN
        assert tuple(squashed[10, -1]) == BLUE

    def test_a_high_photo_is_cropped_above_and_below(self):
        high = columns(RED, GREEN, GREEN, BLUE).swapaxes(0, 1)  # 40 × 20
        assert np.all(decode(encode(high), 20, resize="crop") == GREEN)

    def test_shrinking_averages(self):
        board = np.indices((64, 64)).sum(axis=0) % 2 * 255
        found = decode(encode(board.astype(np.uint8)), 8, resize="crop").astype(int)
        assert abs(found - 127.5).max() <= 1

    @pytest.mark.parametrize("shape", [(1, 1), (1, 50), (3, 7), (9, 8)])
    def test_a_small_or_narrow_photo_is_enlarged(self, shape):
        found = decode(encode(np.full(shape, 50, dtype=np.uint8)), 8, resize="crop")
        assert found.shape == (8, 8, 3)
        assert np.all(found == 50)

    @pytest.mark.parametrize("resize", ["crop", "squash"])
    @pytest.mark.parametrize("shape", [(600, 800), (801, 533)])
    @pytest.mark.parametrize("progressive", [False, True])
    def test_a_jpeg_decoded_small_is_close_to_a_full_decode(self, shape, resize, progressive):
        coarse = np.random.default_rng(0).integers(0, 256, (12, 12, 3), dtype=np.uint8)
        photo = Image.fromarray(coarse).resize(shape[::-1], Image.Resampling.BICUBIC)
        data = encode(photo, "JPEG", quality=90, progressive=progressive)
        full = Image.open(io.BytesIO(data)).convert("RGB")
        if resize == "crop":
            expected = ImageOps.fit(full, (32, 32), Image.Resampling.BILINEAR)
        else:
            expected = full.resize((32, 32), Image.Resampling.BILINEAR)
        difference = abs(decode(data, 32, resize=resize).astype(int) - np.asarray(expected))
        assert difference.mean() < 1
        assert difference.max() <= 8


def giant_jpeg(side, marker=b"\xff\xc0"):
    """Build a grey baseline JPEG of any size.

    With the standard tables, each block of 8 × 8 pixels is the bits 00 (same DC) and 1010 (end of
    block); four blocks are the bytes 28 A2 8A.
    """
    small = encode(flat(128, "L"), "JPEG")
    frame, scan = small.index(b"\xff\xc0"), small.index(b"\xff\xda")
    size = struct.pack(">HH", side, side)
    head = small[:frame] + marker + small[frame + 2 : frame + 5] + size + small[frame + 9 : scan]
    return head + small[scan : scan + 10] + b"\x28\xa2\x8a" * (side * side // 256) + b"\xff\xd9"


class TestSize:
    """Too small, and far too large."""

    def test_the_shorter_side_counts(self):
        assert color_of(encode(flat(9, "L", (16, 40))), min_size=16) == (9, 9, 9)
        with pytest.raises(UnusablePhotoError, match="too small: 15×40 pixels") as caught:
            color_of(encode(flat(9, "L", (15, 40))), min_size=16)
        assert (caught.value.reason, caught.value.detail) == ("too small", "15×40 pixels")

    @pytest.mark.parametrize("limit", [1, Image.MAX_IMAGE_PIXELS])
    def test_a_giant_baseline_jpeg_is_decoded_at_a_smaller_scale(self, limit, monkeypatch):
        """400 million pixels are more than MAX_PIXELS, so a full decode is not allowed.

        Pillow's own limit, which another part of the program may change, does not count.
        """
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        plain = giant_jpeg(20_000)
        turned = plain[:2] + b"\xff\xe1\0\x22" + exif((ORIENTATION, 3, 1, b"\6\0\0\0")) + plain[2:]
        for data in (plain, turned):
            assert color_of(data) == (128, 128, 128)

    def test_a_giant_progressive_jpeg_is_refused(self):
        with pytest.raises(UnusablePhotoError, match="20000×20000 pixels do not fit into memory"):
            color_of(giant_jpeg(20_000, marker=b"\xff\xc2"))

    def test_a_png_bomb_is_refused_before_it_is_unpacked(self):
        data = bytearray(encode(flat(0, "L")))
        struct.pack_into(">II", data, 16, 20_000, 20_000)
        struct.pack_into(">I", data, 29, zlib.crc32(data[12:29]))
        with pytest.raises(
            UnusablePhotoError,
            match=r"too large: 20000×20000 pixels do not fit into memory; allowed: 178,956,970",
        ):
            color_of(bytes(data))


class TestBroken:
    """A broken photo is unreadable, and the message says why."""

    @pytest.mark.parametrize(
        ("data", "detail"),
        [
            (b"", "the file is empty"),
            (b"not a photo", "cannot identify image file"),
            (b"\xff\xd8\xff", "."),
            (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "cannot identify image file"),
            (encode(columns(RED, BLUE), "JPEG")[:-40], "truncated"),
            (encode(columns(RED, BLUE), "GIF")[:-30], "."),
            (encode(columns(RED, BLUE), "BMP")[:-30], "truncated"),
            (encode(columns(RED, BLUE), "PNG")[:60], "."),
        ],
    )
    def test_a_broken_photo_is_unreadable(self, data, detail):
        with pytest.raises(UnusablePhotoError, match=f"unreadable: .*{detail}") as caught:
            decode(data, 8, resize="crop")
        assert caught.value.reason == "unreadable"
        assert " at 0x" not in caught.value.detail  # the same words in every run

    def test_damage_causes_no_other_error(self):
        rng = np.random.default_rng(0)
        stored = rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)
        for kind in ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP"):
            whole = encode(stored, kind)
            for _ in range(150):
                data = bytearray(whole)
                data[rng.integers(min(len(data), 200))] = rng.integers(256)
                try:
                    assert decode(bytes(data), 8, resize="crop").shape == (8, 8, 3)
                except UnusablePhotoError:
                    continue


class TestFit:
    """With "fit" a photo keeps its shape, for people to look at."""

    @pytest.mark.parametrize("kind", ["JPEG", "PNG"])
    @pytest.mark.parametrize(
        ("stored", "shape"), [((400, 100), (25, 100)), ((30, 40), (40, 30)), ((2000, 3), (1, 100))]
    )
    def test_the_longer_side_has_at_most_the_size(self, stored, shape, kind):
        found = decode(encode(flat(RED, "RGB", stored), kind), 100, resize="fit")
        assert found.shape == (*shape, 3)

    def test_it_is_upright(self):
        tags = Image.Exif()
        tags[ORIENTATION] = 6
        photo = encode(flat(RED, "RGB", (400, 100)), "JPEG", exif=tags)
        assert decode(photo, 100, resize="fit").shape == (100, 25, 3)
