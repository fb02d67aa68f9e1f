"""What a running sweep shows: a live table on a terminal, a line for each trial elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Mapping
from itertools import islice
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table as RichTable
from rich.text import Text

from fieldguide.sweeps.ranking import bound
from fieldguide.sweeps.record import DONE, FAILED, PRUNED, Record, Run

_SHOWN = 20  # running trials that are listed; a cluster may have hundreds
_REFRESH = 0.5  # seconds; a driver of a thousand trials has many events in each


class Table:
    """Running, done, failed and pruned trials, the best so far and the time left."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self._jobs = 1  # trials at a time, so far
        self._console = Console(soft_wrap=True, highlight=False, markup=False)
        self._live: Live | None = None
        self._started: dict[str, float] = {}  # names of running trials
        self._took = 0.0  # seconds of the trials that ended here, together
        self._ended_here = 0
        self._shown_at = -_REFRESH
        self._count: Counter[str] = Counter()
        self._best: tuple[float, str] | None = None
        self._failed: list[tuple[str, dict[str, Any]]] = []
        for run in record.runs():
            if (end := record.ended(run)) is not None:
                self._add(run, end)

    def __enter__(self) -> Self:
        """Start to show."""
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

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Take the table away; what has ended stays on the screen."""
        if self._live:
            self._live.stop()

    def started(self, run: Run) -> None:
        """Count the time of a trial from now."""
        self._started[run.name] = time.monotonic()

    def update(
        self, running: Collection[str], epochs: Mapping[str, dict[int, dict[str, float]]]
    ) -> None:
        """Show the trials that run now, and the metrics of their epochs so far."""
        now = time.monotonic()
        self._jobs = max(self._jobs, len(running))
        if not self._live or now < self._shown_at + _REFRESH:
            return
        self._shown_at = now
        rows = RichTable("running", "epoch", self._record.sweep.metric, "seconds", box=None)
        for name in islice(running, _SHOWN):
            reported = epochs.get(name, {})
            last = max(reported, default=0)
            score = f"{reported[last][self._record.sweep.metric]:.4f}" if last else "–"
            seconds = f"{now - self._started[name]:.0f}"
            rows.add_row(Text(name, overflow="ellipsis"), str(last or "–"), score, seconds)
        self._live.update(Group(rows, Text(self._state(len(running)))))

    def ended(self, run: Run) -> None:
        """Count a trial that has just ended, and say how."""
        end = self._record.ended(run)
        assert end is not None
        if run.name in self._started:
            self._took += time.monotonic() - self._started.pop(run.name)
            self._ended_here += 1
        self._add(run, end)
        if end["state"] == FAILED:
            text = f"{end['reason']}; {end['log']}"
        else:
            text = f"{self._record.sweep.metric} {end['score']:.4f}  {end['seconds']:.0f} s"
        self._say(f"{self._ended:>4}  {end['state']:<6}  {run.name}  {text}")

    @property
    def any_ended(self) -> bool:
        """Whether any trial of the sweep has ended, now or before."""
        return self._ended > 0

    def again(self, run: Run, why: str) -> None:
        """Say that a trial is to be started once more."""
        line = why.strip().partition("\n")[0]
        self._say(f"      again   {run.name}  {line}")

    def stopped(self, options: str) -> None:
        """Say that nothing is lost, and with which options to go on."""
        file = self._record.sweep.path
        self._say(f"\n{self._state(0)}\nStopped; go on with: fieldguide sweep run {file}{options}")

    def summary(self) -> bool:
        """Say how the sweep ended; return whether no trial failed."""
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
        self._console.file.flush()  # so that a log that is followed is up to date

    @property
    def _ended(self) -> int:
        return sum(self._count.values())

    def _add(self, run: Run, end: dict[str, Any]) -> None:
        self._count[end["state"]] += 1
        if end["state"] == FAILED:
            self._failed.append((run.name, end))
        elif end["state"] == DONE and (scores := self._record.scores(run)):
            goal = self._record.sweep.goal
            value, better = bound(scores, goal), max if goal == "maximize" else min
            if self._best is None or better(value, self._best[0]) != self._best[0]:
                self._best = (value, run.name)

    def _state(self, running: int) -> str:
        parts = [
            f"{running} running",
            f"{self._count[DONE]} done",
            f"{self._count[PRUNED]} pruned",
            f"{self._count[FAILED]} failed",
            f"{self._record.planned} configurations",
        ]
        text = ", ".join(parts)
        left = self._record.left()
        if left and self._ended_here:
            minutes = left * self._took / self._ended_here / self._jobs / 60
            text += f"; about {max(1, round(minutes))} min left"
        if self._best:
            text += f"; best {self._best[0]:.4f} ({self._best[1]})"
        return text
