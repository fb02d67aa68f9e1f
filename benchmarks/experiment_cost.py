"""Seconds that a trial of a sweep costs beyond the work of its stage.

    python benchmarks/experiment_cost.py [--quick]

A sweep of trials whose stage does nothing, its start included, is compared with a whole
`dvc exp run` of a stage that does nothing. Each trial runs DVC in a process of its own.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from pathlib import Path

from side_by_side import OURS, Row, in_turn
from small_project import BIN, empty_project, run
from sweep_overhead import stub, sweep

IDLE = "dvc exp run, one idle stage"
BOUND = 1.5
TRIALS = 8


def rows(*, quick: bool) -> list[Row]:
    """Measure a trial."""
    values = itertools.count(1)
    with tempfile.TemporaryDirectory() as name:
        bare = empty_project(Path(name) / "bare")

        def idle() -> float:
            return run(str(BIN / "dvc"), "exp", "run", "-S", f"number={next(values)}", folder=bare)

        idle()  # fills the disk's cache and compiles bytecode
        measured = in_turn({OURS: _trial, IDLE: idle}, 2 if quick else 5)
    return [
        Row(
            "a trial's cost beyond its stage, `fieldguide sweep run`, one worker",
            "s",
            measured,
            IDLE,
            BOUND,
            at_least=False,
            limit="DVC's own work on an experiment, and Git's on the worker's clone",
        )
    ]


def _trial() -> float:
    """Return the seconds of a sweep of TRIALS idle trials, start included, divided by TRIALS."""
    with tempfile.TemporaryDirectory() as name:
        seconds, _ = sweep(stub(Path(name) / "project", seconds=0), TRIALS, workers=1)
    return seconds / TRIALS


def main() -> None:
    """Print the row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="2 repeats instead of 5")
    for row in rows(quick=parser.parse_args().quick):
        print(f"{row.work}: {row.ratio:.2f}, bound {row.bound}: {'met' if row.met else 'missed'}")
        print(f"  {row.limit}")


if __name__ == "__main__":
    main()
