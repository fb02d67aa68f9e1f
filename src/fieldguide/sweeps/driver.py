"""Run a sweep: proposals become DVC experiments, several at a time, and none is lost.

The record (record.py) says which trials are wanted and which have ended; a finished trial is an
experiment in Git. Everything else may be lost at any moment, and the same command goes on. How
trials run is the pool's business (pool.py).
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

from fieldguide.core.errors import GitError, SweepError
from fieldguide.core.params import Params
from fieldguide.results.git import git, subfolder_of
from fieldguide.results.paths import TRAIN_METRICS
from fieldguide.sweeps.experiments import Trial, read_curves, read_trials
from fieldguide.sweeps.pool import Ended, Pool, Reported
from fieldguide.sweeps.progress import Progress
from fieldguide.sweeps.record import DONE, FAILED, PRUNED, PlannedTrial, Record
from fieldguide.sweeps.slot import StartingPoint, log_file
from fieldguide.sweeps.space import Sweep

_MOST_STARTS = 6  # of a trial that ends for a reason other than its params
_MOST_NODE_FAILURES = 6  # in a row
OpenPool = Callable[[Path, StartingPoint], Pool]


def state_folder(root: Path, sweep: str) -> Path:
    """Return where a sweep keeps logs and slots, which may be deleted between two runs of it."""
    return root / ".fieldguide" / "sweeps" / sweep


def run_sweep(root: Path, sweep: Sweep, base: Params, open_pool: OpenPool) -> bool:
    """Go on with a sweep, or begin it, until every planned trial has ended.

    Args:
        root: the project.
        sweep: what is searched.
        base: params.yaml's values.
        open_pool: makes the pool of workers from the sweep's state folder and starting point.

    Returns:
        Whether all trials finished, none having failed.

    Raises:
        SweepError: `root` is no DVC project or has no commit, another driver runs the sweep, or its
            record or experiments are of another search.
        KeyboardInterrupt: on Ctrl-C, with the running trials stopped.
    """
    if not (root / ".dvc").is_dir():
        raise SweepError(f"{root}: has no folder .dvc; allowed: a DVC project in a Git repository")
    with locked(root, sweep), _terminate_as_interrupt():
        record = Record(sweep, base)
        attrs = record.study.user_attrs
        if "baseline" in attrs:
            start = StartingPoint(attrs["baseline"], attrs["snapshot"], subfolder_of(root))
        else:
            start = take_snapshot(root, sweep.name)
        pool = open_pool(state_folder(root, sweep.name), start)  # may refuse the starting point
        record.study.set_user_attr("snapshot", start.snapshot)
        record.study.set_user_attr("baseline", start.baseline)
        return Driver(root, record, pool).run()


def take_snapshot(root: Path, sweep: str) -> StartingPoint:
    """Record the workspace with its uncommitted changes, as `dvc exp run --queue` does.

    Raises:
        SweepError: the repository has no commit.
    """
    try:
        baseline = git(root, "rev-parse", "--verify", "HEAD").strip()
    except GitError as err:
        raise SweepError(f"{root}: has no commit yet, and experiments need one") from err
    git(root, "status")  # refreshes the index, without which `stash create` may fail
    snapshot = git(root, "stash", "create").strip() or baseline
    # A ref keeps it from `git gc`. Other projects of the repository may have a sweep of this name.
    git(root, "update-ref", f"refs/fieldguide/{sweep}-{snapshot}", snapshot)
    return StartingPoint(baseline, snapshot, subfolder_of(root))


@contextmanager
def locked(root: Path, sweep: Sweep) -> Iterator[None]:
    """Keep other drivers away; if this one is killed, the kernel frees the lock.

    Raises:
        SweepError: another driver has it.
    """
    folder = state_folder(root, sweep.name)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        lock = FileLock(folder / "driver.lock").acquire(timeout=0)
    except Timeout as err:
        raise SweepError(f"{sweep.path}: another process runs this sweep already") from err
    with lock:
        yield


class Driver:
    """Starts the trials that the record wants, and records how they end."""

    def __init__(self, root: Path, record: Record, pool: Pool) -> None:
        self.root, self.record, self.pool = root, record, pool
        self.waiting: deque[PlannedTrial] = deque()  # to be started before anything is proposed
        self.running: dict[str, PlannedTrial] = {}
        self.epochs: dict[str, dict[int, dict[str, float]]] = {}  # reported by running trials
        self.starts: Counter[str] = Counter()  # of each trial, by this driver
        self.node_failures = 0  # in a row
        self.progress = Progress(record)
        self.folder = state_folder(root, record.sweep.name)

    def run(self) -> bool:
        """Run the sweep to its end; return whether no trial failed."""
        with self.progress:
            try:
                self._recover()
                while left := self.record.left():  # also while none runs: all nodes may be away
                    self.pool.expect(left)
                    self._fill()
                    for event in self.pool.wait():
                        if isinstance(event, Reported):
                            self._answer(event)
                        else:
                            self._collect(event)
                    self.progress.update(self.running, self.epochs)
            except BaseException:
                self.pool.stop()
                self.progress.stopped()
                raise
        self.pool.close()
        return self.progress.summary()

    def _recover(self) -> None:
        """Take up trials that still run, and finished ones that no driver has recorded."""
        wanted = {trial.name: trial for trial in self.record.waiting()}
        for name in self.pool.recover(wanted):
            self.running[name] = wanted[name]
            self.progress.started(wanted[name])
        known = {trial.name for trial in self.record.proposed()}
        sweep, finished = self.record.sweep, read_trials(self.root, self.record.sweep.name)
        others = [one for one in finished if one.name not in known]
        if others:
            raise SweepError(
                f"{len(others)} experiments of a sweep {sweep.name!r}, as {others[0].name}, "
                f"are not in {self.record.path}; restore the record that goes with them, give "
                "this sweep another `name`, or remove them (dvc exp remove)"
            )
        for one in finished:
            if one.name in wanted and one.name not in self.running:
                self._finish(wanted[one.name], one)
        for trial in wanted.values():
            if self.record.ended(trial) is None and trial.name not in self.running:
                self.waiting.append(trial)

    def _fill(self) -> None:
        """Start as many trials as the pool has room for."""
        while self.pool.room() > 0:
            trial = self.waiting.popleft() if self.waiting else self.record.propose()
            if trial is None:
                return
            self.starts[trial.name] += 1
            self.running[trial.name] = trial
            self.progress.started(trial)
            self.pool.start(trial, self.record.rungs if trial.prunable else [])

    def _answer(self, event: Reported) -> None:
        """Keep an epoch's metrics and, at a rung, tell the trial whether to go on."""
        trial = self.running[event.name]
        self.epochs.setdefault(event.name, {})[event.epoch] = event.metrics
        if trial.prunable and event.epoch in self.record.rungs:
            score = event.metrics[self.record.sweep.metric]
            go_on = self.record.may_go_on(trial, event.epoch, score)
            self.pool.answer(event.name, event.epoch, go_on=go_on)

    def _collect(self, event: Ended) -> None:
        """Record how a trial ended, or start it again if that was not its own fault."""
        trial = self.running.pop(event.name)
        self.epochs.pop(event.name, None)
        if event.node_failed:
            self._try_elsewhere(trial, event)
            return
        self.node_failures = 0
        if event.trial:
            self._finish(trial, event.trial)
        elif event.is_its_own_fault:
            self._fail(trial, event.message)
        elif self.starts[trial.name] < _MOST_STARTS:
            self.waiting.appendleft(trial)
            self.progress.again(trial, event.message)
        else:
            reason = f"was started {_MOST_STARTS} times and never ended: {event.message}"
            if not self.progress.any_ended:  # probably every trial will fail
                raise SweepError(f"{trial.name}: {reason}; {log_file(self.folder, trial.name)}")
            self._fail(trial, reason)

    def _try_elsewhere(self, trial: PlannedTrial, event: Ended) -> None:
        """Keep a trial for another node; stop the sweep if no node seems to be good.

        Raises:
            SweepError: nodes fail in a row, and nothing runs that could still show a good one.
        """
        self.starts[trial.name] -= 1
        self.node_failures += 1
        if self.node_failures >= _MOST_NODE_FAILURES and not self.running:
            raise SweepError(
                f"{trial.name}: no node could run it, {self.node_failures} times in a row: "
                f"{event.message}"
            )
        self.waiting.appendleft(trial)
        self.progress.again(trial, event.message)

    def _finish(self, planned: PlannedTrial, trial: Trial) -> None:
        """Record a trial that is an experiment now."""
        metric = self.record.sweep.metric
        score = trial.score(metric)
        if score is None or not math.isfinite(score):
            self._fail(planned, f"{TRAIN_METRICS} has no finite best score for {metric}")
            return
        if planned.prunable and not trial.pruned and (unasked := self.record.unasked(planned)):
            # DVC's run cache had the whole training: the others are still compared with it.
            curve = read_curves(self.root, trial).get(metric, [])
            for epoch in unasked:
                if epoch <= len(curve):
                    self.record.may_go_on(planned, epoch, curve[epoch - 1])
        state = PRUNED if trial.pruned else DONE
        self._end(planned, state, score=score, seconds=trial.seconds)

    def _fail(self, trial: PlannedTrial, reason: str) -> None:
        self._end(trial, FAILED, reason=reason, log=str(log_file(self.folder, trial.name)))

    def _end(self, trial: PlannedTrial, state: str, **facts: Any) -> None:
        self.waiting.extend(self.record.end(trial, state, **facts))
        self.progress.ended(trial)


@contextmanager
def _terminate_as_interrupt() -> Iterator[None]:
    """Handle SIGTERM, which job schedulers send, like Ctrl-C."""

    def interrupt(number: int, frame: object) -> None:  # noqa: ARG001 - Python's signature
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
