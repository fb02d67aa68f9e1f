"""Seconds from the start of the process to the original recipe's final validation accuracy.

Both recipes train on the bundled sample: the course work's original for 30 epochs, fieldguide with
params.yaml's recipe and a short schedule. Time ends with the first epoch that reaches the
validation accuracy with which the original ends; imports and start count. Unpacking for the
original and `prepare` for fieldguide are done before; the seconds of `prepare` are printed
separately.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from contender import ROOT, environment, peers_python
from photos import prepared
from side_by_side import OURS, Row, in_turn

ORIGINAL = "the original recipe"
ORIGINAL_EPOCHS = 30
OUR_EPOCHS = 6  # length of the one-cycle schedule
BOUND = 0.1
SAMPLE = ROOT / "data" / "sample.zip"


class Epoch(NamedTuple):
    """Time and accuracy at the end of an epoch."""

    number: int
    seconds: float  # since the start of the process
    val_acc: float


def rows(*, quick: bool) -> list[Row]:
    """Train both recipes in turn and compare the seconds."""
    from original_recipe import unpack

    from fieldguide.core.params import load_params

    data = load_params(ROOT / "params.yaml").data
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        start = time.perf_counter()
        store = prepared(
            SAMPLE, folder / "store", size=data.image_size, val_fraction=data.val_fraction
        )
        preparing = time.perf_counter() - start
        unpack(SAMPLE, store, folder / "photos")
        trainings: dict[str, list[list[Epoch]]] = {OURS: [], ORIGINAL: []}

        def train(recipe: str, photos: Path) -> float:
            seed = len(trainings[recipe])
            trainings[recipe].append(follow(recipe, photos, seed=seed))
            return trainings[recipe][-1][-1].seconds

        in_turn(
            {
                OURS: lambda: train(OURS, store),
                ORIGINAL: lambda: train(ORIGINAL, folder / "photos"),
            },
            1 if quick else 3,
        )
    measured: dict[str, list[float]] = {OURS: [], ORIGINAL: []}
    for ours, original in zip(trainings[OURS], trainings[ORIGINAL], strict=True):
        target = original[-1].val_acc
        measured[OURS].append(first_at(ours, target))
        measured[ORIGINAL].append(first_at(original, target))
    return [
        Row(
            work="from start to the original recipe's final validation accuracy",
            unit="s",
            measured=measured,
            against=ORIGINAL,
            bound=BOUND,
            at_least=False,
            limit=describe(trainings, preparing),
        )
    ]


def follow(recipe: str, photos: Path, *, seed: int) -> list[Epoch]:
    """Train in a new process and return the time and accuracy of each epoch."""
    python = peers_python() if recipe == ORIGINAL else sys.executable
    command = [python, __file__, recipe, str(photos), str(seed)]
    epochs = []
    start = time.perf_counter()
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("{"):
                told = json.loads(line)
                seconds = time.perf_counter() - start
                epochs.append(Epoch(told["epoch"], seconds, told["val_acc"]))
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: exit status {process.returncode}")
    return epochs


def first_at(epochs: list[Epoch], target: float) -> float:
    """Return the seconds to the first epoch of at least `target`; infinity if there is none."""
    return next((epoch.seconds for epoch in epochs if epoch.val_acc >= target), math.inf)


def describe(trainings: dict[str, list[list[Epoch]]], preparing: float) -> str:
    """Describe where fieldguide's seconds go."""
    seconds = [epochs[1].seconds - epochs[0].seconds for epochs in trainings[OURS]]
    first = [epochs[0].seconds for epochs in trainings[OURS]]
    whole = statistics.median(epochs[-1].seconds for epochs in trainings[ORIGINAL])
    target = statistics.median(epochs[-1].val_acc for epochs in trainings[ORIGINAL])
    reached = statistics.median(epochs[-1].val_acc for epochs in trainings[OURS])
    epoch = statistics.median(seconds)
    start = statistics.median(first) - epoch
    return (
        f"the network's arithmetic: {OUR_EPOCHS} epochs of {epoch:.1f} s after a start of "
        f"{start:.1f} s; `prepare` took {preparing:.1f} s before. The original's "
        f"{ORIGINAL_EPOCHS} epochs took {whole:.0f} s. It ends at {target:.1%}, "
        f"fieldguide at {reached:.1%}"
    )


def one(recipe: str, photos: Path, *, seed: int) -> None:
    """Train in this process and print each epoch as JSON."""

    def tell(epoch: int, val_acc: float) -> None:
        print("\n" + json.dumps({"epoch": epoch, "val_acc": val_acc}), flush=True)

    if recipe == ORIGINAL:
        from original_recipe import train_original

        from fieldguide.core.params import load_params

        size = load_params(ROOT / "params.yaml").data.image_size
        train_original(photos, size=size, epochs=ORIGINAL_EPOCHS, seed=seed, reached=tell)
        return
    from original_recipe import train_fieldguide

    train_fieldguide(photos, epochs=OUR_EPOCHS, seed=seed, reached=tell)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("recipe", choices=(OURS, ORIGINAL))
    parser.add_argument("photos", type=Path, help="a store, or a folder that `unpack` wrote")
    parser.add_argument("seed", type=int)
    options = parser.parse_args()
    one(options.recipe, options.photos, seed=options.seed)
