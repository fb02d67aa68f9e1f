"""Measure fieldguide's part of a comparison."""

from __future__ import annotations

import contextlib
import io
import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from contender import ROOT, Link
from epoch_lines import EpochLines


def main() -> None:
    """Measure what the settings name."""
    link, settings = Link.open()
    WORK[settings["contender"]](link, settings)


def prepare_speed(link: Link, settings: dict[str, Any]) -> None:
    """Measure the images per second of `prepare`, from the archive to the finished store."""
    from fieldguide.prepare.prepare import prepare

    params = _data_params(settings)

    def measure() -> float:
        seconds, count = 0.0, 0
        while seconds < settings["seconds"]:
            with tempfile.TemporaryDirectory() as folder, _quietly():
                start = time.perf_counter()
                made = prepare(params, Path(folder) / "prepared")
                seconds += time.perf_counter() - start
            count += sum(n.photos for split in made.counts.values() for n in split.values())
        return count / seconds

    link.serve(measure)


def prepare_memory(link: Link, settings: dict[str, Any]) -> None:
    """Measure the peak resident memory, in MiB, of a process that prepares once."""
    from fieldguide.prepare.prepare import prepare

    link.ready()
    while link.wait():
        with tempfile.TemporaryDirectory() as folder, _quietly():
            prepare(_data_params(settings), Path(folder) / "prepared")
        link.answer(_peak_mib())


def _peak_mib() -> float:
    """Return the peak resident memory of this process, in MiB.

    On Linux from /proc, because ru_maxrss of a child starts with its parent's value, even after
    exec.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (2**20 if sys.platform == "darwin" else 2**10)
    lines = dict(line.split(":", 1) for line in status.read_text(encoding="ascii").splitlines())
    return int(lines["VmHWM"].split()[0]) / 2**10


def _data_params(settings: dict[str, Any]) -> Any:
    from fieldguide.core.params import load_params

    update = {"archive": settings["archive"], "image_size": settings["size"], "val_fraction": 0.1}
    update["near_copies"] = False  # the archive has few pictures, many times
    return load_params(ROOT / "params.yaml").data.model_copy(update=update)


def batches(link: Link, settings: dict[str, Any]) -> None:
    """Measure the images per second of augmented batches, in a process set up like `train`'s."""
    import torch

    from fieldguide.core.memory import keep_freed_memory
    from fieldguide.core.store import Store
    from fieldguide.network.augmentation import Augmentation
    from fieldguide.network.batches import Batches, Order
    from fieldguide.network.preprocessing import Preprocessing

    keep_freed_memory()
    device = torch.device(settings["device"])
    store = Store(Path(settings["store"]))
    split = store.split("train")
    order = Order(split, settings["batch"], device=device, seed=0)
    preprocessing = Preprocessing(settings["size"], "bilinear", store.mean, store.std)
    change = Augmentation(crop="shift", color_jitter=settings["jitter"])
    loader = Batches(split, order, preprocessing, augmentation=change)

    def measure() -> float:
        start, count = time.perf_counter(), 0
        while time.perf_counter() - start < settings["seconds"]:
            order.epoch += 1
            for images, _ in loader:
                count += len(images)
            if device.type == "cuda":
                torch.cuda.synchronize()
        return count / (time.perf_counter() - start)

    link.serve(measure)


def train(link: Link, settings: dict[str, Any]) -> None:
    """Measure the images per second of an epoch of `train` with params.yaml's recipe."""
    from fieldguide.core.params import load_params
    from fieldguide.core.store import Store
    from fieldguide.training.loop import train as fit
    from fieldguide.training.outputs import Outputs

    store = Store(Path(settings["store"]))
    images = len(store.split("train"))
    params = load_params(ROOT / "params.yaml")
    # More epochs than are ever asked for.
    update = {"epochs": 1000, "patience": 1000, **settings["train"]}
    link.ready()
    link.wait()
    start = time.perf_counter()

    def tell(_epoch: int, _val_acc: float) -> None:
        """Send the speed of an epoch: steps, validation, metrics and checkpoint."""
        nonlocal start
        link.answer(images / (time.perf_counter() - start))
        if not link.wait():
            sys.exit()
        start = time.perf_counter()

    with tempfile.TemporaryDirectory() as name:
        os.environ["DVC_ROOT"] = name  # the checkpoint of an interrupted training goes there
        outputs = Outputs(*(Path(name) / field for field in Outputs._fields))
        with contextlib.redirect_stdout(EpochLines(tell)):
            fit(params.train.model_copy(update=update), params.model, store=store, outputs=outputs)


@contextlib.contextmanager
def _quietly() -> Any:
    with contextlib.redirect_stderr(io.StringIO()):
        yield


WORK = {
    "prepare": prepare_speed,
    "prepare memory": prepare_memory,
    "batches": batches,
    "train": train,
}

if __name__ == "__main__":
    main()
