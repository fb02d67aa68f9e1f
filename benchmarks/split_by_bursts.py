"""Test accuracy of a random split and of splits by groups, on a made collection of bursts.

    python benchmarks/split_by_bursts.py            # minutes, on one core
    python benchmarks/split_by_bursts.py --table    # print the table of docs/splits.md

All frames of a burst have the same background, which tells the burst, and so the class, without
a look at the object: a small shape of the class, in another place of each frame. For each way to
split and each seed (of the split and of the training) the recipe of params.yaml is trained. The
classifier is tested on its own test split, and on bursts that no split has seen.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import statistics
import tempfile
import zipfile
from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from contender import ROOT
from photos import prepared
from PIL import ExifTags, Image, ImageDraw
from recipe import add_row, read_rows

ROWS = Path(__file__).with_suffix(".jsonl")
SHAPES = ("bars", "cross", "disc", "ring", "triangle")  # the classes
PIXELS = 32
OBJECT = 12  # pixels of a shape's side
NOISE = 18  # standard deviation of each frame's own noise, in grey levels
PATTERN = r"^(.*)_\d+\.jpg"
WAYS: dict[str, dict[str, Any]] = {
    "random": {"near_copies": False},
    "near-copies": {"near_copies": True},
    "group": {"near_copies": False, "group": PATTERN},
    "burst_seconds": {"near_copies": False, "burst_seconds": 5},
}
SHOWN = {
    "random": "at random (`near_copies: false`)",
    "near-copies": "`near_copies: true`, the default",
    "group": f"`group: '{PATTERN}'`",
    "burst_seconds": "`burst_seconds: 5`",
}


def write_bursts(path: Path, *, bursts: int, frames: int, seed: int) -> Path:
    """Write a zip of <class>/<burst>_<frame>.jpg.

    Args:
        path: of the zip.
        bursts: of each class.
        frames: of each burst, one second apart; bursts are an hour apart.
        seed: of all pixels; two seeds have no burst in common.
    """
    rng = np.random.default_rng(seed)
    start = datetime(2020 + seed, 1, 1)  # noqa: DTZ001 - EXIF has no time zone
    with zipfile.ZipFile(path, "w") as target:
        for burst in range(bursts):
            for place, shape in enumerate(SHAPES):
                background = _background(rng)
                color = rng.uniform(160, 250, 3)
                begin = start + timedelta(hours=burst * len(SHAPES) + place)
                for frame in range(frames):
                    pixels = background + _object(shape, color, background, rng)
                    pixels += rng.normal(0, NOISE, pixels.shape)
                    name = f"{shape}/{burst:02d}_{frame:02d}.jpg"
                    photo = _jpeg(pixels, begin + timedelta(seconds=frame))
                    target.writestr(zipfile.ZipInfo(name), photo)  # without today's time
    return path


def _background(rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Return (PIXELS, PIXELS, 3): coarse and fine texture around one colour."""
    color = rng.uniform(60, 150, 3)
    coarse = _texture(rng, PIXELS // 8, 25)
    return np.asarray(color + coarse + _texture(rng, PIXELS // 2, 18))


def _texture(rng: np.random.Generator, cells: int, std: float) -> npt.NDArray[np.float64]:
    grey = Image.fromarray(rng.normal(0, std, (cells, cells)).astype(np.float32))
    scaled = grey.resize((PIXELS, PIXELS), Image.Resampling.BICUBIC)
    return np.asarray(scaled, np.float64)[:, :, None]


def _object(
    shape: str,
    color: npt.NDArray[np.float64],
    background: npt.NDArray[np.float64],
    rng: np.random.Generator,
) -> npt.NDArray[np.float64]:
    """Return what the object adds to the background: nothing outside the shape."""
    left, top = rng.integers(0, PIXELS - OBJECT + 1, 2).tolist()
    mask = Image.new("L", (PIXELS, PIXELS))
    pen = ImageDraw.Draw(mask)
    right, bottom = left + OBJECT - 1, top + OBJECT - 1
    third = OBJECT // 3
    if shape == "bars":
        for x in (left, left + 2 * third):
            pen.rectangle((x, top, x + third, bottom), fill=1)
    elif shape == "cross":
        pen.rectangle((left + third, top, right - third, bottom), fill=1)
        pen.rectangle((left, top + third, right, bottom - third), fill=1)
    elif shape == "triangle":
        pen.polygon(((left, bottom), (right, bottom), (left + OBJECT // 2, top)), fill=1)
    else:
        pen.ellipse((left, top, right, bottom), fill=1)
        if shape == "ring":
            pen.ellipse((left + third, top + third, right - third, bottom - third), fill=0)
    return np.asarray(mask)[:, :, None] * (color - background)


def _jpeg(pixels: npt.NDArray[np.float64], taken: datetime) -> bytes:
    image = Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = f"{taken:%Y:%m:%d %H:%M:%S}"
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90, exif=exif)
    return buffer.getvalue()


def measure(folder: Path, way: str, seed: int, *, epochs: int | None) -> dict[str, Any]:
    """Split bursts.zip, train, and test on the test split and on all photos of the store "new".

    Args:
        folder: of bursts.zip and of the two stores.
        way: key of WAYS.
        seed: of the split and of the training.
        epochs: limit; None for that of params.yaml.
    """
    from original_recipe import fit_fieldguide

    from fieldguide.core.params import load_params
    from fieldguide.core.store import SPLITS, Split, Store
    from fieldguide.evaluation.predict import predict_split

    params = load_params(ROOT / "params.yaml")
    changes = {"val_fraction": params.data.val_fraction, "seed": seed, **WAYS[way]}
    store = Store(prepared(folder / "bursts.zip", folder / "store", size=PIXELS, **changes))
    update = {"seed": seed, "epochs": epochs or params.train.epochs}
    params = params.model_copy(update={"train": params.train.model_copy(update=update)})
    with contextlib.redirect_stdout(io.StringIO()):
        bundle, _ = fit_fieldguide(store.folder, params)

    def accuracy(split: Split) -> float:
        return float((predict_split(bundle, split).argmax(1) == split.labels).mean())

    trained = {_burst(source) for source in store.split("train").sources}
    tested = store.split("test").sources
    return {
        "way": way,
        "seed": seed,
        "photos": {split: len(store.split(split)) for split in SPLITS},
        "seen": sum(_burst(source) in trained for source in tested) / len(tested),
        "val_acc": bundle.val_acc,
        "test_acc": accuracy(store.split("test")),
        "new_acc": accuracy(Store(folder / "new").split(*SPLITS)),
    }


def _burst(source: str) -> str:
    return source.rpartition("_")[0]


def table(rows: Iterable[dict[str, Any]]) -> list[str]:
    """Return the table of docs/splits.md: mean ± standard deviation over the seeds."""
    rows = list(rows)
    lines = [
        "| split | test photos from bursts of training | test accuracy | accuracy on new bursts |",
        "| --- | --- | --- | --- |",
    ]
    for way, shown in SHOWN.items():
        of_way = [row for row in rows if row["way"] == way]
        if of_way:
            seen = f"{statistics.mean(row['seen'] for row in of_way):.0%}"
            cells = [_spread([row[key] for row in of_way]) for key in ("test_acc", "new_acc")]
            lines.append(f"| {' | '.join([shown, seen, *cells])} |")
    return lines


def _spread(values: list[float]) -> str:
    mean = f"{statistics.mean(values):.1%}"
    return f"{mean} ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else mean


def main() -> None:
    """Measure every way with every seed; write each row when it is there."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bursts", type=int, default=10, help="of each class, to be split")
    parser.add_argument("--new", type=int, default=4, help="bursts of each class no split has seen")
    parser.add_argument("--frames", type=int, default=20, help="of each burst")
    parser.add_argument("--epochs", type=int, help="default: those of params.yaml")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=ROWS)
    parser.add_argument("--table", action="store_true", help="print the table; measure nothing")
    options = parser.parse_args()
    if not options.table:
        from fieldguide.core import compute
        from fieldguide.core.params import load_params

        params = load_params(ROOT / "params.yaml")
        compute.set_up(params.compute.model_copy(update={"threads": 1}), params.model)
        options.out.write_text("", encoding="utf-8")
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            sizes = {"frames": options.frames}
            write_bursts(folder / "bursts.zip", bursts=options.bursts, seed=0, **sizes)
            new = write_bursts(folder / "new.zip", bursts=options.new, seed=1, **sizes)
            prepared(new, folder / "new", size=PIXELS)
            for seed in options.seeds:
                for way in WAYS:
                    row = measure(folder, way, seed, epochs=options.epochs)
                    add_row(options.out, row)
                    print(json.dumps(row), flush=True)
    print("\n".join(table(read_rows(options.out))))


if __name__ == "__main__":
    main()
