"""How long `fieldguide sweep` takes to list, and to report, many finished trials.

    python benchmarks/sweep_report.py --trials 1000 --seeds 1

The trials are made up (tests/sweeps/synthetic.py), but lie in a real Git repository as DVC's
experiments do: ten varying parameters, params.yaml with its comments, four curves each. Prints the
median of `--repeats` runs in seconds; making the trials and importing are not timed.
"""

from __future__ import annotations

import argparse
import runpy
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from fieldguide.sweeps.experiments import read_trials
from fieldguide.sweeps.ranking import rank
from fieldguide.sweeps.sweep_report import write_report

ROOT = Path(__file__).resolve().parents[1]
METRIC, GOAL = "val/acc", "maximize"


def main() -> None:
    """Make a repository, and time both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=1, help="trials of each configuration")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    made_up = runpy.run_path(str(ROOT / "tests" / "sweeps" / "synthetic.py"))
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "repository"
        configurations = -(-options.trials // options.seeds)
        experiments = made_up["random_experiments"](configurations, seeds=options.seeds)
        made_up["write_experiments"](root, experiments)

        def listing() -> None:
            rank(read_trials(root, "space"), metric=METRIC, goal=GOAL)

        def report() -> None:
            page = root / "plots" / "sweep.html"
            write_report(root, "space", metric=METRIC, goal=GOAL, page=page)

        print(f"{len(read_trials(root, 'space')):,} finished trials")
        print(f"listing: {seconds(listing, options.repeats):.2f} s")
        print(f"report:  {seconds(report, options.repeats):.2f} s")


def seconds(work: Callable[[], None], repeats: int) -> float:
    """Median of several runs."""
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


if __name__ == "__main__":
    main()
