"""What a running sweep prints: a line for each run that ends, and on a terminal what is left."""

from __future__ import annotations

import time

from rich.console import Console

from fieldguide.core.errors import first_line
from fieldguide.sweeps.ranking import bound
from fieldguide.sweeps.record import Record
from fieldguide.sweeps.space import Run


class Progress:
    """Prints how runs end, the best so far and the time left."""

    def __init__(self, record: Record) -> None:
        self._record, self._sweep = record, record.sweep
        self._console = Console(soft_wrap=True, highlight=False, markup=False)
        self._status = self._console.status("")  # a last line, on a terminal only
        self._begun, self._proposed_before = time.monotonic(), record.proposed
        self._best: tuple[float, str] | None = None  # bound and name
        self._whole = sum(one.is_whole for one in record.results.values())  # trainings
        for number in range(record.proposed):
            self._compare(number)

    def start(self) -> None:
        """Print what the sweep is."""
        sweep, record = self._sweep, self._record
        seeds = f" with {sweep.seeds} seeds each" if sweep.seeds > 1 else ""
        before = len(record.ended) + len(record.failed)
        again = f"; {before} runs have ended before" if before else ""
        self.say(
            f"{sweep.name}: {sweep.method} search of {record.planned} configurations{seeds}, "
            f"{sweep.goal} {sweep.metric}{again}"
        )
        self._status.start()

    def update(self, running: int) -> None:
        """Show how many runs go on, and what is left."""
        self._status.update(self._state(running))

    def ended(self, run: Run) -> None:
        """Print how a run has ended."""
        if (failure := self._record.failed.get(run.name)) is not None:
            state, text = "failed", f"{failure['reason']}; {failure['log']}"
        else:
            result = self._record.results[run.name]
            self._whole += result.is_whole
            state = "done" if result.is_whole else f"epoch {run.stop_after}"
            text = f"{self._sweep.metric} {result.score:.4f}  {result.seconds:.0f} s"
            self._compare(run.number)
        count = len(self._record.ended) + len(self._record.failed)
        self.say(f"{count:>4}  {state:<8}  {run.name}  {text}")

    def again(self, run: Run, why: str) -> None:
        """Print that a run will be started again."""
        self.say(f"      again     {run.name}  {first_line(why)}")

    def stop(self) -> None:
        """Print how to go on after an interruption."""
        self._status.stop()
        self.say(f"\n{self._state(0)}\nStopped; run the same command again to go on")

    def finish(self) -> None:
        """Print how the sweep has ended, and where to look next."""
        self._status.stop()
        self.say(f"\n{self._state(0)}")
        for name, failure in self._record.failed.items():
            self.say(f"failed: {name}: {failure['reason']}\n        {failure['log']}")
        file = self._sweep.path
        self.say(f"\nReport    fieldguide sweep report {file}")
        self.say(f"Best      fieldguide sweep best {file} --apply")
        self.say("All       dvc exp show")

    def say(self, text: str) -> None:
        """Print a line."""
        self._console.print(text)
        self._console.file.flush()  # for those who follow a log

    def _compare(self, number: int) -> None:
        """Take note of a configuration that is better than all before, once all seeds are done."""
        results, goal = self._record.results_of(number), self._sweep.goal
        if len(results) == self._sweep.seeds and results[0].is_whole:
            value = bound([one.score for one in results], goal)
            better = max if goal == "maximize" else min
            if self._best is None or better(value, self._best[0]) != self._best[0]:
                self._best = (value, results[0].run.name)

    def _state(self, running: int) -> str:
        record = self._record
        paused = len(record.results) - self._whole
        text = (
            f"{running} running; {record.proposed} of {record.planned} configurations begun; "
            f"trainings: {self._whole} whole, {paused} stopped at a rung, "
            f"{len(record.failed)} failed"
        )
        new, left = record.proposed - self._proposed_before, record.planned - record.proposed
        if left > 0 and new > running:
            minutes = (time.monotonic() - self._begun) / 60 / (new - running) * left
            text += f"; about {max(1, round(minutes))} min left"
        if self._best:
            text += f"; best {self._best[0]:.4f} ({self._best[1]})"
        return text
