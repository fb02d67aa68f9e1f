"""The record of a sweep: the runs that it has wanted so far, and how they ended.

It is an Optuna study in a file beside the sweep file, which Optuna's own tools can read. A trial of
Optuna is one run; a configuration has a run for each rung and seed. Only the driver, which holds
the sweep's lock, writes it.
"""

from __future__ import annotations

import hashlib
import json
import os
import statistics
from collections import deque
from datetime import UTC
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState, create_trial

from fieldguide.core.errors import SweepError
from fieldguide.core.params import Params
from fieldguide.sweeps.promotion import Promotion
from fieldguide.sweeps.proposals import Proposals
from fieldguide.sweeps.space import (
    SECTIONS,
    EndedRun,
    Run,
    Sweep,
    Values,
    epochs_of,
    trial_name,
)

_STALE = 3  # seconds after which the lock of an entry that a kill interrupted is ignored


class Record:
    """The record of one sweep, and what the sweep wants next."""

    def __init__(self, sweep: Sweep, base: Params, *, writes: bool = True) -> None:
        """Open it, or begin it.

        Args:
            sweep: what is searched.
            base: params.yaml's values.
            writes: False to read the results of a sweep, which a driver may be running.

        Raises:
            SweepError: the file is the record of another search, or none at all; or it is to be
                read, and no run has ended.
        """
        self.sweep, self.base, self.path = sweep, base, record_path(sweep.path)
        if writes:
            _remove_half_an_entry(self.path)
        elif not self.path.exists():
            raise _nothing_has_ended(sweep)
        self._storage, self._study_id = _open(self.path, sweep)
        self._check_same("sweep", str(sweep.path), sweep.definition)
        if writes:
            kept = _kept(sweep, base)
            sha256 = hashlib.sha256(kept.encode()).hexdigest()
            self._check_same("params", "params.yaml", sha256[:16])
        early = sweep.early_terminate
        stops = early.rungs(epochs_of(base, sweep.fixed)) if early else []
        self._promotion = Promotion(stops, early.eta if early else 2, sweep.goal)
        self._proposals = Proposals(sweep, base)
        self._configurations: list[Values] = []  # by number, as Optuna holds them
        self._ids: dict[tuple[int, int, int], int] = {}  # Optuna's, by the key of each run
        self._waiting: deque[Run] = deque()  # to be started again
        self._seeds: deque[tuple[int, int]] = deque()  # configurations and further seeds
        self._going: set[tuple[int, int, int]] = set()  # keys of runs that this driver has started
        self.results: dict[str, EndedRun] = {}  # of the highest rung, by the experiment's name
        self.ended: list[EndedRun] = []  # all
        self.failed: dict[str, dict[str, str]] = {}  # reason and log, by the experiment's name
        self._read()
        if not writes and not self.ended:
            raise _nothing_has_ended(sweep)

    def _check_same(self, key: str, file: str, value: str) -> None:
        """Refuse to mix two searches in one record."""
        known = self.facts.get(key)
        if known is None:
            self.keep(key, value)
        elif known != value:
            note = " (only run_cap may change)" if key == "sweep" else ""
            raise SweepError(
                f"{file}: changed since {self.path} was begun{note}; restore it, or copy the sweep "
                "file under a new file name and set a new `name`"
            )

    @property
    def facts(self) -> dict[str, str]:
        """What `keep` has stored."""
        return dict(self._storage.get_study_user_attrs(self._study_id))

    def keep(self, name: str, value: str) -> None:
        """Store a fact about the sweep."""
        self._storage.set_study_user_attr(self._study_id, name, value)

    @property
    def planned(self) -> int:
        """Number of configurations to try; below `run_cap` if the space has no more."""
        return self._proposals.planned

    @property
    def proposed(self) -> int:
        """Number of configurations so far."""
        return len(self._configurations)

    def next(self) -> Run | None:
        """Return a run to start now; None if there is none before another one ends.

        What was interrupted comes first, then further seeds, promotions and new configurations.
        """
        if self._waiting:
            run: Run | None = self._waiting.popleft()
        else:
            run = self._next_seed() or self._next_promotion() or self._next_configuration()
        if run is None and not self._going:
            run = self._next_promotion(last=True) or self._next_seed()
        if run is not None:
            self._going.add(run.key)
        return run

    def _next_seed(self) -> Run | None:
        return self._begin(*self._seeds.popleft(), 0) if self._seeds else None

    def _next_configuration(self) -> Run | None:
        if self.proposed >= self.planned:
            return None
        self._add_configuration(self._proposals.next(self.proposed))
        return self._begin(self.proposed - 1, 0, self._promotion.stops[0])

    def _next_promotion(self, *, last: bool = False) -> Run | None:
        """Return a run of a configuration that goes on to the next rung."""
        while found := self._promotion.last() if last else self._promotion.next():
            number, stop = found
            before = self.results[self._run(number, 0, stop).name]
            if not before.is_whole:
                return self._begin(number, 0, stop)
            # Early stopping has ended its training: it is at the next rung without a run.
            self._promotion.begin(number, stop)
            self._enter(number, stop, before.score)
        return None

    def again(self, run: Run) -> None:
        """Put back a run that has ended without a result, or whose experiment is missing."""
        self._going.discard(run.key)
        self._waiting.append(run)

    def may_be_promoted(self, most: int | None = None) -> set[int]:
        """Return the configurations whose checkpoints may still be needed, at most `most` a rung.

        Those that run now are among them.
        """
        found = {number for number, *_ in self._going}
        for stop in self._promotion.stops[:-1]:
            found.update(self._promotion.may_be_promoted(stop, self.planned)[:most])
        return found

    def finish(self, run: Run, *, score: float, epochs: int, seconds: float) -> None:
        """Record the result of a run: the score, all epochs of the training, and its own seconds.

        The second result of a run, whose experiment was missing, changes nothing.
        """
        self._going.discard(run.key)
        if not self._has_ended(run):
            trial_id = self._ids[run.key]
            end = {"epochs": epochs, "seconds": seconds}
            self._storage.set_trial_user_attr(trial_id, "end", end)
            if run.stop_after:
                self._storage.set_trial_intermediate_value(trial_id, run.stop_after, score)
            state = TrialState.PRUNED if run.stop_after else TrialState.COMPLETE
            self._storage.set_trial_state_values(trial_id, state, [score])
            self._add_end(run, self._storage.get_trial(trial_id))

    def fail(self, run: Run, reason: str, log: str) -> None:
        """Record that a run cannot end with a result."""
        self._going.discard(run.key)
        if self._has_ended(run):  # its experiment was missing, and still is
            self.failed[run.name] = {"reason": reason, "log": log}
        else:
            trial_id = self._ids[run.key]
            self._storage.set_trial_user_attr(trial_id, "end", {"reason": reason, "log": log})
            self._storage.set_trial_state_values(trial_id, TrialState.FAIL)
            self._add_end(run, self._storage.get_trial(trial_id))

    def _has_ended(self, run: Run) -> bool:
        return self._storage.get_trial(self._ids[run.key]).state.is_finished()

    def _begin(self, number: int, index: int, stop: int) -> Run:
        """Write a new run."""
        trial = create_trial(
            state=TrialState.RUNNING,
            params=self._configurations[number],
            distributions=self.sweep.space,
            user_attrs={"configuration": number, "seed": index, "stop_after": stop},
        )
        run = self._run(number, index, stop)
        self._ids[run.key] = self._storage.create_new_trial(self._study_id, trial)
        self._promotion.begin(number, stop)
        return run

    def _run(self, number: int, index: int, stop: int) -> Run:
        values = self.sweep.values(self._configurations[number])
        seed = None if self.sweep.seeds == 1 else index
        overrides = {**self.sweep.fixed, **values, "train.monitor": self.sweep.metric}
        if seed is not None:
            overrides["train.seed"] = self.base.train.seed + seed
        # With fewer epochs than the rung, the training is whole.
        overrides["train.stop_after"] = stop if stop < epochs_of(self.base, overrides) else 0
        return Run(
            number, index, stop, trial_name(self.sweep.name, number, values, seed), overrides
        )

    def _read(self) -> None:
        """Read the runs of the file."""
        for trial in self._storage.get_all_trials(self._study_id, deepcopy=False):
            attrs = trial.user_attrs
            number, index, stop = (attrs[key] for key in ("configuration", "seed", "stop_after"))
            if number == self.proposed:
                self._add_configuration(trial.params)
            run = self._run(number, index, stop)
            self._ids[run.key] = self._storage.get_trial_id_from_study_id_trial_number(
                self._study_id, trial.number
            )
            self._promotion.begin(number, stop)
            if trial.state.is_finished():
                self._add_end(run, trial)
            else:
                self._waiting.append(run)
        self._seeds = deque(one for one in self._seeds if (*one, 0) not in self._ids)

    def _add_configuration(self, values: Values) -> None:
        self._configurations.append(values)
        self._proposals.add(values)
        self._learn(self.proposed - 1)

    def _add_end(self, run: Run, trial: FrozenTrial) -> None:
        """Take note of how a run has ended."""
        end = trial.user_attrs["end"]
        if trial.state == TrialState.FAIL:
            self.failed[run.name] = end
            self._promotion.fail(run.number)
            if run.index == 0:
                self._proposals.learn(run.number, None)
            return
        assert trial.value is not None
        assert trial.datetime_complete is not None
        when = trial.datetime_complete.astimezone(UTC)
        ended = EndedRun(run, trial.value, end["epochs"], end["seconds"], when)
        self.ended.append(ended)
        self.results[run.name] = ended
        if run.index == 0:
            self._enter(run.number, run.stop_after, trial.value)
        self._learn(run.number)

    def _enter(self, number: int, stop: int, score: float) -> None:
        """Put a configuration on a rung; from the last one, its further seeds are trained."""
        self._promotion.enter(number, stop, score)
        if stop == 0:
            further = range(1, self.sweep.seeds)
            self._seeds += [(number, k) for k in further if (number, k, 0) not in self._ids]

    def results_of(self, number: int) -> list[EndedRun]:
        """Return the results of a configuration by seed, each of the highest rung."""
        names = (self._run(number, index, 0).name for index in range(self.sweep.seeds))
        return [self.results[name] for name in names if name in self.results]

    def _learn(self, number: int) -> None:
        """Tell the sampler what is known of a configuration."""
        found = self.results_of(number)
        result: dict[str, Any] = {"state": TrialState.RUNNING}
        if found and found[0].is_whole:
            score = statistics.fmean(one.score for one in found)
            result = {"state": TrialState.COMPLETE, "value": score}
        elif found:
            steps = {found[0].run.stop_after: found[0].score}
            result = {"state": TrialState.PRUNED, "intermediate_values": steps}
        trial = create_trial(
            **result, params=self._configurations[number], distributions=self.sweep.space
        )
        self._proposals.learn(number, trial)


def _nothing_has_ended(sweep: Sweep) -> SweepError:
    return SweepError(f"{sweep.path}: no trial has finished; fieldguide sweep run {sweep.path}")


def record_path(sweep_file: Path) -> Path:
    """sweeps/original.yaml -> sweeps/original.yaml.study."""
    return sweep_file.with_name(f"{sweep_file.name}.study")


def _open(path: Path, sweep: Sweep) -> tuple[JournalStorage, int]:
    """Return the storage, and the id of the study in it; a missing file begins one."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    lock = JournalFileOpenLock(str(path), grace_period=_STALE)
    try:
        storage = JournalStorage(JournalFileBackend(str(path), lock_obj=lock))
        names = [study.study_name for study in storage.get_all_studies()]
        if not names:
            direction = optuna.study.StudyDirection[sweep.goal.upper()]
            return storage, storage.create_new_study([direction], sweep.name)
        return storage, storage.get_study_id_from_name(sweep.name)
    except (ValueError, LookupError, TypeError, AttributeError) as err:
        raise SweepError(f"{path}: is not the record of a sweep {sweep.name!r} ({err})") from err


def _remove_half_an_entry(path: Path) -> None:
    """Remove what a kill has left at the end of the file; Optuna would refuse to go on after it."""
    if path.is_dir():
        raise SweepError(f"{path}: is a folder; allowed: the file of the sweep's record")
    if not path.exists():
        return
    with path.open("rb+") as file:
        text = file.read()
        if text and not text.endswith(b"\n"):
            file.truncate(text.rfind(b"\n") + 1)
            os.fsync(file.fileno())


def _kept(sweep: Sweep, base: Params) -> str:
    """Return the params that the sweep leaves as params.yaml has them, as JSON."""
    changed = {"train.stop_after", "train.monitor", *sweep.space, *sweep.fixed}
    kept = {
        f"{section}.{key}": value
        for section, values in base.asked.items()
        for key, value in values.items()
        if section in SECTIONS and f"{section}.{key}" not in changed
    }
    return json.dumps(kept, sort_keys=True)
