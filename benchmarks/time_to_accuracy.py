"""Seconds from the start of the process to the original recipe's final validation accuracy.

On the bundled sample. The original trains its 30 epochs; of both counts the end of the first epoch
that reaches the accuracy which the original ends with, imports and start included. fieldguide
trains with params.yaml's recipe and a short schedule. Unpacking for the original, and `prepare`
for fieldguide, come before and are told apart.
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

from contender import ROOT, environment
from photos import prepared
from side_by_side import OURS, Row, in_turn

ORIGINAL = "the original recipe"
ORIGINAL_EPOCHS = 30
OUR_EPOCHS = 6  # the whole one-cycle schedule
BOUND = 0.1
SAMPLE = ROOT / "data" / "sample.zip"


class Epoch(NamedTuple):
    """How far a training was at the end of an epoch."""

    number: int
    seconds: float  # since the process was started
    val_acc: float


def rows(*, quick: bool) -> list[Row]:
    """Measure."""
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
    """Train in a process of its own, noting when each epoch is told."""
    command = [sys.executable, __file__, recipe, str(photos), str(seed)]
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
    """Seconds until the first epoch of at least `target`; infinite where none was."""
    return next((epoch.seconds for epoch in epochs if epoch.val_acc >= target), math.inf)


def describe(trainings: dict[str, list[list[Epoch]]], preparing: float) -> str:
    """Say where fieldguide's seconds go."""
    seconds = [epochs[1].seconds - epochs[0].seconds for epochs in trainings[OURS]]
    first = [epochs[0].seconds for epochs in trainings[OURS]]
    whole = statistics.median(epochs[-1].seconds for epochs in trainings[ORIGINAL])
    target = statistics.median(epochs[-1].val_acc for epochs in trainings[ORIGINAL])
    reached = statistics.median(epochs[-1].val_acc for epochs in trainings[OURS])
    epoch = statistics.median(seconds)
    start = statistics.median(first) - epoch
    return (
        f"the network's arithmetic: {epoch:.1f} s an epoch of {OUR_EPOCHS}, after "
        f"{start:.1f} s of start; prepare took {preparing:.1f} s before; "
        f"all {ORIGINAL_EPOCHS} epochs of the original {whole:.0f} s. It ends at {target:.1%}, "
        f"fieldguide at {reached:.1%}"
    )


def one(recipe: str, photos: Path, *, seed: int) -> None:
    """Train in this process, telling each epoch."""

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
    parser.add_argument("photos", type=Path, help="a store, or what `unpack` laid out")
    parser.add_argument("seed", type=int)
    options = parser.parse_args()
    one(options.recipe, options.photos, seed=options.seed)
