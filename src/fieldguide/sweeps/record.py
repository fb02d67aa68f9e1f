"""The record of a sweep: which trials it has proposed, and how they ended.

It is an Optuna study in a file beside the sweep file, written by one process, the driver, which
holds the sweep's lock. Optuna's trial is a configuration; with several seeds it has several of our
trials. Decisions use data in memory, so that their cost does not grow with the sweep.
"""

from __future__ import annotations

import hashlib
import math
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from fieldguide.core.errors import SweepError
from fieldguide.core.params import Params
from fieldguide.sweeps.journal import Journal
from fieldguide.sweeps.names import trial_name
from fieldguide.sweeps.proposals import Proposals
from fieldguide.sweeps.rungs import Rungs
from fieldguide.sweeps.sampling import View
from fieldguide.sweeps.space import SECTIONS, Sweep, Values

DONE, PRUNED, FAILED = "done", "pruned", "failed"


@dataclass(frozen=True)
class PlannedTrial:
    """A trial that the sweep wants: a configuration and a seed."""

    number: int  # of the configuration, from 0
    index: int  # of the seed, from 0
    name: str  # of its experiment
    overrides: Values

    @property
    def prunable(self) -> bool:
        """Whether it may be stopped early: the first seed decides if the others are worth it."""
        return self.index == 0


class Record:
    """The record of one sweep."""

    def __init__(self, sweep: Sweep, base: Params) -> None:
        """Open it, or begin it; the caller holds the sweep's lock.

        Args:
            sweep: what is searched.
            base: params.yaml's values.

        Raises:
            SweepError: the file is the record of another search, or none at all.
        """
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.sweep, self.base = sweep, base
        self.path = record_path(sweep.path)
        self._journal = Journal(self.path)
        try:
            self._storage = JournalStorage(self._journal)
            self._study_id = self._open_study()
            self.study = optuna.load_study(study_name=sweep.name, storage=self._storage)
        except (ValueError, LookupError, TypeError, AttributeError) as err:
            raise SweepError(f"{self.path}: is not the record of a sweep ({err})") from err
        self._check_same("sweep", str(sweep.path), sweep.definition)
        kept = base.model_dump_json(include=set(SECTIONS), exclude=_swept(sweep))
        self._check_same("params", "params.yaml", hashlib.sha256(kept.encode()).hexdigest()[:16])
        early = sweep.early_terminate
        epochs = int(sweep.fixed.get("train.epochs", base.train.epochs))
        self.rungs = early.rungs(epochs) if early else []  # epochs after which trials are compared
        self._rungs = Rungs(self.rungs, early.eta if early else 2, sweep.goal)
        self._proposals = Proposals(sweep, base)
        self._view = View(sweep.goal, sweep.space)
        self._ids: list[int] = []  # of the storage, by number of the configuration
        self._unfinished: dict[int, int] = {}  # configuration -> its trials that have not ended
        self._read()

    def _open_study(self) -> int:
        try:
            return self._storage.get_study_id_from_name(self.sweep.name)
        except KeyError:
            direction = StudyDirection[self.sweep.goal.upper()]
            return self._storage.create_new_study([direction], self.sweep.name)

    def _check_same(self, key: str, file: str, value: str) -> None:
        """Refuse to mix two searches in one record."""
        known = self.study.user_attrs.get(key)
        if known is None:
            self.study.set_user_attr(key, value)
        elif known != value:
            note = " (only run_cap may change)" if key == "sweep" else ""
            raise SweepError(
                f"{file}: changed since {self.path} was begun{note}; restore it, or copy the sweep "
                "file under a new file name and set a new `name`"
            )

    # What is planned.

    @property
    def planned(self) -> int:
        """Number of configurations to try; below `run_cap` if the space has no more."""
        return self._proposals.planned

    def waiting(self) -> list[PlannedTrial]:
        """Return trials of proposed configurations that can run and have not ended.

        A configuration's other seeds wait for its first.
        """
        found = []
        for number in self._unfinished:
            trials = [trial for trial in self._trials_of(number) if self.ended(trial) is None]
            found += trials[:1] if trials[0].prunable else trials
        return found

    def proposed(self) -> list[PlannedTrial]:
        """Return all trials of the configurations proposed so far."""
        return [trial for number in range(len(self._ids)) for trial in self._trials_of(number)]

    def left(self) -> int:
        """Return how many trials have not ended, if none is pruned."""
        unproposed = self.planned - len(self._ids)
        return sum(self._unfinished.values()) + unproposed * self.sweep.seeds

    def propose(self) -> PlannedTrial | None:
        """Return the first trial of a new configuration; None if all are proposed."""
        number = len(self._ids)
        if number >= self.planned:
            return None
        values = self._proposals.next(number, self._view)
        trial = create_trial(
            state=TrialState.RUNNING, params=values, distributions=self.sweep.space
        )
        self._ids.append(self._storage.create_new_trial(self._study_id, trial))
        self._add(number)
        return self._trials_of(number)[0]

    # How trials ended.

    def ended(self, trial: PlannedTrial) -> dict[str, Any] | None:
        """Return how a trial ended: its state, score, seconds and reason; None if it has not."""
        ends = self._configuration(trial.number).user_attrs
        ended: dict[str, Any] | None = ends.get(f"seed-{trial.index}")
        return ended

    def scores(self, trial: PlannedTrial) -> list[float]:
        """Return the scores of all seeds of a trial's configuration, once all are done."""
        found = self._configuration(trial.number)
        if found.state != TrialState.COMPLETE:
            return []
        ends = [found.user_attrs[f"seed-{k}"] for k in range(self.sweep.seeds)]
        return [float(end["score"]) for end in ends]

    def end(self, trial: PlannedTrial, state: str, **facts: Any) -> list[PlannedTrial]:
        """Record how a trial ended, and tell the sampler if its configuration has ended with it.

        Returns:
            The trials that can run now: after a first seed that is done, the others.
        """
        # No sync is needed: the next proposal syncs, and until then the experiment in Git is the
        # record.
        with self._journal.operation(sync=len(self._ids) >= self.planned):
            end = {"state": state, **facts}
            trial_id = self._ids[trial.number]
            self._storage.set_trial_user_attr(trial_id, f"seed-{trial.index}", end)
            self._settle(trial.number)
        return self._trials_of(trial.number)[1:] if trial.prunable and state == DONE else []

    def may_go_on(self, trial: PlannedTrial, epoch: int, score: float) -> bool:
        """Decide at a rung; asked again, for example after a kill, the answer is the same."""
        if (known := self._answer(trial, epoch)) is not None:
            return known
        answer = self._rungs.enter(epoch, score)
        with self._journal.operation(sync=False):
            trial_id = self._ids[trial.number]
            self._storage.set_trial_intermediate_value(trial_id, epoch, score)
            self._storage.set_trial_user_attr(trial_id, f"rung-{epoch}", answer)
        return answer

    def unasked(self, trial: PlannedTrial) -> list[int]:
        """Return the rungs at which a trial has not asked whether to go on."""
        return [epoch for epoch in self.rungs if self._answer(trial, epoch) is None]

    def _answer(self, trial: PlannedTrial, epoch: int) -> bool | None:
        answer: bool | None = self._configuration(trial.number).user_attrs.get(f"rung-{epoch}")
        return answer

    # Configurations are Optuna's trials.

    def _read(self) -> None:
        """Read the file, and finish what a kill interrupted between two entries."""
        for trial in self._storage.get_all_trials(self._study_id, deepcopy=False):
            self._ids.append(
                self._storage.get_trial_id_from_study_id_trial_number(self._study_id, trial.number)
            )
            self._add(trial.number)
            for epoch in self.rungs:
                if f"rung-{epoch}" in trial.user_attrs:
                    self._rungs.enter(epoch, trial.intermediate_values[epoch])

    def _add(self, number: int) -> None:
        """Add a configuration and its recorded results."""
        trial = self._configuration(number)
        self._proposals.add(trial.params)
        self._view.started(trial)
        if trial.state.is_finished():
            self._view.ended(trial)
        else:
            self._unfinished[number] = self.sweep.seeds
            self._settle(number)

    def _settle(self, number: int) -> None:
        """Tell the sampler about a configuration if all its trials have ended."""
        trial = self._configuration(number)
        found = [trial.user_attrs.get(f"seed-{k}") for k in range(self.sweep.seeds)]
        ends = [end for end in found if end is not None]
        self._unfinished[number] = self.sweep.seeds - len(ends)
        first = found[0]["state"] if found[0] else None
        value: float | None = None
        if first == PRUNED:  # the other seeds are not tried
            state = TrialState.PRUNED
            if (step := trial.last_step) is not None:
                value = trial.intermediate_values[step]
        elif first != FAILED and len(ends) < self.sweep.seeds:
            return
        elif all(end["state"] == DONE for end in ends):
            state, value = TrialState.COMPLETE, statistics.fmean(end["score"] for end in ends)
        else:
            state = TrialState.FAIL
        values = None if value is None or math.isnan(value) else [value]
        self._storage.set_trial_state_values(self._ids[number], state, values)
        del self._unfinished[number]
        self._view.ended(self._configuration(number))

    def _trials_of(self, number: int) -> list[PlannedTrial]:
        values = self._configuration(number).params
        seeds = range(self.sweep.seeds) if self.sweep.seeds > 1 else [None]
        return [
            PlannedTrial(
                number=number,
                index=seed or 0,
                name=trial_name(self.sweep.name, number, values, seed),
                overrides={
                    **self.sweep.fixed,
                    **values,
                    **({} if seed is None else {"train.seed": self.base.train.seed + seed}),
                },
            )
            for seed in seeds
        ]

    def _configuration(self, number: int) -> FrozenTrial:
        return self._storage.get_trial(self._ids[number])


def _swept(sweep: Sweep) -> dict[str, set[str]]:
    """Return the keys that the sweep sets, whatever params.yaml says, by section."""
    found: dict[str, set[str]] = {}
    for key in [*sweep.space, *sweep.fixed]:
        section, name = key.split(".")
        found.setdefault(section, set()).add(name)
    return found


def record_path(sweep_file: Path) -> Path:
    """sweeps/original.yaml -> sweeps/original.yaml.study."""
    return sweep_file.with_name(f"{sweep_file.name}.study")
