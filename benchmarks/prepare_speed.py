"""Speed of `prepare` compared with decoding and resizing alone, and its memory.

All use the same archive of drawn photos and all cores. `prepare` reads the archive from the disk,
hashes, finds copies, splits and writes the store. Each decoder reads the bytes from memory and
drops the pixels.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path

from contender import contenders, cores, peers_python
from photos import archive
from side_by_side import OURS, Row, fastest, in_turn

DECODERS = ("Pillow", "torchvision", "simplejpeg", "PyTurboJPEG")
SIZE = 64  # pixels of the store
# Photos as cameras' thumbnails and as Imagenette's small version: width, height, count.
PHOTOS = ((500, 375, 1000), (144, 144, 4000))
BOUND = 0.9
FLAT = 1.1  # most that memory may grow, as a factor, with four times as many photos
LIMIT = (
    "Pillow, which decodes every format, alone {alone:.2f} × {fastest}; then reading the zip, "
    "CRC-32 and SHA-256; writing pixels twice, because a photo's split is known only after all "
    "photos are decoded; and Python's lock between threads"
)


def rows(*, quick: bool) -> list[Row]:
    """Measure speed at two sizes, and memory."""
    repeats, seconds = (3, 1.5) if quick else (7, 4.0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found = [
            speed(folder, width, height, count, repeats=repeats, seconds=seconds)
            for width, height, count in PHOTOS
        ]
        return [*found, memory(folder, 1000 if quick else 5000)]


def speed(
    folder: Path, width: int, height: int, count: int, *, repeats: int, seconds: float
) -> Row:
    """Compare the images per second of `prepare` and of each decoder."""
    packed = archive(folder / f"{width}.zip", count, width=width, height=height)
    settings = {"archive": str(packed), "size": SIZE, "seconds": seconds, "workers": cores()}
    wanted = {OURS: (sys.executable, "ours", {**settings, "contender": "prepare"})}
    for decoder in DECODERS:
        wanted[decoder] = (peers_python(), "decoders", {**settings, "contender": decoder})
    with contenders(wanted) as (ways, left_out):
        measured = in_turn(ways, repeats)
    against = fastest(measured, measured.keys() - {OURS})
    alone = statistics.median(measured["Pillow"]) / statistics.median(measured[against])
    return Row(
        work=f"prepare, photos of {width}×{height} pixels to {SIZE}",
        unit="images/s",
        measured=measured,
        against=against,
        bound=BOUND,
        at_least=True,
        limit=LIMIT.format(alone=alone, fastest=against),
        left_out=left_out,
    )


def memory(folder: Path, count: int) -> Row:
    """Compare the peak memory of 4 × `count` photos with that of `count` photos."""
    wanted = {}
    for name, photos in ((OURS, 4 * count), (f"of {count:,} photos", count)):
        packed = archive(folder / f"{photos}-small.zip", photos, width=144, height=144)
        settings = {"contender": "prepare memory", "archive": str(packed), "size": SIZE}
        wanted[name] = (sys.executable, "ours", settings)
    with contenders(wanted, warm_up=False) as (ways, _):  # the peak is that of the whole process
        measured = in_turn(ways, 1)
    return Row(
        work=f"prepare, peak memory of {4 * count:,} photos",
        unit="MiB",
        measured=measured,
        against=f"of {count:,} photos",
        bound=FLAT,
        at_least=False,
        limit="names and hashes are kept in memory, pixels are not",
    )
