"""Seconds a trial costs beyond its training: `fieldguide sweep run` against `dvc queue start`.

    make venv && . .venv/bin/activate
    python benchmarks/sweep_overhead.py

Both run the same trials of a stage that only sleeps, with -j 2, in turn, each time in a new Git and
DVC project. Overhead = wall seconds x 2 workers / trials - seconds of the stage. The queue's
seconds count from `dvc queue start`; the seconds of filling it are printed separately.
"""

from __future__ import annotations

import argparse
import json
import runpy
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
WORKERS = 2


def main() -> None:
    """Measure both in turn and print the seconds per trial."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2, help="that the stage sleeps")
    options = parser.parse_args()
    found: dict[str, list[float]] = {"fieldguide": [], "queue": [], "filling the queue": []}
    for number in range(options.rounds):
        for name, measure in (("fieldguide", sweep), ("queue", queue)):
            with tempfile.TemporaryDirectory() as folder:
                project = stub(Path(folder) / "project", options.seconds)
                seconds, filling = measure(project, options.trials)
            overhead = seconds * WORKERS / options.trials - options.seconds
            found[name].append(overhead)
            if filling:
                found["filling the queue"].append(filling / options.trials)
            print(f"round {number + 1}  {name:<10}  {overhead:.2f} s per trial", flush=True)
    median = {name: statistics.median(values) for name, values in found.items()}
    print("median: " + ", ".join(f"{name} {value:.2f} s" for name, value in median.items()))
    print(f"fieldguide's overhead is {median['fieldguide'] / median['queue']:.2f} of the queue's")


def stub(folder: Path, seconds: float) -> Any:
    """Make the project of a sleeping stage that the tests of sweeps use."""
    folder.mkdir()
    module = runpy.run_path(str(ROOT / "tests" / "sweeps" / "stub.py"))
    project = module["Stub"](folder)
    project.env["STUB_SECONDS"] = str(seconds)
    return project


def sweep(project: Any, trials: int, workers: int = WORKERS) -> tuple[float, float]:
    """Return the seconds of the whole `fieldguide sweep run`, and 0."""
    file = project.write_sweep(run_cap=trials)
    start = time.perf_counter()
    project.sweep("run", file, "-j", str(workers))
    seconds = time.perf_counter() - start
    _check(project, trials)
    return seconds, 0.0


def queue(project: Any, trials: int) -> tuple[float, float]:
    """Return the seconds from `dvc queue start` to the last experiment, and of queueing them."""
    dvc = (sys.executable, "-m", "dvc")
    rates = ",".join(str(round(0.0001 * (k + 1), 6)) for k in range(trials))
    start = time.perf_counter()
    project.run(*dvc, "exp", "run", "--queue", "-S", f"train.learning_rate={rates}", "train")
    filled = time.perf_counter()
    project.run(*dvc, "queue", "start", "-j", str(WORKERS))
    while len(project.noted("ended")) < 1 + trials or len(project.experiments()) < trials:
        time.sleep(0.1)
    return time.perf_counter() - filled, filled - start


def _check(project: Any, trials: int) -> None:
    names = json.dumps(project.experiments())
    assert names.count("search-") == trials, names


if __name__ == "__main__":
    main()
