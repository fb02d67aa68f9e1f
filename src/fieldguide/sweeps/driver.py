"""Run a sweep: proposals become DVC experiments, N at a time, and none is lost.

The record (record.py) says what is wanted and what has ended; a finished trial is an experiment in
Git. All else can be thrown away at any moment, and the same command goes on.
"""

from __future__ import annotations

import math
import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

from fieldguide.errors import SweepError
from fieldguide.params import Params
from fieldguide.stage import EXIT_NO_ROOM
from fieldguide.sweeps.experiments import Trial, read_trials
from fieldguide.sweeps.record import DONE, FAILED, PRUNED, Record, Run
from fieldguide.sweeps.slot import (
    Slot,
    Start,
    check_project,
    how_it_failed,
    is_running,
    remove_aside,
    take_snapshot,
)
from fieldguide.sweeps.space import Sweep, Values
from fieldguide.sweeps.table import Table
from fieldguide.trial import VARIABLE, Channel

_TICK = 0.1  # seconds between looks at the trials
_MOST_STARTS = 6  # of one run that ends without a fault of its own


@dataclass
class _Worker:
    slot: Slot
    run: Run
    process: psutil.Process | None
    channel: Channel
    epochs: dict[int, dict[str, float]] = field(default_factory=dict)  # reported so far


def state_folder(root: Path, sweep: str) -> Path:
    """Where a sweep keeps logs and workspaces, which may be deleted between two runs of it."""
    return root / ".fieldguide" / "sweeps" / sweep


def run_sweep(root: Path, sweep: Sweep, base: Params, *, jobs: int) -> bool:
    """Go on with a sweep, or begin it, until every planned trial has ended.

    Args:
        root: top folder of the project.
        sweep: what is searched.
        base: params.yaml's values.
        jobs: trials at a time.

    Returns:
        Whether all trials finished, none having failed.

    Raises:
        SweepError: another driver runs it, or its record or experiments are of another search.
        KeyboardInterrupt: on Ctrl-C, with the running trials stopped.
    """
    check_project(root)
    with locked(root, sweep), _terminate_as_interrupt():
        return _Driver(root, sweep, base, jobs).run()


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


class _Driver:
    def __init__(self, root: Path, sweep: Sweep, base: Params, jobs: int) -> None:
        self.root, self.sweep, self.jobs = root, sweep, jobs
        self.folder = state_folder(root, sweep.name)
        self.record = Record(sweep, base)
        self.earlier = read_trials(root, sweep.name)  # experiments there are already
        self.start = self._begin()
        self.workers: list[_Worker] = []
        self.gpus = _gpus(base, sweep.fixed)
        self.starts: Counter[str] = Counter()  # of each run, by this driver
        self.table = Table(self.record, jobs)

    def run(self) -> bool:
        self._recover()
        with self.table:
            try:
                while self._fill() or self.workers:
                    for worker in list(self.workers):
                        self._look(worker)
                    self.table.update([(worker.run, worker.epochs) for worker in self.workers])
                    time.sleep(_TICK)
            except BaseException:
                for worker in self.workers:
                    worker.slot.discard()
                self.table.stopped()
                raise
        for path in sorted(self.folder.glob("slot-*")):  # the next start makes new ones
            remove_aside(path)
        return self.table.summary()

    def _begin(self) -> Start:
        """Return what the sweep began with, remembering it the first time."""
        known = {run.name for run in self.record.runs()}
        others = [one for one in self.earlier if one.name not in known]
        if others:
            raise SweepError(
                f"{len(others)} experiments of a sweep {self.sweep.name!r}, as {others[0].name}, "
                f"are not in {self.record.path}; restore the record that goes with them, give "
                "this sweep another `name`, or remove them (dvc exp remove)"
            )
        attrs = self.record.study.user_attrs
        if "baseline" in attrs:
            return Start(attrs["baseline"], attrs["snapshot"])
        start = take_snapshot(self.root, self.sweep.name)
        self.record.study.set_user_attr("snapshot", start.snapshot)
        self.record.study.set_user_attr("baseline", start.baseline)
        return start

    def _recover(self) -> None:
        """Take up what another driver left: running trials, and finished ones not written down."""
        wanted = {run.name: run for run in self.record.waiting()}
        for note in sorted(self.folder.glob("slot-*.json")):
            slot = Slot(self.root, note.with_suffix(""), self.start)
            name, process = slot.running() or ("", None)
            run = wanted.get(name)
            if run and process:
                self.workers.append(_Worker(slot, run, process, self._channel(run)))
                continue
            slot.kill()
            if run:
                self._collect(slot, run)
        for trial in self.earlier:
            if trial.name in wanted and self.record.ended(wanted[trial.name]) is None:
                self._finish(wanted[trial.name], trial)

    def _fill(self) -> bool:
        """Give every free worker a run; return whether one was started."""
        busy = {worker.slot.folder.name for worker in self.workers}
        free = [name for k in range(self.jobs) if (name := f"slot-{k}") not in busy]
        started = False
        while free and len(self.workers) < self.jobs and (run := self._next_run()):
            self._start(Slot(self.root, self.folder / free.pop(0), self.start), run)
            started = True
        return started

    def _next_run(self) -> Run | None:
        running = {worker.run.name for worker in self.workers}
        waiting = (run for run in self.record.waiting() if run.name not in running)
        return next(waiting, None) or self.record.propose()

    def _start(self, slot: Slot, run: Run) -> None:
        self.starts[run.name] += 1
        channel = self._channel(run)
        shutil.rmtree(channel.folder, ignore_errors=True)  # of an earlier start
        channel.open(self.record.rungs if run.prunable else [])
        env = {VARIABLE: str(channel.folder.resolve()), **_threads(self.jobs)}
        if self.gpus:
            env["CUDA_VISIBLE_DEVICES"] = self.gpus[int(slot.folder.name[5:]) % len(self.gpus)]
        log = self._log(run)
        log.parent.mkdir(parents=True, exist_ok=True)
        process = slot.run(run.name, run.overrides, log=log, env=env)
        self.workers.append(_Worker(slot, run, process, channel))

    def _look(self, worker: _Worker) -> None:
        """Answer a trial at its rungs, and collect it when it has ended."""
        worker.epochs = worker.channel.reports()
        for epoch, metrics in worker.epochs.items():
            asks = worker.run.prunable and epoch in self.record.rungs
            if asks and not worker.channel.answered(epoch):
                go_on = self.record.may_go_on(worker.run, epoch, metrics[self.sweep.metric])
                worker.channel.answer(epoch, go_on=go_on)
        if is_running(worker.process):
            return
        self.workers.remove(worker)
        worker.slot.kill()  # a killed DVC leaves its stage running
        self._collect(worker.slot, worker.run)

    def _collect(self, slot: Slot, run: Run) -> None:
        """Write down how a run ended; one that has not ended stays wanted."""
        if trial := slot.finished(run.name):
            slot.hand_over(trial)
            self._finish(run, trial)
            return
        log = self._log(run)
        status, message = how_it_failed(log)
        if status is not None and 0 < status < 128 and status != EXIT_NO_ROOM:  # noqa: PLR2004
            self._end(run, FAILED, reason=message, log=str(log))
            return
        slot.discard()
        if self.starts[run.name] < _MOST_STARTS:
            return
        reason = f"was started {_MOST_STARTS} times and never ended: {message}"
        if not self.table.any_ended:  # then the fault is not that of one trial
            raise SweepError(f"{run.name}: {reason}; {log}")
        self._end(run, FAILED, reason=reason, log=str(log))

    def _finish(self, run: Run, trial: Trial) -> None:
        score = trial.score(self.sweep.metric)
        if score is None or not math.isfinite(score):
            reason = f"metrics/train/metrics.json has no finite best score for {self.sweep.metric}"
            self._end(run, FAILED, reason=reason, log=str(self._log(run)))
        else:
            state = PRUNED if trial.pruned else DONE
            self._end(run, state, score=score, seconds=trial.seconds)

    def _end(self, run: Run, state: str, **facts: Any) -> None:
        self.record.end(run, state, **facts)
        self.table.ended(run)

    def _channel(self, run: Run) -> Channel:
        return Channel(self.folder / "trials" / run.name)

    def _log(self, run: Run) -> Path:
        return self.folder / "logs" / f"{run.name}.log"


def _threads(jobs: int) -> dict[str, str]:
    """An equal share of the cores for each trial, as two that use all of them slow each other."""
    share = max(1, len(os.sched_getaffinity(0)) // jobs)
    given = os.environ.get("OMP_NUM_THREADS", "")
    threads = min(share, int(given)) if given.isdigit() and int(given) else share
    return {"OMP_NUM_THREADS": str(threads)}


def _gpus(base: Params, fixed: Values) -> list[str]:
    """The GPUs that trials take in turn; none where there is one at most, or they want several."""
    # Not checked as a whole: what is fixed may be allowed only with a value that is searched.
    accelerator = fixed.get("train.accelerator", base.train.accelerator)
    if accelerator not in ("auto", "gpu") or fixed.get("train.devices", base.train.devices) != 1:
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [gpu.strip() for gpu in visible.split(",") if gpu.strip()]
    import torch  # noqa: PLC0415 - takes seconds, and most have no need

    return [str(k) for k in range(torch.cuda.device_count())]


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
