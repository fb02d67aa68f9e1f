"""What a sweep has proposed and what became of it: an Optuna study in a file beside the sweep's.

One process writes it, the driver, which holds the sweep's lock. What it asks for is kept up to
date here, so that no question costs more for a long sweep than for a short one.
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
from fieldguide.sweeps.names import run_name
from fieldguide.sweeps.proposals import Proposals
from fieldguide.sweeps.rungs import Rungs
from fieldguide.sweeps.sampling import View
from fieldguide.sweeps.space import SECTIONS, Sweep, Values

DONE, PRUNED, FAILED = "done", "pruned", "failed"


@dataclass(frozen=True)
class Run:
    """One training that the sweep wants: a configuration and a seed."""

    number: int  # of the configuration, from 0
    index: int  # of the seed, from 0
    name: str  # of its DVC experiment
    overrides: Values

    @property
    def prunable(self) -> bool:
        """The first seed decides whether a configuration is worth the others."""
        return self.index == 0


class Record:
    """The study, by the words of a sweep."""

    def __init__(self, sweep: Sweep, base: Params) -> None:
        """Open or begin it; the caller holds the sweep's lock.

        Args:
            sweep: what is searched.
            base: params.yaml's values.

        Raises:
            SweepError: the file is of another search, or is none.
        """
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.sweep, self.base = sweep, base
        self.path = study_path(sweep.path)
        self._journal = Journal(self.path)
        try:
            self._storage = JournalStorage(self._journal)
            self._study_id = self._study()
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
        self._open: dict[int, int] = {}  # configurations that have not ended: runs yet to end
        self._read()

    def _study(self) -> int:
        """Begin the study unless it is there."""
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
            raise SweepError(
                f"{file}: has changed since {self.path} was begun (only run_cap may); restore it, "
                "or give the sweep another `name` and its file another one"
            )

    # What is planned.

    @property
    def planned(self) -> int:
        """Configurations to try; fewer than `run_cap` where the space has no more."""
        return self._proposals.planned

    def waiting(self) -> list[Run]:
        """Runs of proposed configurations that have not ended; the first seed before the others."""
        found = []
        for number in self._open:
            runs = [run for run in self._runs(number) if self.ended(run) is None]
            found += runs[:1] if runs[0].prunable else runs
        return found

    def runs(self) -> list[Run]:
        """All runs of the configurations proposed so far."""
        return [run for number in range(len(self._ids)) for run in self._runs(number)]

    def left(self) -> int:
        """Runs that are still to end, if none is pruned."""
        unproposed = self.planned - len(self._ids)
        return sum(self._open.values()) + unproposed * self.sweep.seeds

    def propose(self) -> Run | None:
        """Return the first run of a new configuration; None where all are proposed."""
        number = len(self._ids)
        if number >= self.planned:
            return None
        values = self._proposals.next(number, self._view)
        trial = create_trial(
            state=TrialState.RUNNING,
            params=values,
            distributions=self.sweep.space,
            user_attrs={"number": number},
        )
        self._ids.append(self._storage.create_new_trial(self._study_id, trial))
        self._took(number)
        return self._runs(number)[0]

    # What became of it.

    def ended(self, run: Run) -> dict[str, Any] | None:
        """How a run ended: its state, score, seconds and reason."""
        ended: dict[str, Any] | None = self._trial(run.number).user_attrs.get(f"run-{run.index}")
        return ended

    def scores(self, run: Run) -> list[float]:
        """Scores over seeds of a run's configuration, once all of them have finished."""
        trial = self._trial(run.number)
        if trial.state != TrialState.COMPLETE:
            return []
        ends = [trial.user_attrs[f"run-{k}"] for k in range(self.sweep.seeds)]
        return [float(end["score"]) for end in ends]

    def end(self, run: Run, state: str, **facts: Any) -> list[Run]:
        """Write down how a run ended, and tell the sampler once its configuration has.

        Returns:
            The runs that are wanted now: after a first seed that is worth it, the others.
        """
        # The next proposal syncs it. Where the machine itself fails before, Git has the trial.
        with self._journal.operation(sync=len(self._ids) >= self.planned):
            end = {"state": state, **facts}
            self._storage.set_trial_user_attr(self._ids[run.number], f"run-{run.index}", end)
            self._settle(run.number)
        return self._runs(run.number)[1:] if run.prunable and state == DONE else []

    def may_go_on(self, run: Run, epoch: int, score: float) -> bool:
        """Decide at a rung; asked twice, after a kill, the answer is the same."""
        trial = self._trial(run.number)
        known: bool | None = trial.user_attrs.get(f"rung-{epoch}")
        if known is not None:
            return known
        answer = self._rungs.enter(epoch, score)
        with self._journal.operation(sync=False):
            trial_id = self._ids[run.number]
            self._storage.set_trial_intermediate_value(trial_id, epoch, score)
            self._storage.set_trial_user_attr(trial_id, f"rung-{epoch}", answer)
        return answer

    # Between runs and Optuna's trials.

    def _read(self) -> None:
        """Take up what the file has, and finish what a kill cut off between two entries."""
        storage = self._storage
        for trial in storage.get_all_trials(self._study_id, deepcopy=False):
            trial_id = storage.get_trial_id_from_study_id_trial_number(self._study_id, trial.number)
            if "number" in trial.user_attrs:
                self._ids.append(trial_id)
                self._took(trial.user_attrs["number"])
                for epoch in self.rungs:
                    if f"rung-{epoch}" in trial.user_attrs:
                        self._rungs.enter(epoch, trial.intermediate_values[epoch])
            elif not trial.state.is_finished():  # a proposal of an older version, half written
                storage.set_trial_state_values(trial_id, TrialState.FAIL)

    def _took(self, number: int) -> None:
        """Take up a configuration that was proposed, and what became of it already."""
        trial = self._trial(number)
        self._proposals.add(trial.params)
        self._view.started(trial)
        if trial.state.is_finished():
            self._view.ended(trial)
        else:
            self._open[number] = self.sweep.seeds
            self._settle(number)

    def _settle(self, number: int) -> None:
        """Tell the sampler about a configuration whose runs have ended."""
        trial = self._trial(number)
        found = [trial.user_attrs.get(f"run-{k}") for k in range(self.sweep.seeds)]
        ends = [end for end in found if end is not None]
        self._open[number] = self.sweep.seeds - len(ends)
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
        del self._open[number]
        self._view.ended(self._trial(number))

    def _runs(self, number: int) -> list[Run]:
        values = self._trial(number).params
        seeds = range(self.sweep.seeds) if self.sweep.seeds > 1 else [None]
        return [
            Run(
                number=number,
                index=seed or 0,
                name=run_name(self.sweep.name, number, values, seed),
                overrides={
                    **self.sweep.fixed,
                    **values,
                    **({} if seed is None else {"train.seed": self.base.train.seed + seed}),
                },
            )
            for seed in seeds
        ]

    def _trial(self, number: int) -> FrozenTrial:
        return self._storage.get_trial(self._ids[number])


def _swept(sweep: Sweep) -> dict[str, set[str]]:
    """Section -> the keys that the sweep sets, whatever params.yaml says."""
    found: dict[str, set[str]] = {}
    for key in [*sweep.space, *sweep.fixed]:
        section, name = key.split(".")
        found.setdefault(section, set()).add(name)
    return found


def study_path(sweep_file: Path) -> Path:
    """sweeps/original.yaml -> sweeps/original.yaml.study."""
    return sweep_file.with_name(f"{sweep_file.name}.study")
