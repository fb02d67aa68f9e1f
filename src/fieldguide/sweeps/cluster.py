"""Trials on the nodes of a Ray cluster, which have the Git remote and the DVC remote in common.

A worker (worker.py) holds a place on a node. It belongs to nobody, so that it outlives a driver
that is killed, and the next one finds it by its name. Ray says which node has room, and which died.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any

import ray
from dvc.config import Config
from dvc.exceptions import DvcException
from dvc.repo import Repo

from fieldguide.errors import GitError, SweepError
from fieldguide.git import git
from fieldguide.params import Params
from fieldguide.sweeps.experiments import read_trials
from fieldguide.sweeps.node import Job, data_of_trials
from fieldguide.sweeps.pool import Ended, Reported
from fieldguide.sweeps.record import Run
from fieldguide.sweeps.slot import Start
from fieldguide.sweeps.space import Values
from fieldguide.sweeps.worker import Worker

_FETCH = ("fetch", "--quiet", "--no-tags", "--no-write-fetch-head")
_TICK = 1.0  # seconds that the driver waits for news; less where there are some
_LOOK = 5.0  # seconds between looks at which nodes there are
_PATIENCE = 10.0  # seconds for a worker of an earlier driver to answer
_LONGEST_REST = 60.0  # seconds
_TRIES = 5  # of fetching experiments, the pauses doubling from a second


@dataclass
class _Place:
    """A worker as the driver sees it."""

    actor: Any
    asked: Any  # an answer to come: once it is placed, and then its next events
    placed: bool = False
    trial: str | None = None
    seen: int = 0  # events of that trial
    failures: int = 0  # in a row, that were no fault of the trial
    rests_until: float = 0.0

    @property
    def is_free(self) -> bool:
        """Whether it can take a trial now."""
        return self.placed and self.trial is None and time.monotonic() >= self.rests_until

    def rest(self) -> None:
        """Leave the next trials to others: a node that fails at once would draw all of them."""
        self.failures += 1
        self.rests_until = time.monotonic() + min(2**self.failures, _LONGEST_REST)


@dataclass(frozen=True)
class Share:
    """What each trial holds of a node."""

    cpus: int = 1  # threads
    gpus: float = 0  # a part of one may be held


class RayPool:
    """Workers on a cluster that this process has joined (`fieldguide.cluster.connected`)."""

    def __init__(
        self,
        root: Path,
        folder: Path,
        start: Start,
        *,
        sweep: str,
        remote: str,
        share: Share,
        jobs: int | None,
    ) -> None:
        """Ship the commit and the data of trials to the remotes.

        Args:
            root: top folder of the project.
            folder: for logs.
            start: what all trials begin with; a commit alone.
            sweep: its name.
            remote: Git's name for the remote that nodes reach.
            share: what each trial holds.
            jobs: trials at a time; None for as many as the nodes of the moment hold. More than they
                hold is what an autoscaler sees.

        Raises:
            SweepError: the workspace is not the commit, or a remote is missing or refuses.
        """
        self._root, self._folder, self._start = root, folder, start
        self._remote, self._share, self._jobs = remote, share, jobs
        self._ref = f"refs/fieldguide/{sweep}-{start.baseline}"
        self._experiments = f"refs/exps/{start.baseline[:2]}/{start.baseline[2:]}"
        self._sweep = sweep
        self._places: dict[str, _Place] = {}  # by the worker's name
        self._most = 0  # trials still to end
        self._looked = 0.0
        url = _url(root, remote)
        self._job = Job(sweep, url, self._ref, start.baseline, share.cpus)
        _check_is_commit(root, start)
        _ship(root, remote, f"{start.baseline}:{self._ref}")

    def recover(self, wanted: Collection[str]) -> set[str]:  # noqa: D102 - Pool's, here and below
        names = f"{self._experiments}/{self._sweep}-*"
        git(self._root, *_FETCH, self._remote, f"{names}:{names}")
        found = {}
        for name in ray.util.list_named_actors():
            with suppress(ValueError):  # it has just gone
                actor = ray.get_actor(name)
                found[actor.trial.remote()] = (name, actor)
        ready = ray.wait(list(found), num_returns=len(found), timeout=_PATIENCE)[0] if found else []
        running: set[str] = set()
        for answer, (name, actor) in found.items():
            trial = None
            with suppress(ray.exceptions.RayError):  # its node died
                trial = ray.get(answer) if answer in ready else None  # else it has no place yet
            if trial and trial in wanted and trial not in running:
                place = _Place(actor, actor.events.remote(trial, 0), placed=True, trial=trial)
                self._places[name] = place
                running.add(trial)
            else:
                ray.kill(actor)
        return running

    def expect(self, most: int) -> None:  # noqa: D102
        self._most = most
        spare = [name for name, place in self._places.items() if place.trial is None]
        for name in spare[: max(0, len(self._places) - most)]:  # that others may have its place
            ray.kill(self._places.pop(name).actor)

    def room(self) -> int:  # noqa: D102
        self._look()
        return sum(place.is_free for place in self._places.values())

    def start(self, run: Run, rungs: list[int]) -> None:  # noqa: D102
        place = next(place for place in self._places.values() if place.is_free)
        place.trial, place.seen = run.name, 0
        place.actor.run.remote(run.name, run.overrides, rungs)
        place.asked = place.actor.events.remote(run.name, 0)

    def wait(self) -> Iterator[Reported | Ended]:  # noqa: D102
        asked = {p.asked: name for name, p in self._places.items() if p.trial or not p.placed}
        if not asked:
            time.sleep(_TICK)
            return
        ready, _ = ray.wait(list(asked), num_returns=1, timeout=_TICK)
        if ready:  # and whoever else is by now
            ready, _ = ray.wait(list(asked), num_returns=len(asked), timeout=0)
        finished = []
        for answer in ready:
            for event in self._hear(asked[answer]):
                if isinstance(event, Ended) and self._is_published(event):
                    finished.append(event.name)
                else:
                    yield event
        yield from self._fetch(finished)

    def _hear(self, name: str) -> Iterator[Reported | Ended]:
        """Take a worker's answer, and ask it again."""
        place = self._places[name]
        try:
            answer = ray.get(place.asked)
        except ray.exceptions.RayError:  # its node died, or Ray killed it
            del self._places[name]
            if place.trial:
                yield Ended(place.trial, None, None, "its node is gone")
            return
        if not place.placed:
            place.placed = True
            return
        for event in answer:
            place.seen += 1
            if event["event"] == "epoch":
                yield Reported(event["name"], event["epoch"], event["metrics"])
                continue
            place.trial = None
            ended = Ended(event["name"], None, event["status"], event["message"])
            if ended.status == 0 or ended.is_its_own_fault:
                place.failures = 0
            else:
                place.rest()
            if "log" in event:
                log = self.log(event["name"])
                log.parent.mkdir(parents=True, exist_ok=True)
                log.write_text(event["log"], encoding="utf-8")
            yield ended
        if place.trial:
            place.asked = place.actor.events.remote(place.trial, place.seen)

    def _is_published(self, ended: Ended) -> bool:
        """Whether its experiment is on the remote, also of a node that died with the last word."""
        if ended.status is not None:
            return ended.status == 0
        try:
            ref = f"{self._experiments}/{ended.name}"
            return bool(git(self._root, "ls-remote", self._remote, ref))
        except GitError:
            return False

    def _fetch(self, names: list[str]) -> Iterator[Ended]:
        """Bring finished trials' experiments into the project, all at once."""
        if not names:
            return
        refs = [f"{self._experiments}/{name}" for name in names]
        for attempt in count():
            try:
                git(self._root, *_FETCH, self._remote, *(f"{ref}:{ref}" for ref in refs))
                break
            except GitError:
                if attempt + 1 == _TRIES:
                    raise
                time.sleep(2**attempt)
        for name in names:
            yield Ended(name, read_trials(self._root, name=name)[0])

    def answer(self, name: str, epoch: int, *, go_on: bool) -> None:  # noqa: D102
        place = next(p for p in self._places.values() if p.trial == name)
        place.actor.answer.remote(name, epoch, go_on=go_on)

    def log(self, name: str) -> Path:  # noqa: D102
        return self._folder / "logs" / f"{name}.log"

    def stop(self) -> None:  # noqa: D102
        for place in self._places.values():
            ray.kill(place.actor)  # with it goes the process that runs its trial
        self._places.clear()

    def close(self) -> None:  # noqa: D102
        self.stop()
        with suppress(GitError):  # left over, it harms nobody
            git(self._root, "push", "--quiet", self._remote, f":{self._ref}")

    def _look(self) -> None:
        """Have as many workers as are wanted; one that finds no room waits in Ray for a node."""
        if time.monotonic() - self._looked < _LOOK:
            return
        self._looked = time.monotonic()
        wanted = min(self._jobs or self._capacity(), self._most)
        while len(self._places) < wanted:
            name = f"worker-{uuid.uuid4()}"
            self._places[name] = self._new_worker(name)

    def _new_worker(self, name: str) -> _Place:
        actor = (
            ray.remote(Worker)
            .options(
                name=name,
                lifetime="detached",
                num_cpus=self._share.cpus,
                num_gpus=self._share.gpus,
                max_concurrency=8,  # questions that wait, and those that do not
                scheduling_strategy="SPREAD",
            )
            .remote(asdict(self._job))
        )
        return _Place(actor, actor.trial.remote())

    def _capacity(self) -> int:
        """How many shares the nodes of the moment hold."""
        found = 0
        for node in ray.nodes():
            if node["Alive"]:
                has = node["Resources"]
                shares = [int(has.get("CPU", 0) // self._share.cpus)]
                if self._share.gpus:
                    shares.append(int(has.get("GPU", 0) / self._share.gpus))
                found += min(shares)
        return found


def gpus_of_a_trial(base: Params, fixed: Values) -> int:
    """GPUs that a trial trains on, where the cluster has any."""
    accelerator = fixed.get("train.accelerator", base.train.accelerator)
    if accelerator not in ("auto", "gpu") or not ray.cluster_resources().get("GPU"):
        return 0
    return int(fixed.get("train.devices", base.train.devices))


def _url(root: Path, remote: str) -> str:
    try:
        url = git(root, "remote", "get-url", remote).strip()
    except GitError as err:
        known = ", ".join(git(root, "remote").split()) or "none; git remote add"
        raise SweepError(f"--git-remote: found {remote!r}; allowed: {known}") from err
    return str((root / url).resolve()) if (root / url).exists() else url


def _check_is_commit(root: Path, start: Start) -> None:
    """Nodes get commits alone: what is not committed would silently be missing there."""
    if start.snapshot != start.baseline:
        changed = git(root, "diff", "--name-only", start.baseline, start.snapshot).split("\n")
        raise SweepError(
            f"{', '.join(filter(None, changed))}: changed and not committed, and a cluster gets "
            "the commit alone; commit it, or put it away with `git stash`"
        )


def _ship(root: Path, remote: str, refspec: str) -> None:
    """Push the commit, and what trials read, to where nodes find it."""
    try:
        shared = Config(str(root / ".dvc")).load_one("repo")
        if not shared.get("core", {}).get("remote"):
            raise SweepError(
                ".dvc/config: found no default remote, and nodes have nothing else in common; "
                "`dvc remote add -d NAME URL`, and commit it"
            )
        git(root, "push", "--quiet", remote, refspec)
        with Repo(str(root)) as repo:
            repo.push(targets=data_of_trials(repo))
    except (GitError, DvcException) as err:
        raise SweepError(f"{err}; nodes get the commit and its data from the remotes") from err
