"""Seconds that `dvc exp run` and a sweep's trial cost beyond the work of their stages.

    python benchmarks/experiment_cost.py [--quick]

A trial of a sweep whose stage does nothing shows the cost of the search itself. An experiment of
this project shows the cost of the pipeline: the seconds of the whole command minus the seconds that
its stages worked (metrics/timing.json), which leaves DVC, the start of Python and every import. It
has a tiny archive, one epoch, and a new learning rate each time, because DVC's run cache would
restore an old one. Both are compared with a whole `dvc exp run` of a stage that does nothing.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from side_by_side import OURS, Row, in_turn
from small_project import BIN, empty_project, run, small_project, working_seconds
from sweep_overhead import stub, sweep

IDLE = "dvc exp run, one idle stage"
BOUND = 1.2
TRIALS = 8
STAGES = ("train", "evaluate", "visualize")  # the stages that a new learning rate runs


def rows(*, quick: bool) -> list[Row]:
    """Measure the trial and the experiment."""
    repeats = 2 if quick else 5
    values = itertools.count(1)
    with tempfile.TemporaryDirectory() as name:
        ours = small_project(Path(name) / "ours")
        bare = empty_project(Path(name) / "bare")
        idle = _experiment(bare, (), (f"number={k}" for k in values))
        rates = (f"train.learning_rate={0.001 + k / 1e6}" for k in values)
        learning = _experiment(ours, STAGES, rates)
        for experiment in (idle, learning):  # fill the disk's cache and compile bytecode
            experiment()
        whole = in_turn({OURS: learning, IDLE: idle}, repeats)
        swept = in_turn({OURS: _trial, IDLE: idle}, repeats)
    return [
        Row(
            "a trial's cost beyond its stage, `fieldguide sweep run`, one slot",
            "s",
            swept,
            IDLE,
            BOUND,
            at_least=False,
            limit="DVC's own work on an experiment; DVC is imported once for all trials",
        ),
        Row(
            "an experiment's cost beyond its stages' work",
            "s",
            whole,
            IDLE,
            BOUND,
            at_least=False,
            limit=_limit(whole),
        ),
    ]


def _experiment(
    project: Path, stages: tuple[str, ...], changes: Iterator[str]
) -> Callable[[], float]:
    def cost() -> float:
        seconds = run(str(BIN / "dvc"), "exp", "run", "-S", next(changes), folder=project)
        worked = working_seconds(project) if stages else {}
        return seconds - sum(worked[name] for name in stages)

    return cost


def _trial() -> float:
    """Return the seconds of a sweep of TRIALS idle trials, start included, divided by TRIALS."""
    with tempfile.TemporaryDirectory() as name:
        seconds, _ = sweep(stub(Path(name) / "project", seconds=0), TRIALS, workers=1)
    return seconds / TRIALS


def _limit(measured: dict[str, list[float]]) -> str:
    ours, bare = statistics.median(measured[OURS]), statistics.median(measured[IDLE])
    return (
        f"{ours - bare:.1f} s: {len(STAGES)} processes ({', '.join(STAGES)}) that import PyTorch, "
        "Lightning, scikit-learn or Matplotlib, and DVC's work on all deps and outs"
    )


def main() -> None:
    """Print every row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="2 repeats instead of 5")
    for row in rows(quick=parser.parse_args().quick):
        print(f"{row.work}: {row.ratio:.2f}, bound {row.bound}: {'met' if row.met else 'missed'}")
        print(f"  {row.limit}")


if __name__ == "__main__":
    main()
