"""Speed of a training epoch of params.yaml's network, with crop, flip and colour jitter.

fieldguide's epoch is that of a real `train`: steps, validation on a hundredth of the photos (at
least one photo per class), metrics, and the checkpoint from which an interrupted training resumes.
The bare loop is forward, loss, backward and optimizer step on floats already in memory, without
augmentation, metrics or checkpoint. The other loops read the original photos from the disk.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from contender import ROOT, contenders, cores, peers_python
from photos import CLASSES, archive, prepared, unpack
from side_by_side import OURS, Row, fastest, in_turn

WORK = "training epoch"
BARE, ORIGINAL, FASTAI, TIMM = "bare loop", "original", "fastai", "timm"
# Pixels of the network's input -> width, height and number of the photos.
PHOTOS = {32: (32, 32, 2560), 64: (144, 144, 1024), 224: (500, 375, 128)}
BARE_BOUND, ORIGINAL_BOUND = 0.97, 2.0
ORIGINAL_SIZE = 32  # pixels; ORIGINAL_BOUND is a target at this size only
LIMIT = "convolutions and batch norm, as in the bare loop; then checkpoint, augmentation"


def rows(*, quick: bool) -> list[Row]:
    """Measure all loops at all sizes."""
    return [row for size in PHOTOS for row in compare(size, quick=quick)]


def compare(size: int, *, quick: bool) -> list[Row]:
    """Compare all loops at one size."""
    measured, left_out = measure(size, repeats=3 if quick else 7)
    name, unit = f"{WORK} at {size} pixels", "images/s"
    found = [
        Row(name, unit, measured, BARE, BARE_BOUND, at_least=True, limit=LIMIT, left_out=left_out)
    ]

    def pair(what: str, other: str, bound: float) -> Row:
        values = {one: measured[one] for one in (OURS, other)}
        return Row(f"{name}, {what}", unit, values, other, bound, at_least=True, limit=LIMIT)

    if size == ORIGINAL_SIZE:
        found.append(pair("the original recipe", ORIGINAL, ORIGINAL_BOUND))
    found.append(pair("the faster of fastai and timm", fastest(measured, (FASTAI, TIMM)), 1.0))
    return found


def measure(size: int, *, repeats: int) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Return the images per second of every loop, and why others are left out."""
    from fieldguide.core.params import load_params

    recipe = load_params(ROOT / "params.yaml").train
    width, height, images = PHOTOS[size]
    # The augmentation that all loops have, whatever params.yaml says.
    train: dict[str, Any] = {"accelerator": "cpu", "use_augmentation": True, "crop": "shift"}
    train |= {"start_size": 1.0, "train_on_val": False, "compile": False}
    off = ("random_erasing", "mixup", "cutmix", "ema_decay", "gradient_clipping")
    train |= dict.fromkeys(off, 0.0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        packed = archive(folder / "photos.zip", images, width=width, height=height)
        settings: dict[str, Any] = {
            "store": str(prepared(packed, folder / "store", size=size)),
            "photos": str(unpack(packed, folder / "photos")),
            "size": size,
            "images": images,
            "classes": CLASSES,
            "batch": recipe.batch_size,
            "jitter": recipe.color_jitter,
            "device": "cpu",
            "precision": "32",
            "compile": False,
            "workers": cores(),
            "train": train,
        }
        ours, peers = sys.executable, peers_python()
        wanted = {
            OURS: (ours, "ours", {**settings, "contender": "train"}),
            BARE: (ours, "loops", {**settings, "contender": BARE}),
            ORIGINAL: (peers, "loops", {**settings, "contender": ORIGINAL}),
            FASTAI: (peers, "loops", {**settings, "contender": FASTAI}),
            TIMM: (peers, "loops", {**settings, "contender": TIMM}),
        }
        with contenders(wanted) as (ways, left_out):
            return in_turn(ways, repeats), left_out
