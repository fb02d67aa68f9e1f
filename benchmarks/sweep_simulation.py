"""Simulate a sweep of 10,000 trials: the driver's cost, and how long workers wait for it.

    python benchmarks/sweep_simulation.py                # 1, 10, 100 and 1,000 workers
    python benchmarks/sweep_simulation.py --quick        # a small one, in seconds

The driver, the record and the proposals are the real ones. Only the trainings are simulated, as
events in virtual time: each epoch takes some seconds and reports, and at a rung the trial waits for
the driver's answer. The real seconds that the driver needs are added to the virtual clock, and
workers that are free or at a rung wait during them. Workers die and come back, some trials fail
because of their params, and half of the workers join late.

Idle share = 1 - seconds in which workers train / seconds in which they are present, from the moment
all have joined until the last configuration starts. The time after that, when fewer trials are left
than workers, is printed as the tail.
"""

from __future__ import annotations

import argparse
import contextlib
import heapq
import json
import math
import random
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from fieldguide.core.params import load_params
from fieldguide.sweeps.driver import Driver
from fieldguide.sweeps.experiments import Trial
from fieldguide.sweeps.pool import Ended, Pool, Reported
from fieldguide.sweeps.record import PlannedTrial, Record
from fieldguide.sweeps.space import Values
from fieldguide.sweeps.sweep_file import load_sweep

ROOT = Path(__file__).resolve().parents[1]
LATEST = 1000  # last proposals, whose cost is printed separately


@dataclass(frozen=True)
class World:
    """The random behaviour of workers and trials."""

    workers: int
    epochs: int
    epoch_seconds: float = 20  # mean over trials
    spread: float = 0.5  # standard deviation of the logarithm
    faulty: float = 0.01  # share of configurations that fail because of their params
    lifetime: float = 20 * 3600  # mean seconds until a worker dies
    away: float = 300  # mean seconds until it is back
    join_within: float = 600  # seconds within which the late half of the workers joins
    seed: int = 0


@dataclass
class Training:
    """The simulated training of a trial on a worker."""

    run: PlannedTrial
    rungs: list[int]
    worker: int
    seconds: float  # per epoch
    fails_at: int | None  # epoch; None if it does not fail
    since: float  # virtual time since which it computes
    epoch: int = 0  # last finished epoch
    best: float = 0.0


@dataclass
class Log:
    """What happened; times are virtual seconds."""

    computing: list[tuple[int, float, float]] = field(default_factory=list)  # worker, from, to
    held: list[tuple[int, float, float, str]] = field(default_factory=list)  # and name of the trial
    away: list[tuple[float, float]] = field(default_factory=list)
    starts: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    # For each configuration: its start, and the driver's seconds and CPU seconds until then.
    proposed: list[tuple[float, float, float]] = field(default_factory=list)


class SimulatedPool:
    """A pool whose workers and trials are events in virtual time."""

    def __init__(self, world: World) -> None:
        """Start with half of the workers; the others join later."""
        self.world, self.log_ = world, Log()
        self.now = self.spent = self.spent_cpu = 0.0
        self.joined = 0.0  # when the last worker joined
        self._random = random.Random(world.seed)  # noqa: S311
        self._events: list[tuple[float, int, str, Any]] = []
        self._count = 0
        self._free: list[int] = []
        self._begun: dict[str, tuple[int, float]] = {}  # name -> (worker, start)
        self._running: dict[str, Training] = {}
        self._on: dict[int, str] = {}  # worker -> name
        for worker in range(world.workers):
            if worker < (world.workers + 1) // 2:
                self._join(0.0, worker)
            else:
                at = self._random.uniform(0, world.join_within)
                self.joined = max(self.joined, at)
                self._at(at, "join", worker)
        self._leave()

    # The driver's clock runs between two calls of the pool: _leave starts it, _enter stops it.

    def _leave(self) -> None:
        self._left = time.perf_counter(), time.process_time()

    def _enter(self) -> None:
        seconds = time.perf_counter() - self._left[0]
        self.spent += seconds
        self.spent_cpu += time.process_time() - self._left[1]
        self.now += seconds

    # Pool.

    def recover(self, wanted: Collection[str]) -> set[str]:  # noqa: ARG002, D102
        return set()

    def expect(self, most: int) -> None:
        """Do nothing: workers stay until the end, so that the tail shows."""

    def room(self) -> int:  # noqa: D102
        return len(self._free)

    def start(self, run: PlannedTrial, rungs: list[int]) -> None:  # noqa: D102
        self._enter()
        own = random.Random(f"{self.world.seed} {run.name}")  # noqa: S311
        log_mean = math.log(self.world.epoch_seconds) - self.world.spread**2 / 2
        training = Training(
            run=run,
            rungs=rungs,
            worker=self._free.pop(),
            seconds=own.lognormvariate(log_mean, self.world.spread),
            fails_at=1 if own.random() < self.world.faulty else None,
            since=self.now,
        )
        if not self.log_.starts[run.name]:
            self.log_.proposed.append((self.now, self.spent, self.spent_cpu))
        self.log_.starts[run.name] += 1
        self._begun[run.name] = training.worker, self.now
        self._running[run.name] = training
        self._on[training.worker] = run.name
        self._at(self.now + training.seconds, "epoch", training)
        self._leave()

    def wait(self) -> Iterator[Reported | Ended]:  # noqa: D102
        self._enter()
        self.now = max(self.now, self._events[0][0])
        until = self.now  # events that happen while the driver answers are yielded next time
        while self._events and self._events[0][0] <= until:
            at, _, kind, what = heapq.heappop(self._events)
            event = getattr(self, f"_{kind}")(at, what)
            if event is not None:
                self._leave()
                yield event
                self._enter()
        self._leave()

    def answer(self, name: str, epoch: int, *, go_on: bool) -> None:  # noqa: ARG002, D102
        self._enter()
        training = self._running[name]
        training.since = self.now
        if go_on:
            self._at(self.now + training.seconds, "epoch", training)
        else:
            self._at(self.now, "finish", training)
        self._leave()

    def stop(self) -> None:  # noqa: D102
        pass

    def close(self) -> None:  # noqa: D102
        pass

    # Events in virtual time.

    def _at(self, at: float, kind: str, what: Any) -> None:
        self._count += 1
        heapq.heappush(self._events, (at, self._count, kind, what))

    def _join(self, at: float, worker: int) -> None:
        self._free.append(worker)
        self._at(at + self._random.expovariate(1 / self.world.lifetime), "die", worker)

    def _die(self, at: float, worker: int) -> Ended | None:
        back = at + self._random.expovariate(1 / self.world.away)
        self.log_.away.append((at, back))
        self._at(back, "join", worker)
        name = self._on.get(worker)
        if name is None:
            self._free.remove(worker)
            return None
        training = self._running[name]
        if training.epoch not in training.rungs or training.since > at:
            self._computed(training, at)
        self._release(training, at, back=False)
        self.log_.lost[name] += 1
        return Ended(name, message="its node is gone")

    def _epoch(self, at: float, training: Training) -> Reported | Ended | None:
        name = training.run.name
        if self._running.get(name) is not training:
            return None  # its worker died
        self._computed(training, at)
        training.epoch += 1
        if training.epoch == training.fails_at:
            self._release(training, at)
            self.log_.ends[name] += 1
            return Ended(name, status=1, message="simulated: the params are at fault")
        score = objective(training.run.overrides, training.epoch)
        training.best = max(training.best, score)
        if training.epoch == self.world.epochs:
            self._at(at, "finish", training)
        elif training.epoch not in training.rungs:
            self._at(at + training.seconds, "epoch", training)
        return Reported(name, training.epoch, {"val/acc": score, "val/loss": 1 - score})

    def _finish(self, at: float, training: Training) -> Ended | None:
        run = training.run
        if self._running.get(run.name) is not training:
            return None
        self._release(training, at)
        self.log_.ends[run.name] += 1
        metrics = {
            "best.val_acc": training.best,
            "train.seconds": training.epoch * training.seconds,
            "pruned": int(training.epoch < self.world.epochs),
        }
        created = datetime.fromtimestamp(at, UTC)
        trial = Trial(run.name, "", "", run.number, None, created, {}, metrics)
        return Ended(run.name, trial)

    def _computed(self, training: Training, until: float) -> None:
        if until > training.since:
            self.log_.computing.append((training.worker, training.since, until))
        training.since = until

    def _release(self, training: Training, at: float, *, back: bool = True) -> None:
        name = training.run.name
        del self._running[name], self._on[training.worker]
        worker, since = self._begun.pop(name)
        self.log_.held.append((worker, since, at, name))
        if back:
            self._free.append(worker)


def objective(values: Values, epoch: int) -> float:
    """Return a simulated validation accuracy, which rises with the epochs and is noisy."""
    noise = random.Random(f"{sorted(values.items())} {epoch}").gauss(0, 0.005)  # noqa: S311
    return max(0.0, final_score(values) * (1 - math.exp(-(epoch + 1) / 4)) + noise)


def final_score(values: Values) -> float:
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


@dataclass(frozen=True)
class Result:
    """The outcome of a simulated sweep."""

    record: Record
    pool: SimulatedPool
    seconds: float


def simulate(folder: Path, trials: int, world: World) -> Result:
    """Simulate one sweep to its end.

    Args:
        folder: empty; gets a Git repository without trials, and the sweep's record.
        trials: number of configurations.
        world: behaviour of workers and trials.
    """
    for command in (
        ["init", "--quiet"],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "--allow-empty", "-mx"],
    ):
        subprocess.run(["git", "-C", str(folder), *command], check=True)
    definition = yaml.safe_load((ROOT / "sweeps/original.yaml").read_text(encoding="utf-8"))
    definition["run_cap"] = trials
    file = folder / "original.yaml"
    file.write_text(json.dumps(definition), encoding="utf-8")
    base = load_params(ROOT / "params.yaml")
    start = time.perf_counter()
    with (folder / "output").open("w") as output, contextlib.redirect_stdout(output):
        record = Record(load_sweep(file, base), base)
        pool: Pool = (simulated := SimulatedPool(world))
        Driver(folder, record, pool).run()
    return Result(record, simulated, time.perf_counter() - start)


def figures(result: Result) -> dict[str, float]:
    """Return a sweep's row of the table, by column."""
    pool, log = result.pool, result.pool.log_
    begin, (end, wall, cpu) = pool.joined, log.proposed[-1]
    training = sum(_overlap(a, b, begin, end) for _, a, b in log.computing)
    there = (end - begin) * pool.world.workers
    there -= sum(_overlap(a, b, begin, end) for a, b in log.away)
    count = len(log.ends)
    record = result.record
    states = Counter(str((record.ended(trial) or {})["state"]) for trial in record.proposed())
    last = min(LATEST, count - 1)
    _, wall_before, cpu_before = log.proposed[-1 - last]
    return {
        "workers": pool.world.workers,
        "trials": count,
        "done": states["done"],
        "pruned": states["pruned"],
        "failed": states["failed"],
        "restarts": log.lost.total(),
        "minutes/trial": sum(b - a for _, a, b in log.computing) / count / 60,
        "ms/trial": pool.spent / count * 1e3,
        "CPU ms": pool.spent_cpu / count * 1e3,
        "ms, last": (wall - wall_before) / last * 1e3,
        "CPU, last": (cpu - cpu_before) / last * 1e3,
        "idle %": 100 * (1 - training / there) if end > begin else math.nan,
        "hours": pool.now / 3600,
        "tail hours": (pool.now - end) / 3600,
        "limit s": pool.world.workers * pool.spent / count,
        "real s": result.seconds,
    }


def _overlap(start: float, stop: float, begin: float, end: float) -> float:
    return max(0.0, min(stop, end) - max(start, begin))


def main() -> None:
    """Simulate a sweep for each number of workers and print its row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 10, 100, 1000])
    parser.add_argument("--quick", action="store_true", help="200 trials on 8 workers")
    options = parser.parse_args()
    trials, workers = (200, [8]) if options.quick else (options.trials, options.workers)
    epochs = load_params(ROOT / "params.yaml").train.epochs
    for number, count in enumerate(workers):
        with tempfile.TemporaryDirectory() as folder:
            row = figures(simulate(Path(folder), trials, World(workers=count, epochs=epochs)))
        if number == 0:
            print("  ".join(f"{name:>8}" for name in row))
        cells = [
            f"{value:>{max(8, len(name))}.{0 if isinstance(value, int) else 2}f}"
            for name, value in row.items()
        ]
        print("  ".join(cells), flush=True)


if __name__ == "__main__":
    main()
