"""What a sweep has proposed and what became of it: an Optuna study in a file beside the sweep's.

One process writes it, the driver, which holds the sweep's lock. Each entry is appended whole, so a
`kill -9` at any moment leaves the entries before it.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import statistics
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.pruners import NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, Trial, TrialState
from pydantic import ValidationError

from fieldguide.errors import SweepError
from fieldguide.params import Params
from fieldguide.sweeps.space import (
    MOST_LISTED,
    SECTIONS,
    Scalar,
    Sweep,
    Values,
    is_discrete,
    size_of,
    with_values,
)

DONE, PRUNED, FAILED = "done", "pruned", "failed"
_TRIES = 20  # proposals of the sampler for one that is new
_SAMPLED, _LEFT = range(2)  # what is drawn: by the sampler, or of what is left


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


class _Given(BaseSampler):
    """Proposes the values it was given."""

    def __init__(self, values: Values) -> None:
        self._values = values

    def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, Any]:  # noqa: ARG002
        return {}

    def sample_relative(self, study: Any, trial: Any, search_space: Any) -> dict[str, Any]:  # noqa: ARG002
        return {}

    def sample_independent(
        self,
        study: Any,  # noqa: ARG002
        trial: Any,  # noqa: ARG002
        param_name: str,
        param_distribution: Any,  # noqa: ARG002
    ) -> Any:
        return self._values[param_name]


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
        _mend(self.path)
        backend = JournalFileBackend(str(self.path), JournalFileOpenLock(str(self.path)))
        try:
            self.study = optuna.create_study(
                storage=JournalStorage(backend),
                study_name=sweep.name,
                direction=sweep.goal,
                load_if_exists=True,
                pruner=self._pruner(),
            )
        except (ValueError, LookupError, TypeError, AttributeError) as err:
            raise SweepError(f"{self.path}: is not the record of a sweep ({err})") from err
        self._check_same("sweep", str(sweep.path), sweep.definition)
        kept = base.model_dump_json(include=set(SECTIONS), exclude=_swept(sweep))
        self._check_same("params", "params.yaml", hashlib.sha256(kept.encode()).hexdigest()[:16])
        self._valid: list[Values] | None = self._list_space()
        self._optuna_numbers: dict[int, int] = {}  # by our number
        self._reconcile()

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
        if self._valid is None:
            return self.sweep.configurations
        return min(self.sweep.configurations, len(self._valid))

    def configurations(self) -> list[FrozenTrial]:
        """Return those proposed so far, by number."""
        trials = self.study.get_trials(deepcopy=False)
        return [trial for trial in trials if "number" in trial.user_attrs]

    def waiting(self) -> list[Run]:
        """Runs of proposed configurations that have not ended; the first seed before the others."""
        found = []
        for trial in self.configurations():
            if not trial.state.is_finished():
                runs = [run for run in self._runs(trial) if self.ended(run) is None]
                found += runs[:1] if runs[0].prunable else runs
        return found

    def runs(self) -> list[Run]:
        """All runs of the configurations proposed so far."""
        return [run for trial in self.configurations() for run in self._runs(trial)]

    def left(self) -> int:
        """Runs that are still to end, if none is pruned."""
        proposed = self.configurations()
        open_ = [
            self.ended(run) is None
            for trial in proposed
            if not trial.state.is_finished()
            for run in self._runs(trial)
        ]
        return sum(open_) + (self.planned - len(proposed)) * self.sweep.seeds

    def propose(self) -> Run | None:
        """Return the first run of a new configuration; None where all are proposed."""
        proposed = self.configurations()
        number = len(proposed)
        if number >= self.planned:
            return None
        trial = self._ask(number, {_key(trial.params) for trial in proposed})
        trial.set_user_attr("number", number)
        self._optuna_numbers[number] = trial.number
        return self._runs(self._frozen(trial.number))[0]

    # What became of it.

    def ended(self, run: Run) -> dict[str, Any] | None:
        """How a run ended: its state, score, seconds and reason."""
        ended: dict[str, Any] | None = self._trial(run).user_attrs.get(f"run-{run.index}")
        return ended

    def scores(self, run: Run) -> list[float]:
        """Scores over seeds of a run's configuration, once all of them have finished."""
        trial = self._trial(run)
        if trial.state != TrialState.COMPLETE:
            return []
        ends = [trial.user_attrs[f"run-{k}"] for k in range(self.sweep.seeds)]
        return [float(end["score"]) for end in ends]

    def end(self, run: Run, state: str, **facts: Any) -> list[Run]:
        """Write down how a run ended, and tell the sampler once its configuration has.

        Returns:
            The runs that are wanted now: after a first seed that is worth it, the others.
        """
        trial = self._trial(run)
        self._handle(trial).set_user_attr(f"run-{run.index}", {"state": state, **facts})
        self._settle(trial.number)
        return self._runs(trial)[1:] if run.prunable and state == DONE else []

    def may_go_on(self, run: Run, epoch: int, score: float) -> bool:
        """Decide at a rung; asked twice, after a kill, the answer is the same."""
        key = f"rung-{epoch}"
        frozen = self._frozen(self._trial(run).number)
        if key not in frozen.user_attrs:
            trial = self._handle(frozen)
            trial.report(score, epoch)
            trial.set_user_attr(key, not trial.should_prune())
        return bool(self._frozen(frozen.number).user_attrs[key])

    # How it is asked.

    def _pruner(self) -> optuna.pruners.BasePruner:
        early = self.sweep.early_terminate
        if early is None:
            return NopPruner()
        return SuccessiveHalvingPruner(min_resource=self.rungs[0], reduction_factor=early.eta)

    @property
    def rungs(self) -> list[int]:
        """Epochs after which trials are compared."""
        early = self.sweep.early_terminate
        epochs = int(self.sweep.fixed.get("train.epochs", self.base.train.epochs))
        return early.rungs(epochs) if early else []

    def _ask(self, number: int, known: set[str]) -> Trial:
        """Ask for a configuration that is new and that the schema allows."""
        if self.sweep.method == "grid":
            assert self._valid is not None
            return self._ask_for(self._valid[number])
        for attempt in range(_TRIES):
            self.study.sampler = self._sampler(number, attempt)
            trial = self.study.ask(self.sweep.space)
            if _key(trial.params) not in known and self._allowed(trial.params):
                return trial
            self.study.tell(trial, state=TrialState.FAIL)
        if self._valid is None:
            raise SweepError(
                f"{self.sweep.path}: {_TRIES} proposals in a row contradict params.yaml's schema; "
                "narrow the parameters"
            )
        left = [values for values in self._valid if _key(values) not in known]
        rng = np.random.default_rng([self.sweep.seed, number, _LEFT])
        return self._ask_for(left[rng.integers(len(left))])

    def _ask_for(self, values: Values) -> Trial:
        # Not `enqueue_trial`: a kill before it is asked for would leave it in the queue.
        self.study.sampler = _Given(values)
        return self.study.ask(self.sweep.space)

    def _sampler(self, number: int, attempt: int) -> BaseSampler:
        """A sampler with a seed of its own for each proposal: a restart repeats none."""
        key = [self.sweep.seed, number, _SAMPLED, attempt]
        seed = int(np.random.SeedSequence(key).generate_state(1)[0])
        if self.sweep.method == "random":
            return RandomSampler(seed=seed)
        # constant_liar: a running trial counts as a bad one, so that its neighbours wait for it.
        return TPESampler(seed=seed, multivariate=True, constant_liar=True)

    def _allowed(self, values: dict[str, Any]) -> bool:
        try:
            with_values(self.base, {**self.sweep.fixed, **values})
        except ValidationError:
            return False
        return True

    def _list_space(self) -> list[Values] | None:
        """Every configuration that the schema allows, where the space is discrete and not vast."""
        if self.sweep.method == "grid":
            allowed = (values for values in self.sweep.grid() if self._allowed(values))
            return list(islice(allowed, self.sweep.configurations))
        if not all(map(is_discrete, self.sweep.space.values())):
            return None
        size = math.prod(size_of(one) for one in self.sweep.space.values())
        if size > MOST_LISTED:
            return None
        return [values for values in self.sweep.grid() if self._allowed(values)]

    # Between runs and Optuna's trials.

    def _reconcile(self) -> None:
        """Finish what a kill cut off between two entries."""
        for trial in self.study.get_trials(deepcopy=False):
            if "number" in trial.user_attrs:
                self._optuna_numbers[trial.user_attrs["number"]] = trial.number
            if trial.state.is_finished():
                continue
            if "number" in trial.user_attrs:
                self._settle(trial.number)
            else:
                self.study.tell(trial.number, state=TrialState.FAIL)

    def _settle(self, trial_number: int) -> None:
        """Tell the sampler about a configuration whose runs have ended."""
        attrs = self._frozen(trial_number).user_attrs
        found = [attrs.get(f"run-{k}") for k in range(self.sweep.seeds)]
        ends = [end for end in found if end is not None]
        first = found[0]["state"] if found[0] else None
        if first in (PRUNED, FAILED):  # the other seeds are not tried
            state = TrialState.PRUNED if first == PRUNED else TrialState.FAIL
            self.study.tell(trial_number, state=state)
        elif len(ends) < self.sweep.seeds:
            return
        elif all(end["state"] == DONE for end in ends):
            self.study.tell(trial_number, statistics.fmean(end["score"] for end in ends))
        else:
            self.study.tell(trial_number, state=TrialState.FAIL)

    def _runs(self, trial: FrozenTrial) -> list[Run]:
        number = int(trial.user_attrs["number"])
        seeds = range(self.sweep.seeds) if self.sweep.seeds > 1 else [None]
        return [
            Run(
                number=number,
                index=seed or 0,
                name=run_name(self.sweep.name, number, trial.params, seed),
                overrides={
                    **self.sweep.fixed,
                    **trial.params,
                    **({} if seed is None else {"train.seed": self.base.train.seed + seed}),
                },
            )
            for seed in seeds
        ]

    def _trial(self, run: Run) -> FrozenTrial:
        return self._frozen(self._optuna_numbers[run.number])

    def _frozen(self, trial_number: int) -> FrozenTrial:
        return self.study.get_trials(deepcopy=False)[trial_number]

    def _handle(self, trial: FrozenTrial) -> Trial:
        return Trial(self.study, trial._trial_id)  # noqa: SLF001 - the only way to a trial again


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


def run_name(sweep: str, number: int, values: dict[str, Any], seed: int | None) -> str:
    """Name of a run's experiment: unique by its number, and saying its settings.

    `original-0007_cl=5_a=gelu_lr=0.00031_s1`: initials of each parameter's words and its value.
    Git's rules for the names of refs hold (git help check-ref-format).
    """
    settings = "_".join(
        f"{short}={_short(values[key])}" for short, key in _initials(values).items()
    )
    seed_part = "" if seed is None else f"_s{seed}"
    settings = settings[:150].replace(".lock", "-lock").rstrip(".")
    return f"{sweep}-{number:04d}_{settings}{seed_part}"


def _initials(keys: dict[str, Any]) -> dict[str, str]:
    """Initials of the words of each name, with a number where two names share them."""
    found: dict[str, str] = {}
    for key in keys:
        initials = "".join(word[0] for word in key.split(".")[1].split("_"))
        short, count = initials, 1
        while short in found:
            count += 1
            short = f"{initials}{count}"
        found[short] = key
    return found


def _short(value: Scalar) -> str:
    text = f"{value:.3g}" if isinstance(value, float) else str(value).lower()
    return re.sub(r"\.(?=\.|$)|[^A-Za-z0-9.+-]", "-", text)


def _key(values: dict[str, Any]) -> str:
    return json.dumps(values, sort_keys=True)


def _mend(path: Path) -> None:
    """Undo what a kill left: half a last entry, and Optuna's lock, which outlives its process."""
    Path(f"{path}.lock").unlink(missing_ok=True)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        return
    if not path.is_file():
        raise SweepError(f"{path}: is a folder, and the sweep's record would be there")
    with path.open("rb+") as file:
        text = file.read()
        if text and not text.endswith(b"\n"):
            file.truncate(text.rfind(b"\n") + 1)
            os.fsync(file.fileno())
