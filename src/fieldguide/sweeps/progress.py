"""What a running sweep prints: a live table on a terminal, and a line for each run that ends."""

from __future__ import annotations

import time
from collections.abc import Iterable
from itertools import islice
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from fieldguide.core.errors import first_line
from fieldguide.sweeps.ranking import bound
from fieldguide.sweeps.record import Record
from fieldguide.sweeps.space import Run

_SHOWN = 20  # running runs that are listed; a cluster may have hundreds
_REFRESH = 0.5  # seconds


class Progress:
    """What runs, what has ended, the best so far and the time left."""

    def __init__(self, record: Record) -> None:
        self._record, self._sweep = record, record.sweep
        self._console = Console(soft_wrap=True, highlight=False, markup=False)
        self._live: Live | None = None
        self._started: dict[str, float] = {}  # running run -> when it started
        self._begun = time.monotonic()
        self._proposed_before = record.proposed
        self._best: tuple[float, str] | None = None  # bound and name
        for number in range(record.proposed):
            self._compare(number)

    def __enter__(self) -> Self:
        """Print what the sweep is, and on a terminal begin the table."""
        sweep, record = self._sweep, self._record
        before = len(record.ended) + len(record.failed)
        self.say(
            f"{sweep.name}: {sweep.method} search of {record.planned} configurations"
            + (f" with {sweep.seeds} seeds each" if sweep.seeds > 1 else "")
            + f", {sweep.goal} {sweep.metric}"
            + (f"; {before} runs have ended before" if before else "")
        )
        if self._console.is_terminal:
            self._live = Live(
                console=self._console, refresh_per_second=1 / _REFRESH, transient=True
            )
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the table; the lines of ended runs stay on the screen."""
        if self._live:
            self._live.stop()

    def started(self, run: Run) -> None:
        """Measure the time of a run from now on."""
        self._started[run.name] = time.monotonic()

    def update(self, running: Iterable[Run]) -> None:
        """Show the running runs, each with its place in the training."""
        if not self._live:
            return
        now, runs = time.monotonic(), list(running)
        table = Table("running", "to epoch", "seconds", box=None)
        for run in islice(runs, _SHOWN):
            seconds = f"{now - self._started[run.name]:.0f}"
            table.add_row(
                Text(run.name, overflow="ellipsis"), str(run.stop_after or "the last"), seconds
            )
        self._live.update(Group(table, Text(self._state(len(runs)))))

    def ended(self, run: Run) -> None:
        """Print how a run has ended."""
        self._started.pop(run.name, None)
        if (failure := self._record.failed.get(run.name)) is not None:
            state, text = "failed", f"{failure['reason']}; {failure['log']}"
        else:
            result = self._record.results[run.name]
            state = "done" if result.is_whole else f"epoch {run.stop_after}"
            text = f"{self._sweep.metric} {result.score:.4f}  {result.seconds:.0f} s"
            self._compare(run.number)
        count = len(self._record.ended) + len(self._record.failed)
        self.say(f"{count:>4}  {state:<8}  {run.name}  {text}")

    def again(self, run: Run, why: str) -> None:
        """Print that a run will be started again."""
        self.say(f"      again     {run.name}  {first_line(why)}")

    def stopped(self) -> None:
        """Print how to go on."""
        self.say(f"\n{self._state(0)}\nStopped; run the same command again to go on")

    def summary(self) -> bool:
        """Print how the sweep ended; return whether no run failed."""
        self.say(f"\n{self._state(0)}")
        for name, failure in self._record.failed.items():
            self.say(f"failed: {name}: {failure['reason']}\n        {failure['log']}")
        file = self._sweep.path
        self.say(f"\nReport    fieldguide sweep report {file}")
        self.say(f"Best      fieldguide sweep best {file} --apply")
        self.say("All       dvc exp show")
        return not self._record.failed

    def say(self, text: str) -> None:
        """Print a line above the table."""
        self._console.print(text)
        self._console.file.flush()  # for those who follow a log

    def _compare(self, number: int) -> None:
        """Take note of a configuration that is better than all before, once all seeds are done."""
        results = self._record.results_of(number)
        if len(results) == self._sweep.seeds and results[0].is_whole:
            goal = self._sweep.goal
            value = bound([one.score for one in results], goal)
            better = max if goal == "maximize" else min
            if self._best is None or better(value, self._best[0]) != self._best[0]:
                self._best = (value, results[0].run.name)

    def _state(self, running: int) -> str:
        record = self._record
        done = sum(one.is_whole for one in record.results.values())
        text = (
            f"{running} running; {record.proposed} of {record.planned} configurations begun; "
            f"trainings: {done} whole, {len(record.results) - done} stopped at a rung, "
            f"{len(record.failed)} failed"
        )
        new, left = record.proposed - self._proposed_before, record.planned - record.proposed
        if left > 0 and new > running:
            minutes = (time.monotonic() - self._begun) / 60 / (new - running) * left
            text += f"; about {max(1, round(minutes))} min left"
        if self._best:
            text += f"; best {self._best[0]:.4f} ({self._best[1]})"
        return text
