"""Trials on the nodes of a Ray cluster, which have the Git remote and the DVC remote in common.

A worker (worker.py) holds a place on a node. It belongs to nobody, so that it outlives a driver
that is killed, and the next one finds it by its name. Ray says which node has room, and which died.
"""

from __future__ import annotations

import hashlib
import re
import sys
import time
import uuid
from collections import defaultdict
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ray
from dvc.config import Config
from dvc.exceptions import DvcException
from dvc.repo import Repo

from fieldguide.core.errors import GitError, SweepError
from fieldguide.core.params import Params
from fieldguide.core.stage import TIMING
from fieldguide.results.git import git
from fieldguide.sweeps.experiments import read_trials
from fieldguide.sweeps.node import Job, data_of_trials
from fieldguide.sweeps.pool import Ended, Reported
from fieldguide.sweeps.record import Run
from fieldguide.sweeps.slot import Start
from fieldguide.sweeps.space import Values
from fieldguide.sweeps.worker import Worker

_FETCH = ("fetch", "--quiet", "--no-tags", "--no-write-fetch-head")
_TICK = 1.0  # seconds that the driver waits for news; less where there are some
_GONE = (ray.exceptions.ActorDiedError, ray.exceptions.ActorUnavailableError)
_LOOK = 5.0  # seconds between looks at which nodes there are
_STATE = 10.0  # seconds for a worker of an earlier driver to answer
_OUTAGE = 600.0  # seconds without the Git remote, after which the driver stops
_MOST_UNPLACED = 5
_PLACED = 20.0  # seconds for a worker to be placed, after which a person is told
_LONGEST_REST = 60.0  # seconds


@dataclass
class _Place:
    """A worker as the driver sees it."""

    actor: Any
    asked: Any  # an answer to come: its state, once it is placed, and then its events
    node: str | None = None  # that it is on
    trial: str | None = None
    seen: int = 0  # events of that trial
    is_old: bool = False  # of an earlier driver, and perhaps of another job or share


@dataclass
class _Rest:
    """A node that failed: it would draw all trials, as it is always the first to be free."""

    failures: int = 0  # in a row
    until: float = 0.0

    def begin(self) -> None:
        """Leave the next trials to other nodes for a while, longer each time."""
        self.failures += 1
        self.until = time.monotonic() + min(2**self.failures, _LONGEST_REST)


@dataclass(frozen=True)
class Share:
    """What each trial holds of a node."""

    cpus: int = 1  # threads
    gpus: float = 0  # a part of one may be held


class RayPool:
    """Workers on a cluster that this process has joined (`prepare.cluster.connected`)."""

    def __init__(
        self,
        root: Path,
        folder: Path,
        start: Start,
        *,
        sweep: str,
        remote: str,
        address: str,
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
            address: of the cluster.
            share: what each trial holds.
            jobs: trials at a time; None for as many as the nodes of the moment hold. More than they
                hold is what an autoscaler sees.

        Raises:
            SweepError: the workspace is not the commit, or a remote is missing or refuses.
        """
        self._root, self._folder = root, folder
        self._remote, self._share, self._jobs = remote, share, jobs
        owner = hashlib.sha256(ray.get_runtime_context().namespace.encode()).hexdigest()[:8]
        self._ref = f"refs/fieldguide/{sweep}-{start.baseline}-{owner}"
        self._experiments = f"refs/exps/{start.baseline[:2]}/{start.baseline[2:]}"
        self._places: dict[str, _Place] = {}  # by the worker's name
        self._rests: defaultdict[str, _Rest] = defaultdict(_Rest)  # by node
        self._published: list[str] = []  # trials whose experiments are still to be fetched
        self._fetch_at = self._cut_since = 0.0  # next try, and when the remote went
        self.options = f" --engine ray --address {address}"
        self._began, self._told = time.monotonic(), False  # that nobody has a place
        self._unplaced = 0  # workers in a row that ended before they had a place
        self._most = 0  # trials still to end
        self._looked = 0.0
        url = _url(root, remote)
        self._job = Job(sweep, url, self._ref, start.baseline, share.cpus)
        _check_is_commit(root, start)
        if jobs is None and self._capacity() == 0:
            raise SweepError(
                f"no node holds --cpus {share.cpus} and --gpus {share.gpus:g}; allowed: what one "
                "has (`ray status`), or -j N, with which the sweep waits for such a node"
            )
        _ship(root, remote, f"{start.baseline}:{self._ref}")

    def recover(self, wanted: Collection[str]) -> set[str]:  # noqa: D102 - Pool's, here and below
        self._fetch_missing(wanted)
        found = {}
        for name in ray.util.list_named_actors():
            with suppress(ValueError):  # it has just gone
                actor = ray.get_actor(name)
                found[actor.state.remote()] = (name, actor)
        ready = ray.wait(list(found), num_returns=len(found), timeout=_STATE)[0] if found else []
        running: set[str] = set()
        for answer, (name, actor) in found.items():
            node, trial = "", None
            with suppress(ray.exceptions.RayError):  # its node died
                node, trial = ray.get(answer) if answer in ready else ("", None)
            if trial and trial in wanted and trial not in running:
                events = actor.events.remote(trial, 0)
                self._places[name] = _Place(actor, events, node, trial, is_old=True)
                running.add(trial)
            else:
                ray.kill(actor)
        return running

    def _fetch_missing(self, wanted: Collection[str]) -> None:
        """Bring the experiments that ended while no driver was there."""
        listed = git(self._root, "ls-remote", self._remote, f"{self._experiments}/*").split()[1::2]
        here = git(self._root, "for-each-ref", "--format=%(refname)", self._experiments).split()
        names = {ref.rpartition("/")[2] for ref in set(listed) - set(here)}
        if refs := [f"{self._experiments}/{name}" for name in sorted(names & set(wanted))]:
            git(self._root, *_FETCH, self._remote, *(f"{ref}:{ref}" for ref in refs))

    def expect(self, most: int) -> None:  # noqa: D102
        self._most = most
        # Not counting those on nodes that fail: the good one must not go because they are busy.
        good = [name for name, place in self._places.items() if not self._failures(place)]
        surplus = len(good) - most
        if surplus >= 0:  # that others may have their places
            idle = [name for name, place in self._places.items() if place.trial is None]
            for name in idle:
                if name not in good:
                    self._drop(name)
            for name in [name for name in idle if name in good][:surplus]:
                self._drop(name)

    def _failures(self, place: _Place) -> int:
        rest = self._rests.get(place.node or "")
        return rest.failures if rest else 0

    def room(self) -> int:  # noqa: D102
        self._look()
        return sum(map(self._is_free, self._places.values()))

    def _is_free(self, place: _Place) -> bool:
        if place.node is None or place.trial is not None:
            return False
        rest = self._rests.get(place.node)
        return rest is None or time.monotonic() >= rest.until

    def start(self, run: Run, rungs: list[int]) -> None:  # noqa: D102
        place = min(filter(self._is_free, self._places.values()), key=self._failures)
        place.trial, place.seen = run.name, 0
        place.asked = place.actor.run.remote(run.name, run.overrides, rungs)

    def wait(self) -> Iterator[Reported | Ended]:  # noqa: D102
        asked = {place.asked: name for name, place in self._places.items()}
        if not asked:
            time.sleep(_TICK)
            return
        ready, _ = ray.wait(list(asked), num_returns=1, timeout=_TICK)
        if ready:  # and whoever else is by now
            ready, _ = ray.wait(list(asked), num_returns=len(asked), timeout=0)
        for answer in ready:
            for event in self._hear(asked[answer]):
                if isinstance(event, Ended) and self._is_published(event):
                    self._published.append(event.name)
                else:
                    yield event
        yield from self._fetch()

    def _hear(self, name: str) -> Iterator[Reported | Ended]:
        """Take a worker's answer, and ask it again."""
        place = self._places[name]
        try:
            answer = ray.get(place.asked)
        except ray.exceptions.RayError as err:  # its node died, or it cannot work there
            self._drop(name)
            if place.trial:
                why = "its node is gone" if isinstance(err, _GONE) else _first_line(err)
                yield Ended(place.trial, None, None, why)
            elif place.node is None:
                self._unplaced += 1
                if self._unplaced >= _MOST_UNPLACED:
                    raise SweepError(
                        f"no worker starts on the cluster: {_first_line(err)}"
                    ) from err
            return
        if place.node is None:
            self._unplaced = 0
            place.node = answer[0]
        else:
            yield from (self._event(place, event) for event in answer)
            if place.is_old and place.trial is None:
                self._drop(name)  # one of this job takes its place
                return
        place.asked = place.actor.events.remote(place.trial or "", place.seen)

    def _event(self, place: _Place, event: dict[str, Any]) -> Reported | Ended:
        """Understand what a worker says of its trial."""
        name = event["name"]
        place.seen += 1
        if event["event"] == "epoch":
            return Reported(name, event["epoch"], event["metrics"])
        place.trial, place.seen = None, 0
        of_place = event.get("of_place", False)
        ended = Ended(name, None, event["status"], event["message"], of_place)
        assert place.node is not None
        if ended.status == 0 or ended.is_its_own_fault:
            self._rests.pop(place.node, None)
        else:
            self._rests[place.node].begin()
        if ended.status != 0:
            log = self.log(name)
            log.parent.mkdir(parents=True, exist_ok=True)
            log.write_text(event.get("log") or ended.message, encoding="utf-8")
        return ended

    def _drop(self, name: str) -> None:
        """Forget a worker, and free its place if it still has one."""
        with suppress(ray.exceptions.RayError):
            ray.kill(self._places.pop(name).actor)

    def _is_published(self, ended: Ended) -> bool:
        """Whether its experiment is on the remote, also of a node that died with the last word."""
        if ended.status is not None:
            return ended.status == 0
        try:
            ref = f"{self._experiments}/{ended.name}"
            return bool(git(self._root, "ls-remote", self._remote, ref))
        except GitError:
            return False

    def _fetch(self) -> Iterator[Ended]:
        """Bring finished trials' experiments into the project; later, where the remote is away."""
        now = time.monotonic()
        if not self._published or now < self._fetch_at:
            return
        refs = [f"{self._experiments}/{name}" for name in self._published]
        try:
            git(self._root, *_FETCH, self._remote, *(f"+{ref}:{ref}" for ref in refs))
        except GitError:
            self._cut_since = self._cut_since or now
            self._fetch_at = now + _LOOK
            if now - self._cut_since > _OUTAGE:
                raise
            return
        self._cut_since = 0.0
        names, self._published = self._published, []
        for name in names:
            yield Ended(name, read_trials(self._root, name=name)[0])

    def answer(self, name: str, epoch: int, *, go_on: bool) -> None:  # noqa: D102
        place = next(p for p in self._places.values() if p.trial == name)
        place.actor.answer.remote(name, epoch, go_on=go_on)

    def log(self, name: str) -> Path:  # noqa: D102
        return self._folder / "logs" / f"{name}.log"

    def stop(self) -> None:  # noqa: D102
        for name in list(self._places):
            self._drop(name)  # with it goes the process that runs its trial

    def close(self) -> None:  # noqa: D102
        self.stop()
        with suppress(GitError):  # left over, it harms nobody
            git(self._root, "push", "--quiet", self._remote, f":{self._ref}")

    def _look(self) -> None:
        """Have as many workers as are wanted; one that finds no room waits in Ray for a node."""
        if time.monotonic() - self._looked < _LOOK:
            return
        self._looked = time.monotonic()
        self._say_if_none_is_placed()
        wanted = min(self._jobs or self._capacity(), self._most)
        while len(self._places) < wanted:
            name = f"worker-{uuid.uuid4()}"
            self._places[name] = self._new_worker(name)

    def _say_if_none_is_placed(self) -> None:
        if any(place.node for place in self._places.values()):
            self._began = time.monotonic()
        elif not self._told and time.monotonic() - self._began > _PLACED:
            self._told = True
            print(
                f"No worker has a place yet: each wants {self._share.cpus} cores and "
                f"{self._share.gpus:g} GPUs of a node; `ray status` shows what is free",
                file=sys.stderr,
                flush=True,
            )

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
        return _Place(actor, actor.state.remote())

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


def _first_line(err: Exception) -> str:
    return str(err).strip().partition("\n")[0] or type(err).__name__


def _url(root: Path, remote: str) -> str:
    try:
        url = git(root, "remote", "get-url", remote).strip()
    except GitError as err:
        known = ", ".join(git(root, "remote").split()) or "none; git remote add"
        raise SweepError(f"--git-remote: found {remote!r}; allowed: {known}") from err
    if re.match(r"\w+://[^/@]*:[^/@]*@", url):
        raise SweepError(
            f"--git-remote {remote}: its address holds a password, which every node would be sent; "
            "allowed: one without, as nodes have credentials of their own"
        )
    return str((root / url).resolve()) if (root / url).exists() else url


def _check_is_commit(root: Path, start: Start) -> None:
    """Nodes get commits alone: what is not committed would silently be missing there."""
    changed = set(git(root, "diff", "--name-only", start.baseline, start.snapshot).splitlines())
    if changed := changed - {str(TIMING)}:  # seconds, which every `dvc repro` changes
        raise SweepError(
            f"{', '.join(sorted(changed))}: changed and not committed, and a cluster gets the "
            "commit alone; commit it, or put it away with `git stash` (a sweep that has begun with "
            "it on one machine goes on there, or takes another `name`)"
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
