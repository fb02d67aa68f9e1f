"""Every TIFF gives the right pixels or is refused with a telling reason.

The expected pixels come from arithmetic on made samples (TIFF 6.0, sections 3 to 5, 16, 18 and 21),
and for a few from ImageMagick.
"""

import itertools
import subprocess

import numpy as np
import pytest
from corpus import encode, picture
from servers import need
from tiff_writer import DEFLATE, JPEG, LZW, PACKBITS, write_tiff

from fieldguide.prepare.decode import UnusablePhotoError, decode

SIDE = 16
COLORS = {0: 1, 1: 1, 2: 3, 3: 1, 4: 1, 5: 4, 6: 3, 8: 3}  # samples of a colour, by photometric
UINT, SIGNED, FLOAT = 1, 2, 3
BITS = {UINT: (1, 2, 4, 8, 12, 16, 32, 64), SIGNED: (8, 16, 32), FLOAT: (16, 32, 64)}


def made(bits, count, kind=UINT, premultiplied=None):
    """Return samples, and the same as fractions of their range."""
    top = 1.0 if kind == FLOAT else 2**bits - 1
    samples = np.random.default_rng(bits).integers(
        0, 255 if kind == FLOAT else 2**bits - 1, (SIDE, SIDE, count), endpoint=True, dtype="u8"
    )
    if premultiplied is not None:  # no colour is more than its alpha
        samples[..., :premultiplied] = np.minimum(
            samples[..., :premultiplied], samples[..., premultiplied : premultiplied + 1]
        )
    if kind == FLOAT:
        return (samples / 255).astype(f"f{bits // 8}"), samples / 255
    if kind == SIGNED:
        samples >>= np.uint64(1)
    stored = {12: 16}.get(bits, max(8, bits))
    return samples.astype(f"{'ui'[kind - 1]}{stored // 8}"), samples / top


def expected(fractions, photometric, extra=(), palette=None):
    """Return the RGB pixels on white, from 0 to 255."""
    count = COLORS[photometric]
    color = fractions[..., :count]
    if photometric == 0:
        color = 1 - color
    elif photometric == 3:
        color = palette[(color[..., 0] * (len(palette) - 1)).round().astype(int)] / 65535
    elif photometric == 5:
        color = (1 - color[..., :3]) * (1 - color[..., 3:])
    elif photometric == 6:
        y, cb, cr = np.moveaxis(color * 255, -1, 0)
        red, blue = y + 1.402 * (cr - 128), y + 1.772 * (cb - 128)
        green = (y - 0.299 * red - 0.114 * blue) / 0.587
        color = np.stack([red, green, blue], axis=-1).clip(0, 255) / 255
    if extra and extra[0]:
        alpha = fractions[..., count : count + 1]
        color = (color if extra[0] == 1 else color * alpha) + 1 - alpha
    return np.broadcast_to(color * 255, (SIDE, SIDE, 3))


def outcome(data):
    """Return the pixels, or the reason of the refusal."""
    try:
        return decode(data, SIDE, resize="crop").astype(float)
    except UnusablePhotoError as err:
        return err.detail


def combination(photometric, bits, kind, extra, **options):
    """Return the bytes of a TIFF and its expected pixels; None if no arithmetic says them."""
    count, tags, palette = COLORS[photometric], [], None
    premultiplied = count if extra and extra[0] == 1 else None
    samples, fractions = made(bits, count + len(extra), kind, premultiplied)
    if photometric == 3:
        palette = np.random.default_rng(1).integers(0, 65536, (2**bits, 3))
        tags = [(320, 3, palette.T.ravel().tolist())]
    if photometric == 6:
        tags = [(530, 3, [1, 1])]
    data = write_tiff(
        samples, bits=bits, photometric=photometric, extra=extra or None, tags=tags,
        sample_format=None if kind == UINT else kind, **options,
    )  # fmt: skip
    known = kind != SIGNED and photometric != 8
    return data, expected(fractions, photometric, extra, palette) if known else None


@pytest.mark.parametrize("photometric", COLORS)
def test_each_combination_is_right_or_refused(photometric):
    layouts = [{}, {"rows": 5}, {"tile": 16}, {"fill_order": 2}, {"compression": DEFLATE}]
    layouts += [{"compression": PACKBITS, "rows": 5}, {"compression": LZW, "tile": 16}]
    layouts += [{"compression": DEFLATE, "fill_order": 2}]
    for kind, extra, planar, order, layout in itertools.product(
        BITS, [(), (0,), (1,), (2,), (0, 0), (2, 0)], (1, 2), "<>", layouts
    ):
        for bits in BITS[kind]:
            if photometric == 3 and bits > 8:
                continue
            options = {"planar": planar, "order": order, **layout}
            data, pixels = combination(photometric, bits, kind, extra, **options)
            found = outcome(data)
            if not isinstance(found, str):
                what = (bits, kind, extra, options)
                assert pixels is not None, what
                assert abs(found - pixels).max() <= 2, what


@pytest.mark.parametrize("layout", [{}, {"compression": LZW, "rows": 3}, {"tile": 16}])
@pytest.mark.parametrize(
    ("photometric", "bits", "kind", "extra"),
    [
        *((grey, bits, UINT, ()) for grey in (0, 1) for bits in (1, 2, 4, 8, 16)),
        (1, 12, UINT, ()),
        (1, 32, FLOAT, ()),
        *((1, 8, UINT, extra) for extra in [(0,), (1,), (2,)]),
        *((2, 8, UINT, extra) for extra in [(), (0,), (1,), (2,), (2, 0)]),
        *((2, 16, UINT, extra) for extra in [(), (0,), (2,)]),
        *((3, bits, UINT, ()) for bits in (1, 2, 4, 8)),
        (5, 8, UINT, ()),
        (5, 16, UINT, ()),
        (6, 8, UINT, ()),
    ],
)
def test_what_cameras_and_programs_write_is_read(photometric, bits, kind, extra, layout):
    data, pixels = combination(photometric, bits, kind, extra, **layout)
    assert abs(outcome(data) - pixels).max() <= 2


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(
    ("photometric", "options"),
    [
        (2, {"planar": 2}),
        (2, {"planar": 2, "compression": DEFLATE, "bits": 16}),
        (2, {"compression": DEFLATE, "predictor": 2, "bits": 16}),
        (1, {"compression": LZW, "predictor": 2, "tile": 32}),
        (1, {"next_page": True}),
        (0, {"fill_order": 2, "bits": 4}),
    ],
)
def test_layouts_of_either_byte_order_are_read(photometric, options, order):
    options = {"bits": 8, "order": order, **options}
    data, pixels = combination(photometric, kind=UINT, extra=(), **options)
    assert abs(outcome(data) - pixels).max() <= 2


def test_more_layouts_are_read():
    for options in ({"big": True}, {"big": True, "next_page": True}):
        data, pixels = combination(1, 16, UINT, (), **options)
        assert abs(outcome(data) - pixels).max() <= 1
    data, pixels = combination(1, 32, FLOAT, (), compression=DEFLATE, predictor=3)
    assert abs(outcome(data) - pixels).max() <= 1
    for photometric in (0, 1, 2):  # JPEG of noise loses up to 3
        data, pixels = combination(photometric, 8, UINT, (), compression=JPEG)
        assert abs(outcome(data) - pixels).max() <= 4


@pytest.mark.parametrize("compression", ["group3", "group4", "tiff_ccitt"])
@pytest.mark.parametrize("photometric", [0, 1])
def test_fax_compression(photometric, compression):
    page = picture(SIDE, SIDE).convert("1")
    data = encode(page, "TIFF", compression=compression, tiffinfo={262: photometric})
    stored = np.asarray(page.convert("RGB"))
    found = outcome(data)
    assert np.array_equal(found, stored)


@pytest.mark.parametrize("turn", range(1, 9))
def test_the_orientation_tag_turns_once(turn):
    data, pixels = combination(2, 8, UINT, ())
    samples = made(8, 3)[0]
    upright = {
        1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1), 6: lambda a: np.rot90(a, -1),
        7: lambda a: a[::-1, ::-1].swapaxes(0, 1), 8: lambda a: np.rot90(a, 1),
    }  # fmt: skip
    data = write_tiff(samples, photometric=2, tags=[(274, 3, [turn])])
    assert np.array_equal(outcome(data), upright[turn](pixels))


@pytest.mark.parametrize(
    ("detail", "photometric", "bits", "options"),
    [
        ("16-bit samples in separate planes", 2, 16, {"planar": 2}),
        ("signed or undefined samples (SampleFormat 2)", 1, 16, {"kind": SIGNED}),
        ("32-bit samples in this layout", 1, 32, {}),
        ("32-bit floating-point samples in this layout", 0, 32, {"kind": FLOAT}),
        ("CIELab colours", 8, 8, {}),
        ("samples in a layout that Pillow does not know", 4, 1, {}),
        ("samples in a layout that Pillow does not know", 1, 64, {"kind": FLOAT}),
        ("16-bit samples multiplied by alpha", 2, 16, {"extra": (1,)}),
        ("8-bit samples in separate planes", 1, 8, {"extra": (2,), "planar": 2}),
    ],
)
def test_a_refusal_says_what_is_not_supported(detail, photometric, bits, options):
    options = {"kind": UINT, "extra": (), **options}
    data, _ = combination(photometric, bits, **options)
    assert outcome(data) == f"TIFF with {detail}: not supported; save it as 8-bit RGB"


@pytest.mark.parametrize(
    ("detail", "photometric", "tag"),
    [
        ("inks other than CMYK", 5, (332, 3, [2])),
        ("a palette of 8-bit colours", 3, (320, 3, list(range(256)) * 3)),
        ("subsampled YCbCr colours", 6, (530, 3, [2, 2])),
        ("its own YCbCr coefficients", 6, (529, 5, [2125, 10000, 7154, 10000, 721, 10000])),
        ("1 of 8 strips or tiles", 1, (278, 4, [2])),
    ],
)
def test_tags_that_pillow_ignores_are_refused(detail, photometric, tag):
    samples, _ = made(8, COLORS[photometric])
    tags = [tag] if tag[0] != 529 else [tag, (530, 3, [1, 1])]
    found = outcome(write_tiff(samples, photometric=photometric, tags=tags))
    assert f"TIFF with {detail}: not supported" in found


@pytest.mark.parametrize("values", [(-0.1, 1), (0, 1.1), (0, np.nan), (0, 255)])
def test_floats_outside_0_to_1_are_refused(values):
    samples = np.zeros((SIDE, SIDE, 1), "f4")
    samples[0, :2, 0] = values
    found = outcome(write_tiff(samples, bits=32, sample_format=FLOAT))
    assert found.startswith("floating-point samples from ")
    assert found.endswith("allowed: 0 to 1")


@pytest.mark.parametrize("options", [{"bits": 16}, {"bits": 16, "compression": LZW, "order": ">"}])
@pytest.mark.parametrize(("photometric", "extra"), [(0, ()), (1, ()), (2, ()), (2, (2,)), (5, ())])
def test_imagemagick_sees_the_same(photometric, extra, options, tmp_path):
    if photometric == 0 and options.get("order"):
        options = {**options, "order": "<"}  # Pillow does not know the other one
    data, _ = combination(photometric, kind=UINT, extra=extra, **options)
    (tmp_path / "in.tif").write_bytes(data)
    command = [need("convert"), "in.tif[0]", "-background", "white"]
    command += ["-alpha", "remove", "-depth", "8", "rgb:-"]
    seen = subprocess.run(command, cwd=tmp_path, capture_output=True, check=True).stdout
    seen = np.frombuffer(seen, np.uint8).reshape(SIDE, SIDE, 3).astype(float)
    assert abs(outcome(data) - seen).max() <= 2
