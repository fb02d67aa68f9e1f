"""The fast path for plain JPEGs gives the pixels of Pillow, and Pillow decodes the rest."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from fieldguide.prepare import decode as decode_module
from fieldguide.prepare.decode import UnusablePhotoError, decode
from fieldguide.prepare.jpeg import decode_jpeg, is_streamed, plain_size

pytestmark = pytest.mark.filterwarnings("ignore")  # about odd metadata, as in `prepare`


def photo(width=90, height=70, mode="RGB", seed=0):
    grid = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    image = Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC)
    return image.convert(mode)


def encode(image, kind="JPEG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def outcome(data, size=16, **options):
    """Return the pixels, or the message of the refusal."""
    try:
        return decode(data, size, **{"resize": "crop", **options}).tolist()
    except UnusablePhotoError as err:
        return str(err)


@pytest.fixture
def by_pillow(monkeypatch):
    """`outcome` without the fast path."""

    def run(data, size=16, **options):
        with monkeypatch.context() as patch:
            patch.setattr(decode_module, "plain_size", lambda _: None)
            return outcome(data, size, **options)

    return run


class TestSameAsPillow:
    """Both ways give the same result."""

    @pytest.mark.parametrize("resize", ["crop", "squash"])
    @pytest.mark.parametrize(
        ("width", "height"),
        [(16, 16), (31, 33), (64, 64), (65, 129), (257, 190), (333, 801), (9, 200), (5, 7)],
    )
    def test_the_pixels_are_the_same_at_every_scale(self, width, height, resize, by_pillow):
        data = encode(photo(width, height), quality=90)
        assert plain_size(data) == (width, height)
        assert outcome(data, resize=resize) == by_pillow(data, resize=resize)

    @pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0", "4:1:1"])
    @pytest.mark.parametrize("options", [{"quality": 20}, {"restart_marker_rows": 1}])
    def test_the_pixels_are_the_same_for_all_encoder_options(self, options, subsampling, by_pillow):
        data = encode(photo(), subsampling=subsampling, comment=b"\xff\xda", **options)
        assert outcome(data) == by_pillow(data)

    def test_grey_becomes_the_same_rgb(self, by_pillow):
        data = encode(photo(mode="L"))
        assert plain_size(data) == (90, 70)
        assert outcome(data) == by_pillow(data)

    def test_a_jpeg_stored_as_rgb_gives_the_same_pixels(self, by_pillow):
        data = encode(photo(), keep_rgb=True)
        assert outcome(data) == by_pillow(data)

    def test_a_refusal_has_the_same_message(self, by_pillow):
        data = encode(photo())
        assert isinstance(outcome(data, min_size=71), str)
        assert outcome(data, min_size=71) == by_pillow(data, min_size=71)

    def test_a_file_cut_anywhere_has_the_same_outcome(self, by_pillow):
        data = encode(photo(40, 30), quality=60)
        refused = 0
        for end in [*range(0, len(data), 7), len(data) - 2, len(data) - 1]:
            found = outcome(data[:end])
            refused += isinstance(found, str)
            assert found == by_pillow(data[:end]), end
        assert refused > 100

    def test_any_damage_has_the_same_outcome(self, by_pillow):
        rng = np.random.default_rng(0)
        data = encode(photo(40, 30), quality=60)
        kinds = set()
        for _ in range(400):
            damaged = bytearray(data)
            damaged[rng.integers(2, len(data))] = rng.integers(256)
            found = outcome(bytes(damaged))
            kinds.add(type(found))
            assert found == by_pillow(bytes(damaged))
        assert kinds == {list, str}


def with_a_scan_for_each_component(data, side=None):
    """Rewrite a JPEG with one scan for each component, as some encoders do."""
    frame, scan = data.index(b"\xff\xc0"), data.index(b"\xff\xda")
    if side:
        data = data[: frame + 5] + struct.pack(">HH", side, side) + data[frame + 9 :]
    pixels = data[scan + 14 : -2]
    scans = [
        b"\xff\xda\0\x08\1" + data[at : at + 2] + b"\0\x3f\0" + pixels
        for at in range(scan + 5, scan + 11, 2)
    ]
    return data[:scan] + b"".join(scans) + b"\xff\xd9"


class TestHostile:
    """Headers that libjpeg, Pillow and this reader could understand differently."""

    @pytest.mark.parametrize("length", range(14))
    def test_a_short_jfif_header_is_left_to_pillow(self, length, by_pillow):
        data = encode(photo())
        start, end = data.index(b"JFIF"), data.index(b"\xff\xdb")
        short = data[:start][:-2] + struct.pack(">H", length + 2)
        short += data[start : start + length] + data[end:]
        assert plain_size(short) is None
        assert outcome(short) == by_pillow(short)

    def test_a_jpeg_with_a_scan_for_each_component_is_not_plain(self):
        """Decoding it holds all coefficients in memory, even if the file is cut short."""
        data = encode(photo(), subsampling="4:4:4")
        assert is_streamed(data)
        assert plain_size(data)
        apart = with_a_scan_for_each_component(data)
        assert not is_streamed(apart)
        assert plain_size(apart) is None
        assert isinstance(outcome(apart), list)

    def test_a_bomb_with_a_scan_for_each_component_is_refused(self):
        """A few thousand bytes claim 26 GB of coefficients."""
        data = with_a_scan_for_each_component(encode(photo(), subsampling="4:4:4"), side=65_500)
        with pytest.raises(UnusablePhotoError, match=r"too large: 65500×65500 .* of one scan"):
            decode(data, 16, resize="crop")

    @pytest.mark.parametrize("odd", [b"\xff", b"\0", b"\xff\x01", b"\xff\xd0"])
    def test_bytes_between_segments_are_left_to_pillow(self, odd, by_pillow):
        data = encode(photo())
        at = data.index(b"\xff\xdb")
        data = data[:at] + odd + data[at:]
        assert not is_streamed(data)
        assert plain_size(data) is None
        assert outcome(data) == by_pillow(data)

    @pytest.mark.parametrize(
        ("marker", "streamed"), [(0xC0, True), (0xC1, True), (0xC2, False), (0xC9, True)]
    )
    def test_only_a_sequential_jpeg_is_streamed(self, marker, streamed):
        data = encode(photo(), exif=b"Exif\0\0").replace(b"\xff\xc0", bytes([0xFF, marker]), 1)
        assert is_streamed(data) == streamed


class TestPlainSize:
    """Files that take the fast path."""

    def test_pillow_never_opens_a_plain_jpeg(self, monkeypatch):
        data = encode(photo())
        monkeypatch.setattr(decode_module, "open_photo", None)
        assert decode(data, 16, resize="crop").shape == (16, 16, 3)

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"\xff\xd8\xff",
            encode(photo(), "PNG"),
            encode(photo(), progressive=True),
            encode(photo(mode="CMYK")),
            encode(photo(), exif=b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0"),
            encode(photo(), icc_profile=b"profile"),
            encode(photo(), xmp=b'<x tiff:Orientation="6"/>'),
            encode(photo())[:100],
        ],
    )
    def test_another_file_does_not(self, data):
        assert plain_size(data) is None


@pytest.mark.parametrize("scale", [1, 2, 4, 8])
def test_sides_are_divided_and_rounded_up(scale):
    image = decode_jpeg(encode(photo(90, 70)), (90, 70), scale=scale)
    assert (image.mode, image.size) == ("RGBX", (-(-90 // scale), -(-70 // scale)))


def test_a_damaged_photo_is_left_to_pillow():
    assert decode_jpeg(encode(photo())[:-40], (90, 70), scale=1) is None
