"""Measure on a GPU everything that needs one, in at most ten minutes.

    python models/weights/efficientnet_lite0.py                     # once, for fine-tuning
    python benchmarks/gpu.py --imagenette data/imagenette144.zip    # adds the rows on Imagenette
    python benchmarks/gpu.py --tiny     # the same work on a CPU with tiny sizes: does it run?
    python benchmarks/gpu.py --show     # only write the table of docs/benchmarks.md again

Each benchmark runs in a process of its own. Its rows are written to benchmarks/gpu.json and
docs/benchmarks.md as soon as they are there; --tiny writes nothing. If a benchmark fails, its
output is shown and the others still run. The end names those that failed or had no time.

Speed: augmented batches beside `ImageFolder`, and a training epoch beside the bare step on one
fixed batch, both alternated; with the store in the GPU's memory. Accuracy: one training each, seed
0, tested once; the targets on Imagenette are those of fastai's leaderboard
(https://github.com/fastai/imagenette, 128 pixels, 5 and 20 epochs).
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import results_file
import table
from contender import ROOT, contenders, cores, environment
from photos import CLASSES, archive, prepared, unpack
from recipe import IMAGENETTE, MIXING, params_of
from results_file import Result
from side_by_side import OURS, Row, in_turn

ROWS = ROOT / "benchmarks/gpu.json"
PAGE = ROOT / "docs/benchmarks.md"
SAMPLE = ROOT / "data/sample.zip"
BATCH = 64
FAST = "bfloat16, compiled"
# Pixels of the network's input -> width, height and number of the photos.
PHOTOS = {32: (32, 32, 40_960), 64: (144, 144, 16_384), 224: (500, 375, 2_048)}
LEADERBOARD = {5: 87.43, 20: 91.57}  # epochs -> percent of the test photos
PRETRAINED = "tf_efficientnet_lite0"
WEIGHTS = ROOT / f"models/weights/{PRETRAINED}.safetensors"
FINE_TUNING = {"model.name": PRETRAINED, "model.weights": WEIGHTS.name}


class Options(NamedTuple):
    """What the user asked for."""

    tiny: bool
    imagenette: str | None  # path of the archive

    @property
    def device(self) -> str:
        """Where the work runs."""
        return "cpu" if self.tiny else "cuda"


def batches(size: int, options: Options) -> list[Row]:
    """Compare augmented batches with `ImageFolder`'s."""
    with tempfile.TemporaryDirectory() as folder:
        settings = _drawn(size, options, Path(folder), most=4_096)
        settings |= {"seconds": 0.1 if options.tiny else 2.0, "jitter": 0.1}
        wanted = {
            OURS: (sys.executable, "ours", {**settings, "contender": "batches"}),
            "ImageFolder": (sys.executable, "loaders", {**settings, "contender": "ImageFolder"}),
        }
        with contenders(wanted) as (ways, _):
            measured = in_turn(ways, 1 if options.tiny else 3)
    work = f"augmented batches of {BATCH} at {size} pixels"
    limit = "ImageFolder decodes on the CPU's cores"
    return [Row(work, "images/s", measured, "ImageFolder", 5.0, at_least=True, limit=limit)]


def epochs(size: int, kind: str, options: Options) -> list[Row]:
    """Compare a training epoch with the bare step."""
    train: dict[str, Any] = {"accelerator": "cpu" if options.tiny else "gpu"}
    if kind == FAST:
        # Compiling needs a C++ compiler on a CPU.
        train |= {"precision": "bf16-mixed", "compile": not options.tiny}
    with tempfile.TemporaryDirectory() as folder:
        settings = _drawn(size, options, Path(folder), most=PHOTOS[size][2])
        settings |= {"precision": "32", "compile": False, **train, "train": train}
        wanted = {
            OURS: (sys.executable, "ours", {**settings, "contender": "train"}),
            "bare step": (sys.executable, "loops", {**settings, "contender": "bare loop"}),
        }
        with contenders(wanted) as (ways, _):
            measured = in_turn(ways, 1 if options.tiny else 3)
    work = f"training epoch at {size} pixels, {kind}"
    limit = "validation, checkpoint and augmentation, which the bare step lacks"
    return [Row(work, "images/s", measured, "bare step", 0.9, at_least=True, limit=limit)]


def _drawn(size: int, options: Options, folder: Path, *, most: int) -> dict[str, Any]:
    """Draw photos, prepare them, and return what both contenders need."""
    width, height, _ = PHOTOS[size]
    images = 2 * BATCH if options.tiny else most
    packed = archive(folder / "photos.zip", images, width=width, height=height)
    return {
        "store": str(prepared(packed, folder / "store", size=size)),
        "photos": str(unpack(packed, folder / "photos")),
        "size": size,
        "images": images,
        "classes": CLASSES,
        "batch": BATCH,
        "device": options.device,
        "workers": cores(),
    }


def sample(options: Options) -> list[Row]:
    """Train params.yaml on the bundled sample; the target is the CPU's mean less its spread."""
    work = "sample, 32 pixels, defaults"
    return [_trained(work, SAMPLE, options, size=32, changes={}, bound=75.9)]


def imagenette(count: int, options: Options) -> list[Row]:
    """Train on Imagenette at 128 pixels; `count`: epochs."""
    name = f"Imagenette, 128 pixels, {count} epochs, from scratch"
    changes = IMAGENETTE | {"train.epochs": count, "train.train_on_val": True}
    changes |= MIXING if count >= 20 else {}  # noqa: PLR2004 - 5 epochs are too few for it
    photos = Path(options.imagenette or "")
    bound = LEADERBOARD[count]
    return [_trained(name, photos, options, size=128, changes=changes, bound=bound)]


def fine_tuning(options: Options) -> list[Row]:
    """Fine-tune a pretrained network on the bundled sample; with --tiny its weights are random."""
    changes: dict[str, Any] = dict(FINE_TUNING)
    if options.tiny:
        changes["model.input_size"] = 32
        os.chdir(_random_weights())  # train looks for weights below the current folder
    work = f"sample, fine-tuning {PRETRAINED}"
    return [_trained(work, SAMPLE, options, size=32, changes=changes, bound=90.0)]


def _random_weights() -> str:
    """Return a new folder with weights where `train` looks for them; it goes with this process."""
    import timm
    from safetensors.torch import save_file

    folder = tempfile.mkdtemp()
    weights = Path(folder, WEIGHTS.relative_to(ROOT))
    weights.parent.mkdir(parents=True)
    save_file(timm.create_model(PRETRAINED).state_dict(), weights)
    return folder


def _trained(
    work: str, photos: Path, options: Options, *, size: int, changes: dict[str, Any], bound: float
) -> Row:
    """Train, test once, and return the accuracy in percent."""
    from original_recipe import fit_fieldguide

    from fieldguide.core import compute
    from fieldguide.core.store import Store
    from fieldguide.evaluation.predict import predict_split

    where = {"compute.portable": False, "train.accelerator": "cpu" if options.tiny else "gpu"}
    tiny = {"train.epochs": 1} if options.tiny else {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.tiny:
            photos = archive(folder / "photos.zip", 2 * BATCH, width=32, height=32)
            size = 32
        params = params_of(size, where | changes | tiny)
        compute.set_up(params.compute, params.model)
        store = Store(prepared(photos, folder / "store", size=size, val_fraction=0.2))
        bundle, fitted = fit_fieldguide(store.folder, params)
        test = store.split("test")
        hits = predict_split(bundle, test).argmax(1) == test.labels
    limit = f"one training, seed 0: {fitted['epochs']} epochs in {fitted['seconds']:.0f} s"
    accuracy = {OURS: [100 * float(hits.mean())]}
    return Row(work, "%", accuracy, None, bound, at_least=True, limit=limit)


Work = Callable[[Options], list[Row]]


def works(options: Options) -> dict[str, Work]:
    """Return everything that is measured, in order, by name."""
    sizes = [32] if options.tiny else list(PHOTOS)
    found: dict[str, Work] = {"sample": sample}
    found |= {f"batches {size}": partial(batches, size) for size in sizes}
    for kind in ("float32", FAST):
        found |= {f"epochs {size}, {kind}": partial(epochs, size, kind) for size in sizes}
    if options.imagenette or options.tiny:
        found |= {f"imagenette {count}": partial(imagenette, count) for count in LEADERBOARD}
    return found | {"fine-tuning": fine_tuning}


def main() -> None:
    """Run every work that fits into the time, and write its rows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--imagenette", metavar="FILE", help="imagenette144.zip")
    parser.add_argument("--minutes", type=float, default=10, help="limit; default 10")
    parser.add_argument("--tiny", action="store_true", help="on a CPU, tiny sizes; write nothing")
    parser.add_argument("--show", action="store_true", help="measure nothing; write the table")
    parser.add_argument("--one", help=argparse.SUPPRESS)  # the one work that this process does
    args = parser.parse_args()
    if args.imagenette and not Path(args.imagenette).is_file():
        parser.error(f"--imagenette: {args.imagenette} does not exist")
    options = Options(args.tiny, args.imagenette and str(Path(args.imagenette).resolve()))
    if args.one:
        with contextlib.redirect_stdout(io.StringIO()):
            rows = works(options)[args.one](options)
        print(json.dumps([asdict(row) for row in rows]))
        return
    if args.show:
        write_table(results_file.load(ROWS))
        return
    measure(options, seconds=60 * args.minutes)


def write_table(kept: list[Result]) -> None:
    """Write rows to the page, if there are any."""
    if kept:
        table.insert(PAGE, table.full_table(kept), "gpu")


def measure(options: Options, *, seconds: float) -> None:
    """Run every work; exit with status 1 if one of them failed or had no time."""
    if not options.tiny:
        _check(options)
    machine, end = results_file.this_machine(full=False), time.monotonic() + seconds
    missing = []
    for name in works(options):
        begin = time.monotonic()
        if begin >= end:
            missing.append(f"{name}: no time left")
            continue
        command = [sys.executable, __file__, "--one", name]
        command += ["--tiny"] if options.tiny else []
        command += ["--imagenette", options.imagenette] if options.imagenette else []
        try:
            rows = _in_its_own_process(command, seconds=end - begin)
        except subprocess.TimeoutExpired:
            missing.append(f"{name}: stopped after {time.monotonic() - begin:.0f} s")
            continue
        except subprocess.CalledProcessError as err:
            missing.append(f"{name}: failed")
            print(err.stderr[-3000:], file=sys.stderr, flush=True)
            continue
        for row in rows:
            against = f", {table.ratio(row)}" if row.against else ""
            print(f"{row.work:<56} {table.spread(row, OURS)} {row.unit}{against}")
        print(f"  {time.monotonic() - begin:.0f} s", flush=True)
        if not options.tiny:
            kept = _merged([Result("gpu", row, machine) for row in rows])
            results_file.save(kept, ROWS)
            write_table(kept)
    if missing:
        sys.exit("not measured:\n  " + "\n  ".join(missing))


def _check(options: Options) -> None:
    """Exit if there is no GPU or no file of weights; say what is left out without photos."""
    import torch

    if not torch.cuda.is_available():
        sys.exit("no GPU found; --tiny runs the same work on a CPU")
    if not WEIGHTS.is_file():
        sys.exit(f"{WEIGHTS} does not exist; python models/weights/efficientnet_lite0.py gets it")
    if not options.imagenette:
        print("without --imagenette its rows are left out", flush=True)


def _in_its_own_process(command: list[str], *, seconds: float) -> list[Row]:
    """Return the rows that a work prints; nothing of it remains, neither processes nor files."""
    with tempfile.TemporaryDirectory() as folder:
        started = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=environment() | {"TMPDIR": folder},
            start_new_session=True,
        )
        try:
            out, err = started.communicate(timeout=seconds)
        except BaseException:  # also Ctrl-C
            os.killpg(started.pid, signal.SIGKILL)
            started.communicate()
            raise
    if started.returncode:
        raise subprocess.CalledProcessError(started.returncode, command, stderr=err)
    return [results_file.row_of(raw) for raw in json.loads(out.splitlines()[-1])]


def _merged(new: list[Result]) -> list[Result]:
    """Return all results, in which the new ones replace those of the same work."""
    found = {result.row.work: result for result in [*results_file.load(ROWS), *new]}
    return list(found.values())


if __name__ == "__main__":
    main()
