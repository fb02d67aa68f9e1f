"""One small photo of every format and mode, to be damaged."""

import io

import numpy as np
import pillow_heif
from PIL import Image
from tiff_writer import DEFLATE, JPEG, LZW, NONE, PACKBITS, write_tiff

HEIGHT, WIDTH = 20, 27


def picture(height=HEIGHT, width=WIDTH, seed=0):
    """Return a smooth RGBA picture."""
    grid = np.random.default_rng(seed).integers(0, 256, (5, 5, 4), dtype=np.uint8)
    return Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC)


def encode(image, kind, **options):
    """Return the bytes of a file."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def heif(image, bits=8, **options):
    """Return a HEIC without loss; `bits` may be 8 or 10."""
    file = io.BytesIO()
    mode, pixels = image.mode, np.asarray(image)
    if bits > 8:
        mode, pixels = mode + ";16", pixels.astype(np.uint16) * 257
    options = {"quality": -1, "chroma": 444, **options}
    pillow_heif.encode(mode, image.size, pixels.tobytes(), file, **options)
    return file.getvalue()


def every_kind(seed=0):
    """Return the bytes of one photo of every format and mode, by name."""
    rgba = picture(seed=seed)
    rgb, grey, large = (
        rgba.convert("RGB"),
        rgba.convert("L"),
        picture(150, 200, seed).convert("RGB"),
    )
    palette = rgb.quantize(20)
    exif = Image.Exif()
    exif[0x112] = 6
    modes = {"1": grey.convert("1"), "L": grey, "P": palette, "RGB": rgb}
    with_alpha = {"LA": rgba.convert("LA"), "RGBA": rgba}
    found = {f"PNG {name}": encode(image, "PNG") for name, image in {**modes, **with_alpha}.items()}
    found |= {f"TIFF {name}": encode(image, "TIFF") for name, image in modes.items()}
    found |= {
        f"BMP {name}": encode(image, "BMP") for name, image in {**modes, "RGBA": rgba}.items()
    }
    found |= {f"PPM {name}": encode(modes[name], "PPM") for name in ("1", "L", "RGB")}
    found |= {
        "JPEG": encode(rgb, "JPEG"),
        "JPEG grey": encode(grey, "JPEG"),
        "JPEG CMYK": encode(rgb.convert("CMYK"), "JPEG"),
        "JPEG with EXIF": encode(rgb, "JPEG", exif=exif),
        "JPEG progressive": encode(rgb, "JPEG", progressive=True),
        "JPEG large": encode(large, "JPEG", exif=exif),
        "JPEG large progressive": encode(large, "JPEG", progressive=True),
        "JPEG large plain": encode(large, "JPEG", restart_marker_rows=2),
        "PNG transparent colour": encode(rgb, "PNG", transparency=(9, 9, 9)),
        "PNG transparent palette": encode(palette, "PNG", transparency=bytes(range(20))),
        "PNG 16-bit": encode(Image.fromarray(np.asarray(grey).astype(np.uint16) * 257), "PNG"),
        "PNG with EXIF": encode(rgb, "PNG", exif=exif),
        "PNG animated": encode(
            rgb, "PNG", save_all=True, append_images=[large.crop((0, 0, 27, 20))]
        ),
        "GIF": encode(palette, "GIF"),
        "GIF transparent": encode(palette, "GIF", transparency=3, interlace=1),
        "GIF animated": encode(palette, "GIF", save_all=True, append_images=[grey]),
        "PPM 16-bit": b"P5 27 20 65535 " + np.asarray(grey).astype(">u2").tobytes(),
        "PPM plain": b"P2 27 20 255 " + b" ".join(b"%d" % v for v in np.asarray(grey).ravel()),
        "PPM odd maximum": b"P6 27 20 200 " + np.asarray(rgb).tobytes(),
        "WEBP": encode(rgb, "WEBP"),
        "WEBP lossless": encode(rgba, "WEBP", lossless=True),
        "WEBP alpha": encode(rgba, "WEBP"),
        "WEBP animated": encode(rgb, "WEBP", save_all=True, append_images=[rgba], exif=exif),
        "AVIF": encode(rgb, "AVIF", speed=10),
        "AVIF alpha": encode(rgba, "AVIF", speed=10, exif=exif),
        "HEIF": heif(rgb, chroma=420),
        "HEIF grey": heif(grey),
        "HEIF alpha": heif(rgba),
        "HEIF 10-bit": heif(rgb, bits=10),
        "HEIF tiled": heif(large, tile_size=64),
    }
    grey, rgb, rgba = np.asarray(grey)[..., None], np.asarray(rgb), np.asarray(rgba)
    wide = rgb.astype(np.uint16) * 257
    tiffs = {
        "raw strips": (rgb, {"photometric": 2, "rows": 7}),
        "raw planes": (rgb, {"photometric": 2, "planar": 2}),
        "raw tiles": (rgb, {"photometric": 2, "tile": 16, "order": ">"}),
        "LZW": (rgb, {"photometric": 2, "compression": LZW, "predictor": 2}),
        "deflate alpha": (rgba, {"photometric": 2, "compression": DEFLATE, "extra": [2]}),
        "packbits": (grey, {"photometric": 0, "compression": PACKBITS, "fill_order": 2}),
        "JPEG": (rgb, {"photometric": 2, "compression": JPEG}),
        "16-bit": (wide, {"photometric": 2, "bits": 16, "compression": NONE, "big": True}),
        "16-bit grey": (wide[..., :1], {"bits": 16, "compression": LZW, "photometric": 0}),
        "float": ((grey / 255).astype("f4"), {"bits": 32, "sample_format": 3, "compression": LZW}),
        "CMYK": (rgba, {"photometric": 5, "compression": DEFLATE}),
        "turned": (rgb, {"photometric": 2, "tags": [(274, 3, [6])], "next_page": True}),
    }  # fmt: skip
    found |= {f"TIFF {name}": write_tiff(v, **options) for name, (v, options) in tiffs.items()}
    found["TIFF group 4"] = encode(modes["1"], "TIFF", compression="group4")
    return found
