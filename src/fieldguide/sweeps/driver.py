"""Run a sweep: proposals become DVC experiments, N at a time, and none is lost.

The record (record.py) says what is wanted and what has ended; a finished trial is an experiment in
Git. All else can be thrown away at any moment, and the same command goes on. Where trials run is
the pool's business (pool.py).
"""

from __future__ import annotations

import math
import signal
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from fieldguide.core.errors import SweepError
from fieldguide.core.params import Params
from fieldguide.sweeps.experiments import Trial, read_trials
from fieldguide.sweeps.pool import Ended, Pool, Reported
from fieldguide.sweeps.record import DONE, FAILED, PRUNED, Record, Run
from fieldguide.sweeps.slot import Start, check_project, take_snapshot
from fieldguide.sweeps.space import Sweep
from fieldguide.sweeps.table import Table

_MOST_STARTS = 6  # of one run that ends without a fault of its own
OpenPool = Callable[[Path, Start], Pool]


def state_folder(root: Path, sweep: str) -> Path:
    """Where a sweep keeps logs and workspaces, which may be deleted between two runs of it."""
    return root / ".fieldguide" / "sweeps" / sweep


def run_sweep(root: Path, sweep: Sweep, base: Params, open_pool: OpenPool) -> bool:
    """Go on with a sweep, or begin it, until every planned trial has ended.

    Args:
        root: top folder of the project.
        sweep: what is searched.
        base: params.yaml's values.
        open_pool: makes the place where trials run, of the sweep's state folder and its start.

    Returns:
        Whether all trials finished, none having failed.

    Raises:
        SweepError: another driver runs it, or its record or experiments are of another search.
        KeyboardInterrupt: on Ctrl-C, with the running trials stopped.
    """
    check_project(root)
    with locked(root, sweep), _terminate_as_interrupt():
        record = Record(sweep, base)
        start = _start(root, record)
        pool = open_pool(state_folder(root, sweep.name), start)  # which may refuse it
        record.study.set_user_attr("snapshot", start.snapshot)
        record.study.set_user_attr("baseline", start.baseline)
        return _Driver(root, record, pool).run()


@contextmanager
def locked(root: Path, sweep: Sweep) -> Iterator[None]:
    """Keep other drivers away; the kernel frees the lock of one that was killed.

    Raises:
        SweepError: another one has it.
    """
    folder = state_folder(root, sweep.name)
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / "driver.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as err:
        raise SweepError(f"{sweep.path}: another process runs this sweep already") from err
    with lock:
        yield


def _start(root: Path, record: Record) -> Start:
    """Return what the sweep began with; the workspace as it is, if it begins now."""
    attrs = record.study.user_attrs
    if "baseline" in attrs:
        return Start(attrs["baseline"], attrs["snapshot"])
    return take_snapshot(root, record.sweep.name)


class _Driver:
    def __init__(self, root: Path, record: Record, pool: Pool) -> None:
        self.root, self.record, self.pool = root, record, pool
        self.waiting: deque[Run] = deque()  # to be started before anything is proposed
        self.running: dict[str, Run] = {}
        self.epochs: dict[str, dict[int, dict[str, float]]] = {}  # reported by those
        self.starts: Counter[str] = Counter()  # of each run, by this driver
        self.place_failures = 0  # in a row
        self.table = Table(record)

    def run(self) -> bool:
        with self.table:
            try:
                self._recover()
                while left := self.record.left():  # not: while any runs; all may be away
                    self.pool.expect(left)
                    self._fill()
                    for event in self.pool.wait():
                        if isinstance(event, Reported):
                            self._answer(event)
                        else:
                            self._collect(event)
                    self.table.update(self.running, self.epochs)
            except BaseException:
                self.pool.stop()
                self.table.stopped(self.pool.options)
                raise
        self.pool.close()
        return self.table.summary()

    def _recover(self) -> None:
        """Take up what another driver left: running trials, and finished ones not written down."""
        wanted = {run.name: run for run in self.record.waiting()}
        for name in self.pool.recover(wanted):
            self.running[name] = wanted[name]
            self.table.started(wanted[name])
        known = {run.name for run in self.record.runs()}
        sweep, trials = self.record.sweep, read_trials(self.root, self.record.sweep.name)
        others = [one for one in trials if one.name not in known]
        if others:
            raise SweepError(
                f"{len(others)} experiments of a sweep {sweep.name!r}, as {others[0].name}, "
                f"are not in {self.record.path}; restore the record that goes with them, give "
                "this sweep another `name`, or remove them (dvc exp remove)"
            )
        for trial in trials:
            if trial.name in wanted and trial.name not in self.running:
                self._finish(wanted[trial.name], trial)
        ended = (run for run in wanted.values() if self.record.ended(run) is None)
        self.waiting.extend(run for run in ended if run.name not in self.running)

    def _fill(self) -> None:
        """Give the pool as many runs as it has room for."""
        while self.pool.room() > 0 and (run := self._next_run()):
            self.starts[run.name] += 1
            self.running[run.name] = run
            self.table.started(run)
            self.pool.start(run, self.record.rungs if run.prunable else [])

    def _next_run(self) -> Run | None:
        return self.waiting.popleft() if self.waiting else self.record.propose()

    def _answer(self, event: Reported) -> None:
        """Remember an epoch and, at a rung, say whether the trial may go on."""
        run = self.running[event.name]
        self.epochs.setdefault(event.name, {})[event.epoch] = event.metrics
        if run.prunable and event.epoch in self.record.rungs:
            score = event.metrics[self.record.sweep.metric]
            go_on = self.record.may_go_on(run, event.epoch, score)
            self.pool.answer(event.name, event.epoch, go_on=go_on)

    def _collect(self, event: Ended) -> None:
        """Write down how a run ended; one that has not ended stays wanted."""
        run = self.running.pop(event.name)
        self.epochs.pop(event.name, None)
        log = str(self.pool.log(run.name))
        if event.of_place:
            self._try_elsewhere(run, event)
            return
        self.place_failures = 0
        if event.trial:
            self._finish(run, event.trial)
        elif event.is_its_own_fault:
            self._end(run, FAILED, reason=event.message, log=log)
        elif self.starts[run.name] < _MOST_STARTS:
            self.waiting.appendleft(run)
            self.table.again(run, event.message)
        else:
            reason = f"was started {_MOST_STARTS} times and never ended: {event.message}"
            if not self.table.any_ended:  # then the fault is not that of one trial
                raise SweepError(f"{run.name}: {reason}; {log}")
            self._end(run, FAILED, reason=reason, log=log)

    def _try_elsewhere(self, run: Run, event: Ended) -> None:
        """Keep a run for a better place; stop where there seems to be none.

        Raises:
            SweepError: places fail in a row, and nothing runs that could still show a good one.
        """
        self.starts[run.name] -= 1
        self.place_failures += 1
        if self.place_failures >= _MOST_STARTS and not self.running:
            raise SweepError(
                f"{run.name}: no place could run it, {self.place_failures} times in a row: "
                f"{event.message}"
            )
        self.waiting.appendleft(run)
        self.table.again(run, event.message)

    def _finish(self, run: Run, trial: Trial) -> None:
        score = trial.score(self.record.sweep.metric)
        if score is None or not math.isfinite(score):
            metric = self.record.sweep.metric
            reason = f"metrics/train/metrics.json has no finite best score for {metric}"
            self._end(run, FAILED, reason=reason, log=str(self.pool.log(run.name)))
        else:
            state = PRUNED if trial.pruned else DONE
            self._end(run, state, score=score, seconds=trial.seconds)

    def _end(self, run: Run, state: str, **facts: Any) -> None:
        self.waiting.extend(self.record.end(run, state, **facts))
        self.table.ended(run)


@contextmanager
def _terminate_as_interrupt() -> Iterator[None]:
    """Treat SIGTERM, a job scheduler's, as Ctrl-C."""

    def interrupt(number: int, frame: object) -> None:  # noqa: ARG001 - Python's signature
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
