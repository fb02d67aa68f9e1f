"""Simulate a sweep of 10,000 configurations, and measure what the driver costs.

    python benchmarks/sweep_simulation.py            # 1, 100 and 500 runs at a time
    python benchmarks/sweep_simulation.py --quick    # a small sweep, in seconds

The driver, its record and its proposals are the real ones, and so is the Git command that reads the
result of a run. Only the trainings are simulated: a run ends, in virtual time, after its epochs
with a made-up score. Some configurations fail because of their params, and some runs are
interrupted and start again. CPU seconds are those of the driver's process and of its Git commands.
"""

from __future__ import annotations

import argparse
import contextlib
import heapq
import json
import math
import os
import random
import tempfile
import time
from collections import Counter
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import yaml

from fieldguide.core.params import load_params
from fieldguide.sweeps.driver import Driver
from fieldguide.sweeps.experiments import Result, read_result
from fieldguide.sweeps.record import Record
from fieldguide.sweeps.space import Run
from fieldguide.sweeps.sweep_file import load_sweep
from fieldguide.sweeps.worker import Outcome

ROOT = Path(__file__).resolve().parents[1]
EPOCH, SPREAD = 20.0, 0.5  # seconds of an epoch: mean over configurations, and spread of its log
FAULTY, INTERRUPTED = 0.01, 0.002  # shares of configurations, and of starts
LATEST = 1000  # last configurations, whose cost is printed separately


class SimulatedPool:
    """A pool whose runs end in virtual time, one each time `end_next` is called."""

    def __init__(self, workers: int, epochs: int) -> None:
        """Begin without runs.

        Args:
            workers: runs at a time.
            epochs: of a whole training.
        """
        self.workers, self.epochs = workers, epochs
        self.now = 0.0  # virtual seconds
        self.starts: Counter[tuple[int, int, int]] = Counter()
        self.interrupted: Counter[tuple[int, int, int]] = Counter()
        self.cpu_when_begun: list[float] = []  # CPU seconds at the first start of a configuration
        self.epochs_repeated = 0  # because a promoted configuration had no checkpoint any more
        self._reached: dict[int, int] = {}  # configuration -> epochs trained
        self._checkpoints: dict[int, int] = {}  # configuration -> epochs, while it is kept
        self._running: list[tuple[float, int, Run, Future[Outcome]]] = []  # a heap by time

    def room(self) -> int:  # noqa: D102 - Pool's, here and below
        return self.workers

    def start(self, run: Run, checkpoints: set[int]) -> Future[Outcome]:  # noqa: D102
        kept = self._checkpoints
        self._checkpoints = {number: kept[number] for number in checkpoints if number in kept}
        done = self._checkpoints.get(run.number, 0)
        self.epochs_repeated += self._reached.get(run.number, 0) - done
        if run.number == len(self.cpu_when_begun):
            self.cpu_when_begun.append(cpu_seconds())
        self.starts[run.key] += 1
        new = (run.stop_after or self.epochs) - done
        mean = math.log(EPOCH) - SPREAD**2 / 2
        seconds = new * random.Random(run.name).lognormvariate(mean, SPREAD)  # noqa: S311
        future: Future[Outcome] = Future()
        count = self.starts.total()
        heapq.heappush(self._running, (self.now + seconds, count, run, future))
        return future

    def end_next(self) -> None:
        """End the run whose end is next, if any is going on."""
        if not self._running:
            return
        self.now, count, run, future = heapq.heappop(self._running)
        if random.Random(f"faulty {run.number}").random() < FAULTY:  # noqa: S311
            future.set_result(Outcome(status=1, message="simulated: the params are at fault"))
        elif random.Random(f"interrupted {count}").random() < INTERRUPTED:  # noqa: S311
            self.interrupted[run.key] += 1
            future.set_result(Outcome(message="simulated: interrupted"))
        else:
            epochs = run.stop_after or self.epochs
            self._reached[run.number] = self._checkpoints[run.number] = epochs
            future.set_result(Outcome("HEAD", status=0))

    def stop(self) -> None:  # noqa: D102
        pass

    def close(self) -> None:  # noqa: D102
        pass


class SimulatedDriver(Driver):
    """The driver, which makes time pass in the simulated pool before it waits."""

    pool: SimulatedPool

    def _fill(self) -> None:
        super()._fill()
        self.pool.end_next()

    def _finish(self, run: Run, commit: str, log: Path) -> None:  # noqa: ARG002
        """Read a result as the driver does, but record the simulated score."""
        read_result(ROOT, commit, self.record.sweep.metric)
        epochs = run.stop_after or self.pool.epochs
        result = Result(score_after(run.overrides, epochs), epochs, epochs * EPOCH)
        self.record.finish(run, **result._asdict())
        self.progress.ended(run)


def score_after(values: dict[str, Any], epochs: int) -> float:
    """Return a simulated validation accuracy, which rises with the epochs and is noisy."""
    text = f"{sorted((k, v) for k, v in values.items() if k != 'train.stop_after')} {epochs}"
    noise = random.Random(text).gauss(0, 0.005)  # noqa: S311
    return max(0.0, final_score(values) * (1 - math.exp(-(epochs + 1) / 4)) + noise)


def final_score(values: dict[str, Any]) -> float:
    """Return a configuration's final score without noise, smooth in the ten parameters."""
    rate = math.log10(float(values["train.learning_rate"]))
    deep = float(values["model.conv_layers"]) - 3
    wide = math.log2(float(values["model.first_layer_filters"]) / 32)
    best_rate = -3 - 0.2 * deep - (0.3 if values["model.activation"] == "gelu" else 0)
    return (
        0.35
        - 0.06 * (rate - best_rate) ** 2
        + 0.02 * deep
        + 0.02 * wide * float(values["model.filter_org"] != 0.5)  # noqa: PLR2004
        + (0.03 if values["model.batch_norm"] else 0)
        + {"relu": 0, "gelu": 0.02, "silu": 0.015, "mish": 0.02}[str(values["model.activation"])]
        - 0.2 * (float(values["model.dropout"]) - 0.25) ** 2
        + 0.005 * math.log2(float(values["model.num_neurons_dense"]) / 128)
        - 0.01 * math.log2(float(values["train.batch_size"]) / 32)
        + (0.01 if values["train.use_augmentation"] else 0)
    )


def cpu_seconds() -> float:
    """Return the CPU seconds of this process and of its ended children."""
    return sum(os.times()[:4])


def open_record(folder: Path, configurations: int) -> Record:
    """Open, or begin, the record of sweeps/original.yaml with this number of configurations."""
    definition = yaml.safe_load((ROOT / "sweeps/original.yaml").read_text(encoding="utf-8"))
    file = folder / "original.yaml"
    definition["run_cap"] = configurations
    file.write_text(json.dumps(definition), encoding="utf-8")
    base = load_params(ROOT / "params.yaml")
    return Record(load_sweep(file, base), base)


def simulate(folder: Path, configurations: int, workers: int) -> SimulatedDriver:
    """Run a sweep to its end in an empty folder, and return its driver."""
    with (folder / "output").open("w") as output, contextlib.redirect_stdout(output):
        record = open_record(folder, configurations)
        pool = SimulatedPool(workers, record.base.train.epochs)
        driver = SimulatedDriver(folder, record, pool, None)
        driver.run()
    return driver


def measure(configurations: int, workers: int) -> dict[str, float]:
    """Simulate a sweep and return its row of the table, by column."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cpu, wall = cpu_seconds(), time.perf_counter()
        driver = simulate(folder, configurations, workers)
        cpu, wall = cpu_seconds() - cpu, time.perf_counter() - wall
        opening = time.perf_counter()
        open_record(folder, configurations)
        opening = time.perf_counter() - opening
    record, begun = driver.record, driver.pool.cpu_when_begun
    last = min(LATEST, configurations - 1)
    whole = [one for one in record.ended if one.run.stop_after == 0]
    last_ends = record.results.values()  # of the highest rung of each configuration
    return {
        "workers": workers,
        "configurations": configurations,
        "runs": len(record.ended) + len(record.failed),
        "whole": len(whole),
        "failed": len(record.failed),
        "repeated %": 100 * driver.pool.epochs_repeated / sum(one.epochs for one in last_ends),
        "CPU ms": cpu / configurations * 1e3,
        "CPU ms, last": (begun[-1] - begun[-1 - last]) / last * 1e3,
        "wall ms": wall / configurations * 1e3,
        "opening s": opening,
    }


def main() -> None:
    """Simulate a sweep for each number of workers and print its row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--configurations", type=int, default=10_000)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 100, 500])
    parser.add_argument("--quick", action="store_true", help="200 configurations, 8 workers")
    options = parser.parse_args()
    count, workers = (200, [8]) if options.quick else (options.configurations, options.workers)
    for place, number in enumerate(workers):
        row = measure(count, number)
        if place == 0:
            print("  ".join(f"{name:>8}" for name in row))
        cells = []
        for name, value in row.items():
            digits = 0 if isinstance(value, int) else 4 if value < 1 else 1
            cells.append(f"{value:>{max(8, len(name))}.{digits}f}")
        print("  ".join(cells), flush=True)


if __name__ == "__main__":
    main()
