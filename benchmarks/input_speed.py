"""Speed of loading batches with crop, flip and colour jitter, without training.

The photos on the disk have usual sizes: 32 pixels as in the bundled sample, 144 pixels as in
Imagenette's small version, and 500×375. `ImageFolder` and timm read these photos. A second
`ImageFolder`, LitData, WebDataset and FFCV read photos that were cropped and resized beforehand;
this is not timed, and neither is fieldguide's `prepare`.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from contender import contenders, cores, peers_python
from photos import archive, prepared, unpack
from side_by_side import OURS, Row, fastest, in_turn

FOLDER = "ImageFolder"
PEERS = (FOLDER, "ImageFolder, resized before", "timm", "LitData", "WebDataset", "FFCV")
BATCH, JITTER = 64, 0.1
WORK = f"augmented batches of {BATCH}"
# Pixels of the network's input -> width, height and number of the photos.
PHOTOS = {32: (32, 32, 2560), 64: (144, 144, 1280), 224: (500, 375, 384)}
BOUND = 5.0
LIMIT = "memory bandwidth: arithmetic on whole batches of floats"


def rows(*, quick: bool) -> list[Row]:
    """Measure all loaders at all sizes."""
    return [row for size in PHOTOS for row in compare(size, quick=quick)]


def compare(size: int, *, quick: bool) -> list[Row]:
    """Compare fieldguide at one size with `ImageFolder`, and with the fastest other loader."""
    width, height, count = PHOTOS[size]
    repeats, seconds = (3, 1.0) if quick else (7, 4.0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        packed = archive(folder / "photos.zip", count, width=width, height=height)
        settings: dict[str, Any] = {
            "store": str(prepared(packed, folder / "store", size=size)),
            "photos": str(unpack(packed, folder / "photos")),
            "work": name,
            "size": size,
            "batch": BATCH,
            "jitter": JITTER,
            "seconds": seconds,
            "device": "cpu",
            "workers": cores(),
        }
        settings["resized"] = str(unpack(packed, folder / "resized", size=size))
        wanted = {OURS: (sys.executable, "ours", {**settings, "contender": "batches"})}
        for peer in PEERS:
            if peer != "ImageFolder, resized before" or width != size:
                wanted[peer] = (peers_python(), "loaders", {**settings, "contender": peer})
        with contenders(wanted) as (ways, left_out):
            measured = in_turn(ways, repeats)
    best = fastest(measured, measured.keys() - {OURS})
    name = f"{WORK} at {size} pixels"
    ahead = {name: measured[name] for name in (OURS, best)}
    return [
        Row(
            name, "images/s", measured, FOLDER, BOUND, at_least=True, limit=LIMIT, left_out=left_out
        ),
        Row(f"{name}, the fastest other", "images/s", ahead, best, 1.0, at_least=True, limit=LIMIT),
    ]
