"""Photos per second that a core prepares, and that a core or a GPU trains, for docs/scale.md.

    OMP_NUM_THREADS=1 python benchmarks/rates.py                    # one core
    OMP_NUM_THREADS=1 python benchmarks/rates.py --photos 100000    # `prepare` of so many photos
    python benchmarks/rates.py --gpu                                # the first GPU

The rates come from real runs of `prepare` on drawn JPEGs, and from real trainings of params.yaml's
network: all epochs but the first, with validation, metrics and checkpoint. Prints one JSON object
per line.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import re
import resource
import tempfile
import time
import zipfile
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from contender import ROOT
from photos import CLASSES, archive, draw, encoded_again, prepared

# Pixels -> photos per epoch, on a core and on a GPU.
SIZES = {32: (4_000, 100_000), 64: (2_000, 50_000), 224: (256, 8_000)}
EPOCHS = 4
BATCHES = {False: (64,), True: (64, 1024)}  # the key is True on a GPU
PREPARED = 4_000  # photos of one `prepare`
EVERY = 100  # one photo of this many is a near-copy of the one before
_EPOCH = re.compile(r"^ *\d+/\d+ .* ([\d.]+)$", re.MULTILINE)  # a printed line; its last column: s


def prepare_rate(folder: Path, *, width: int, height: int, size: int) -> dict[str, Any]:
    """Time `prepare`; this process is bound to one core."""
    packed = archive(folder / "photos.zip", PREPARED, width=width, height=height)
    start = time.perf_counter()
    prepared(packed, folder / "store", size=size)
    seconds = time.perf_counter() - start
    what = f"prepare, {width}×{height} to {size} pixels"
    photos = {"photos": PREPARED, "bytes_a_photo": round(packed.stat().st_size / PREPARED)}
    return {"what": what, **photos, "photos_per_second": round(PREPARED / seconds)}


def prepare_many(folder: Path, count: int, *, near_copies: bool) -> dict[str, Any]:
    """Time `prepare` of photos.zip and measure this process's peak memory."""
    start, cpu = time.perf_counter(), time.process_time()
    prepared(folder / "photos.zip", folder / "store", size=32, near_copies=near_copies)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB
    what = f"prepare, 32×32 to 32 pixels{', near-copies' if near_copies else ''}"
    rate = {"photos_per_second": round(count / seconds), "memory_a_photo": peak * 1024 // count}
    files = {"files": len(list((folder / "store").iterdir()))}
    times = {"seconds": round(seconds, 1), "cpu_seconds": round(cpu, 1), "MiB": peak // 1024}
    return {"what": what, "photos": count, **rate, **files, **times}


def varied_archive(path: Path, count: int) -> None:
    """Write photos of 32 pixels that all look different, except each EVERY-th: a near-copy."""
    with zipfile.ZipFile(path, "w") as target:
        photo = b""
        for number in range(count):
            again = number % EVERY == EVERY - 1
            photo = encoded_again(photo) if again else draw(32, 32, seed=number)
            label = (number - again) % CLASSES  # that of the photo which it looks like
            target.writestr(f"class{label}/{number:07d}.jpg", photo)


def apart(work: Callable[..., Any], *args: Any, **settings: Any) -> Any:
    """Call a function in a process of its own, so that its memory is counted alone."""
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(work, args, settings)


def train_rate(store: Path, *, batch: int, gpu: bool) -> dict[str, Any]:
    """Train for EPOCHS epochs and return the rate of all but the first."""
    from fieldguide.core.params import load_params
    from fieldguide.core.store import Store
    from fieldguide.training.loop import train
    from fieldguide.training.outputs import Outputs

    params = load_params(ROOT / "params.yaml")
    changes: dict[str, Any] = {"epochs": EPOCHS, "patience": EPOCHS, "batch_size": batch}
    changes |= {"accelerator": "gpu" if gpu else "cpu", "compile": gpu}
    changes |= {"precision": "bf16-mixed"} if gpu else {}
    with tempfile.TemporaryDirectory() as folder:
        outputs = Outputs(*(Path(folder) / name for name in Outputs._fields))
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            train(
                params.train.model_copy(update=changes),
                params.model,
                store=Store(store),
                outputs=outputs,
            )
    seconds = [float(found) for found in _EPOCH.findall(printed.getvalue())][1:]
    images = len(Store(store).split("train")) * len(seconds)
    return {"epoch_seconds": seconds, "photos_per_second": round(images / sum(seconds))}


def main() -> None:
    """Measure a core or a GPU and print the rates."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gpu", action="store_true", help="measure training on the first GPU")
    parser.add_argument("--photos", type=int, help="measure only `prepare`, of this many photos")
    options = parser.parse_args()
    gpu = options.gpu
    if not gpu:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    if options.photos:
        with tempfile.TemporaryDirectory() as name:
            apart(varied_archive, Path(name, "photos.zip"), options.photos)
            for near_copies in (False, True):
                rate = apart(prepare_many, Path(name), options.photos, near_copies=near_copies)
                print(json.dumps(rate, ensure_ascii=False), flush=True)
        return
    if not gpu:
        for width, height, size in ((500, 375, 32), (500, 375, 64), (500, 375, 224)):
            with tempfile.TemporaryDirectory() as name:
                rate = prepare_rate(Path(name), width=width, height=height, size=size)
            print(json.dumps(rate, ensure_ascii=False), flush=True)
    import torch  # not for `prepare_many`, whose memory is measured

    device = torch.cuda.get_device_name() if gpu else "one core"
    for size, counts in SIZES.items():
        with tempfile.TemporaryDirectory() as name:
            packed = archive(Path(name, "photos.zip"), counts[gpu], width=size, height=size)
            store = prepared(packed, Path(name, "store"), size=size)
            for batch in BATCHES[gpu]:
                rate = train_rate(store, batch=batch, gpu=gpu)
                what = f"train, {size} pixels, batch {batch}, {device}"
                print(json.dumps({"what": what, **rate}), flush=True)


if __name__ == "__main__":
    main()
