"""Damaged photos: refused where Pillow refuses them, and the pixels of a plain decode elsewhere.

Nothing may reach the terminal: neither a warning of Python nor what C libraries print.
"""

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from corpus import every_kind
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from pillow_heif import HeifImageFile

from fieldguide.prepare.decode import UnusablePhotoError, decode
from fieldguide.prepare.open_photo import FORMATS

PILLOW = [name for name in FORMATS if name != "HEIF"]
SIDE = 20
SMALL = 1_000_000  # pixels; a damaged header may claim any size
PHOTOS = every_kind()


@pytest.fixture(autouse=True, scope="module")
def without_pillow_s_limit():
    """`plain_load` may open a header that claims any size, as `decode` does for a JPEG."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image, "MAX_IMAGE_PIXELS", None)
        yield


def plain_load(data):
    """Load with Pillow or pillow-heif and nothing of ours; None if that fails."""
    try:
        if data[4:8] == b"ftyp" and data[8:11] != b"avi":
            image = HeifImageFile(io.BytesIO(data))
        else:
            image = Image.open(io.BytesIO(data), formats=PILLOW)
        if image.width * image.height > SMALL:
            return image
        image.load()
    except Exception:  # noqa: BLE001 - Pillow raises many types
        return None
    return image


def plain_pixels(image):
    """Convert to RGB, resize, turn upright; None for modes that Pillow does not convert."""
    if image.mode in ("I", "F", "La") or image.mode.startswith("I;16"):
        return None
    info = image.info
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    rgb = image.convert("RGB")
    square = rgb.resize((SIDE, SIDE), Image.Resampling.BILINEAR, reducing_gap=2.0)
    square.info = info  # with its EXIF
    try:
        return np.asarray(ImageOps.exif_transpose(square)).astype(int)
    except Exception:  # noqa: BLE001 - of damaged EXIF
        return np.asarray(square).astype(int)


def needed_chunks(png):
    """Drop intact chunks that say nothing about pixels."""
    kept, at = png[:8], 8
    while at < len(png):
        length = struct.unpack_from(">I", png, at)[0]
        kind, end = png[at + 4 : at + 8], at + 12 + length
        intact = zlib.crc32(png[at + 4 : end - 4]).to_bytes(4) == png[end - 4 : end]
        if kind[:1].isupper() or kind in (b"tRNS", b"eXIf") or not intact:
            kept += png[at:end]
        at = end
    return kept


@st.composite
def damaged(draw):
    """Cut a photo, or change up to three bytes; half of them are in the header."""
    name = draw(st.sampled_from(sorted(PHOTOS)))
    data = bytearray(PHOTOS[name])
    if draw(st.integers(0, 3)) == 0:
        return name, bytes(data[: draw(st.integers(1, len(data) - 1))])
    end = len(data) if draw(st.booleans()) else min(300, len(data))
    for _ in range(draw(st.integers(1, 3))):
        data[draw(st.integers(0, end - 1))] = draw(st.integers(0, 255))
    return name, bytes(data)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore:Image size")  # of `plain_load`
@settings(max_examples=4000, deadline=None, derandomize=True, database=None)
@given(damaged())
def test_damage_is_refused_or_harmless(photo):
    name, data = photo
    try:
        found = decode(data, SIDE, resize="squash").astype(int)
    except UnusablePhotoError:
        return
    image = plain_load(data)
    if image is None:
        assert name.startswith("PNG")  # Pillow refuses odd metadata, `decode` drops it
        image = plain_load(needed_chunks(data))
        assert image is not None
    if image.width * image.height > SMALL or "large" in name:  # decoded at another scale
        return
    expected = plain_pixels(image)
    if expected is not None:
        assert abs(found - expected).max() <= 2


@pytest.mark.parametrize("name", sorted(PHOTOS))
def test_each_whole_photo_is_read(name):
    image = plain_load(PHOTOS[name])
    found = decode(PHOTOS[name], SIDE, resize="squash").astype(int)
    expected = plain_pixels(image)
    if expected is not None:
        assert abs(found - expected).max() <= (8 if "large" in name else 1)


QUIET = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import numpy as np
from corpus import encode, every_kind
from PIL import Image
from fieldguide.prepare.decode import UnusablePhotoError, decode
from test_decode_tiff import SIGNED, combination
rng, refused = np.random.default_rng(0), 0
photos = list(every_kind().values()) + [combination(1, 8, SIGNED, ())[0]]
for photo in photos:
    for _ in range(40):
        data = bytearray(photo)
        for at in rng.integers(len(data), size=3):
            data[at] = rng.integers(256)
        for piece in (bytes(data), photo[: rng.integers(len(photo))]):
            try:
                decode(piece, 8, resize="crop")
            except UnusablePhotoError:
                refused += 1
assert refused > 2000, refused
large = encode(Image.new("1", (9500, 9500)), "TIFF", compression="group4")  # Pillow warns from 89
decode(large, 8, resize="crop")  # million pixels on
"""


def test_nothing_reaches_the_terminal():
    """In a process of its own, without pytest's filters; stderr is the file that C writes to."""
    done = subprocess.run(
        [sys.executable, "-c", QUIET], capture_output=True, text=True, check=True,
        env={"PYTHONPATH": ":".join(sys.path), "PYTHONWARNINGS": "default"},
    )  # fmt: skip
    assert done.stderr == ""
    assert done.stdout == ""
