"""The fast path for plain JPEGs gives what Pillow gives, and leaves it everything else."""

import io

import numpy as np
import pytest
from PIL import Image

from fieldguide.data import decode as decode_module
from fieldguide.data.decode import UnusablePhotoError, decode
from fieldguide.data.jpeg import Header, decode_jpeg, plain_header

pytestmark = pytest.mark.filterwarnings("ignore")  # of odd metadata, as in `prepare`


def photo(width=90, height=70, mode="RGB", seed=0):
    grid = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    image = Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC)
    return image.convert(mode)


def encode(image, kind="JPEG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def outcome(data, size=16, **options):
    """Pixels, or the words of the refusal."""
    try:
        return decode(data, size, **{"resize": "crop", **options}).tolist()
    except UnusablePhotoError as err:
        return str(err)


@pytest.fixture
def by_pillow(monkeypatch):
    """`outcome` without the fast path."""

    def run(data, size=16, **options):
        with monkeypatch.context() as patch:
            patch.setattr(decode_module, "plain_header", lambda _: None)
            return outcome(data, size, **options)

    return run


class TestSameAsPillow:
    """Whichever way a JPEG goes."""

    @pytest.mark.parametrize("resize", ["crop", "squash"])
    @pytest.mark.parametrize(
        ("width", "height"),
        [(16, 16), (31, 33), (64, 64), (65, 129), (257, 190), (333, 801), (9, 200), (5, 7)],
    )
    def test_the_pixels_are_the_same_at_every_scale(self, width, height, resize, by_pillow):
        data = encode(photo(width, height), quality=90)
        assert plain_header(data) == (width, height)
        assert outcome(data, resize=resize) == by_pillow(data, resize=resize)

    @pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0", "4:1:1"])
    @pytest.mark.parametrize("options", [{"quality": 20}, {"restart_marker_rows": 1}])
    def test_the_pixels_are_the_same_however_it_was_written(self, options, subsampling, by_pillow):
        data = encode(photo(), subsampling=subsampling, comment=b"\xff\xda", **options)
        assert outcome(data) == by_pillow(data)

    def test_grey_becomes_the_same_rgb(self, by_pillow):
        data = encode(photo(mode="L"))
        assert plain_header(data) == (90, 70)
        assert outcome(data) == by_pillow(data)

    def test_rgb_that_was_not_turned_into_ycc(self, by_pillow):
        data = encode(photo(), keep_rgb=True)
        assert outcome(data) == by_pillow(data)

    @pytest.mark.parametrize("options", [{"min_size": 71}, {"max_pixels": 90 * 70 - 1}])
    def test_what_is_refused_is_refused_in_the_same_words(self, options, by_pillow):
        data = encode(photo())
        assert isinstance(outcome(data, **options), str)
        assert outcome(data, **options) == by_pillow(data, **options)

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


class TestPlainHeader:
    """What takes the fast path."""

    def test_pillow_never_opens_a_plain_jpeg(self, monkeypatch):
        data = encode(photo())
        monkeypatch.setattr(Image, "open", None)
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
        assert plain_header(data) is None


@pytest.mark.parametrize("scale", [1, 2, 4, 8])
def test_sides_are_divided_and_rounded_up(scale):
    image = decode_jpeg(encode(photo(90, 70)), Header(90, 70), scale=scale)
    assert (image.mode, image.size) == ("RGBX", (-(-90 // scale), -(-70 // scale)))


def test_a_damaged_picture_is_left_to_pillow():
    assert decode_jpeg(encode(photo())[:-40], Header(90, 70), scale=1) is None
