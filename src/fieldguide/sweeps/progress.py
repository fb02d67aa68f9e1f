"""What a running sweep prints: a live table on a terminal, and a line for each trial that ends."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Mapping
from itertools import islice
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from fieldguide.core.errors import first_line
from fieldguide.sweeps.ranking import bound
from fieldguide.sweeps.record import DONE, FAILED, PRUNED, PlannedTrial, Record

_SHOWN = 20  # running trials that are listed; a cluster may have hundreds
_REFRESH = 0.5  # seconds between two tables; a thousand trials have many events in that time


class Progress:
    """Running, done, failed and pruned trials, the best so far and the time left."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self._jobs = 1  # most trials at a time so far
        self._console = Console(soft_wrap=True, highlight=False, markup=False)
        self._live: Live | None = None
        self._started: dict[str, float] = {}  # running trial -> when it started
        self._took = 0.0  # seconds of all trials that ended here
        self._ended_here = 0
        self._shown_at = -_REFRESH
        self._count: Counter[str] = Counter()
        self._best: tuple[float, str] | None = None
        self._failed: list[tuple[str, dict[str, Any]]] = []
        for trial in record.proposed():
            if (end := record.ended(trial)) is not None:
                self._add(trial, end)

    def __enter__(self) -> Self:
        """Print what the sweep is, and on a terminal begin the table."""
        sweep = self._record.sweep
        self._say(
            f"{sweep.name}: {sweep.method} search of {self._record.planned} configurations"
            + (f" with {sweep.seeds} seeds each" if sweep.seeds > 1 else "")
            + f", {sweep.goal} {sweep.metric}"
            + (f"; {self._ended} trials have ended before" if self._ended else "")
        )
        if self._console.is_terminal:
            self._live = Live(
                console=self._console, refresh_per_second=1 / _REFRESH, transient=True
            )
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the table; the lines of ended trials stay on the screen."""
        if self._live:
            self._live.stop()

    def started(self, trial: PlannedTrial) -> None:
        """Measure the time of a trial from now on."""
        self._started[trial.name] = time.monotonic()

    def update(
        self, running: Collection[str], epochs: Mapping[str, dict[int, dict[str, float]]]
    ) -> None:
        """Show the running trials and the metrics of their latest epoch."""
        now = time.monotonic()
        self._jobs = max(self._jobs, len(running))
        if not self._live or now < self._shown_at + _REFRESH:
            return
        self._shown_at = now
        table = Table("running", "epoch", self._record.sweep.metric, "seconds", box=None)
        for name in islice(running, _SHOWN):
            reported = epochs.get(name, {})
            last = max(reported, default=0)
            score = f"{reported[last][self._record.sweep.metric]:.4f}" if last else "–"
            seconds = f"{now - self._started[name]:.0f}"
            table.add_row(Text(name, overflow="ellipsis"), str(last or "–"), score, seconds)
        self._live.update(Group(table, Text(self._state(len(running)))))

    def ended(self, trial: PlannedTrial) -> None:
        """Print how a trial has ended."""
        end = self._record.ended(trial)
        assert end is not None
        if trial.name in self._started:
            self._took += time.monotonic() - self._started.pop(trial.name)
            self._ended_here += 1
        self._add(trial, end)
        if end["state"] == FAILED:
            text = f"{end['reason']}; {end['log']}"
        else:
            text = f"{self._record.sweep.metric} {end['score']:.4f}  {end['seconds']:.0f} s"
        self._say(f"{self._ended:>4}  {end['state']:<6}  {trial.name}  {text}")

    @property
    def any_ended(self) -> bool:
        """Whether any trial of the sweep has ended, now or before."""
        return self._ended > 0

    def again(self, trial: PlannedTrial, why: str) -> None:
        """Print that a trial will be started again."""
        self._say(f"      again   {trial.name}  {first_line(why)}")

    def stopped(self) -> None:
        """Print how to go on."""
        self._say(f"\n{self._state(0)}\nStopped; run the same command again to go on")

    def summary(self) -> bool:
        """Print how the sweep ended; return whether no trial failed."""
        self._say(f"\n{self._state(0)}")
        for name, end in self._failed:
            self._say(f"failed: {name}: {end['reason']}\n        {end['log']}")
        file = self._record.sweep.path
        self._say(f"\nReport    fieldguide sweep report {file}")
        self._say(f"Best      fieldguide sweep best {file} --apply")
        self._say("All       dvc exp show")
        return not self._failed

    def _say(self, text: str) -> None:
        self._console.print(text)
        self._console.file.flush()  # for those who follow a log

    @property
    def _ended(self) -> int:
        return sum(self._count.values())

    def _add(self, trial: PlannedTrial, end: dict[str, Any]) -> None:
        self._count[end["state"]] += 1
        if end["state"] == FAILED:
            self._failed.append((trial.name, end))
        elif end["state"] == DONE and (scores := self._record.scores(trial)):
            goal = self._record.sweep.goal
            value, better = bound(scores, goal), max if goal == "maximize" else min
            if self._best is None or better(value, self._best[0]) != self._best[0]:
                self._best = (value, trial.name)

    def _state(self, running: int) -> str:
        text = (
            f"{running} running, {self._count[DONE]} done, {self._count[PRUNED]} pruned, "
            f"{self._count[FAILED]} failed, {self._record.planned} configurations"
        )
        left = self._record.left()
        if left and self._ended_here:
            minutes = left * self._took / self._ended_here / self._jobs / 60
            text += f"; about {max(1, round(minutes))} min left"
        if self._best:
            text += f"; best {self._best[0]:.4f} ({self._best[1]})"
        return text
