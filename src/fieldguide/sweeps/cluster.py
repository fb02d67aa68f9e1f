"""Workers on the nodes of a Ray cluster; nodes and driver share a Git remote and a DVC remote.

A worker (worker.py) is a detached actor: it survives a driver that is killed, and the next driver
finds it by its name. Ray tells which node has room, and which died.
"""

from __future__ import annotations

import hashlib
import re
import time
import uuid
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ray

from fieldguide.core.errors import DvcError, GitError, SweepError, first_line
from fieldguide.core.params import Params
from fieldguide.results.dvc import cached_dependencies, dvc
from fieldguide.results.git import git, top_of
from fieldguide.results.paths import TIMING
from fieldguide.sweeps.experiments import read_trials
from fieldguide.sweeps.node import Event, Job
from fieldguide.sweeps.pool import Ended, Reported, gpus_wanted
from fieldguide.sweeps.record import PlannedTrial
from fieldguide.sweeps.slot import TARGET, StartingPoint, log_file
from fieldguide.sweeps.space import Values
from fieldguide.sweeps.worker import Worker

_FETCH = ("fetch", "--quiet", "--no-tags", "--no-write-fetch-head")
_TICK = 1.0  # most seconds that the driver waits for an event
_GONE = (ray.exceptions.ActorDiedError, ray.exceptions.ActorUnavailableError)
_INTERVAL = 5.0  # seconds between looks at the nodes, and between tries of the Git remote
_ANSWER_TIMEOUT = 10.0  # seconds for a worker of an earlier driver to answer
_OUTAGE = 600.0  # seconds without the Git remote, after which the driver stops
_MOST_UNPLACED = 5  # workers in a row that end before Ray placed them
_LONGEST_PAUSE = 60.0  # seconds, of a node that fails again and again


@dataclass
class _Actor:
    """A worker as the driver sees it."""

    handle: Any
    answer_ref: Any  # Ray's reference to the next answer: first its state, then events
    node: str | None = None  # known once Ray has placed it
    trial: str | None = None
    seen: int = 0  # events of that trial
    is_old: bool = False  # of an earlier driver, perhaps with other options


@dataclass(frozen=True)
class Share:
    """What each trial reserves on a node."""

    cpus: int = 1  # also its threads
    gpus: float = 0  # may be a part of one


class RayPool:
    """Workers on a cluster that this process has joined (`prepare.ray_connection.connected`)."""

    def __init__(
        self,
        root: Path,
        folder: Path,
        starting_point: StartingPoint,
        *,
        sweep: str,
        remote: str,
        share: Share,
        jobs: int | None,
    ) -> None:
        """Push the commit and the data of trials to the remotes.

        Args:
            root: the project.
            folder: for logs.
            starting_point: of all trials; it must be a commit without further changes.
            sweep: its name.
            remote: Git's name of the remote that nodes reach.
            share: what each trial reserves.
            jobs: trials at a time; None for as many as the nodes can hold now. With more than that,
                an autoscaler sees the demand.

        Raises:
            SweepError: the workspace has other changes, or a remote is missing or refuses.
        """
        self._root, self._folder = root, folder
        self._remote, self._share, self._jobs = remote, share, jobs
        baseline = starting_point.baseline
        owner = hashlib.sha256(ray.get_runtime_context().namespace.encode()).hexdigest()[:8]
        self._ref = f"refs/fieldguide/{sweep}-{baseline}-{owner}"
        self._experiments = f"refs/exps/{baseline[:2]}/{baseline[2:]}"
        self._actors: dict[str, _Actor] = {}  # by name
        self._failures: Counter[str | None] = Counter()  # in a row, by node
        # A pause after a failure. Without it a broken node, which is always the first to be free,
        # would get every trial.
        self._paused_until: dict[str, float] = {}  # by node
        self._published: list[str] = []  # trials whose experiments are still to be fetched
        self._next_fetch = self._remote_lost_at = 0.0
        self._unplaced = 0  # workers in a row that ended before Ray had placed them
        self._next_look = 0.0  # at the nodes
        url = _url(root, remote)
        self._job = Job(url, self._ref, baseline, starting_point.subfolder, share.cpus)
        _check_is_commit(root, starting_point)
        if jobs is None and self._capacity() == 0:
            raise SweepError(
                f"no node holds --cpus {share.cpus} and --gpus {share.gpus:g}; allowed: what one "
                "has (`ray status`), or -j N, with which the sweep waits for such a node"
            )
        _push(root, remote, f"{baseline}:{self._ref}")

    def recover(self, wanted: Collection[str]) -> set[str]:  # noqa: D102 - Pool's, here and below
        self._fetch_missing(wanted)
        found = {}
        for name in ray.util.list_named_actors():
            with suppress(ValueError):  # it has just ended
                handle = ray.get_actor(name)
                found[handle.state.remote()] = (name, handle)
        refs = list(found)
        ready = ray.wait(refs, num_returns=len(refs), timeout=_ANSWER_TIMEOUT)[0] if refs else []
        running: set[str] = set()
        for answer, (name, handle) in found.items():
            node, trial = "", None
            with suppress(ray.exceptions.RayError):  # its node died
                node, trial = ray.get(answer) if answer in ready else ("", None)
            if trial and trial in wanted and trial not in running:
                events = handle.events.remote(trial, 0)
                self._actors[name] = _Actor(handle, events, node, trial, is_old=True)
                running.add(trial)
            else:
                ray.kill(handle)
        return running

    def _fetch_missing(self, wanted: Collection[str]) -> None:
        """Fetch the experiments that were published while no driver ran."""
        listed = git(self._root, "ls-remote", self._remote, f"{self._experiments}/*").split()[1::2]
        here = git(self._root, "for-each-ref", "--format=%(refname)", self._experiments).split()
        names = {ref.rpartition("/")[2] for ref in set(listed) - set(here)}
        if refs := [f"{self._experiments}/{name}" for name in sorted(names & set(wanted))]:
            git(self._root, *_FETCH, self._remote, *(f"{ref}:{ref}" for ref in refs))

    def expect(self, most: int) -> None:  # noqa: D102
        failing = [name for name, actor in self._actors.items() if self._failures[actor.node]]
        # Failing workers are not counted, so that their number never makes a good worker
        # superfluous.
        surplus = len(self._actors) - len(failing) - most
        if surplus >= 0:
            idle = [name for name, actor in self._actors.items() if actor.trial is None]
            good = [name for name in idle if name not in failing]
            for name in [*(set(idle) & set(failing)), *good[:surplus]]:
                self._drop(name)
        if time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + _INTERVAL
            self._start_workers(most)

    def room(self) -> int:  # noqa: D102
        return sum(map(self._is_free, self._actors.values()))

    def _is_free(self, actor: _Actor) -> bool:
        if actor.node is None or actor.trial is not None:
            return False
        return time.monotonic() >= self._paused_until.get(actor.node, 0)

    def start(self, planned: PlannedTrial, rungs: list[int]) -> None:  # noqa: D102
        free = filter(self._is_free, self._actors.values())
        actor = min(free, key=lambda one: self._failures[one.node])
        actor.trial, actor.seen = planned.name, 0
        actor.answer_ref = actor.handle.run.remote(planned.name, planned.overrides, rungs)

    def wait(self) -> Iterator[Reported | Ended]:  # noqa: D102
        waiting = {actor.answer_ref: name for name, actor in self._actors.items()}
        if not waiting:
            time.sleep(_TICK)
            return
        ready, _ = ray.wait(list(waiting), num_returns=1, timeout=_TICK)
        if ready:  # others may have answered too
            ready, _ = ray.wait(list(waiting), num_returns=len(waiting), timeout=0)
        for answer in ready:
            for event in self._hear(waiting[answer]):
                if isinstance(event, Ended) and event.status == 0:
                    self._published.append(event.name)
                else:
                    yield event
        yield from self._fetch()

    def _hear(self, name: str) -> Iterator[Reported | Ended]:
        """Take a worker's answer, and ask it again."""
        actor = self._actors[name]
        try:
            answer = ray.get(actor.answer_ref)
        except ray.exceptions.RayError as err:  # its node died, or it cannot work there
            self._drop(name)
            if actor.trial:
                why = "its node is gone" if isinstance(err, _GONE) else first_line(err)
                yield Ended(actor.trial, message=why)
            elif actor.node is None:
                self._unplaced += 1
                if self._unplaced >= _MOST_UNPLACED:
                    why = first_line(err)
                    raise SweepError(f"no worker starts on the cluster: {why}") from err
            return
        if actor.node is None:
            self._unplaced = 0
            actor.node = answer[0]
        else:
            yield from (self._translate(actor, event) for event in answer)
            if actor.is_old and actor.trial is None:
                self._drop(name)  # a new worker takes its place
                return
        actor.answer_ref = actor.handle.events.remote(actor.trial or "", actor.seen)

    def _translate(self, actor: _Actor, event: Event) -> Reported | Ended:
        """Return an event of node.py as the driver's, and keep the log of a trial that failed."""
        name = event["name"]
        actor.seen += 1
        if event["event"] == "epoch":
            return Reported(name, event["epoch"], event["metrics"])
        actor.trial, actor.seen = None, 0
        failed = event.get("node_failed", False)
        ended = Ended(name, None, event["status"], event["message"], node_failed=failed)
        assert actor.node is not None
        if ended.status == 0 or ended.is_its_own_fault:
            self._failures[actor.node] = 0
            self._paused_until.pop(actor.node, None)
        else:
            self._failures[actor.node] += 1
            pause = min(2 ** self._failures[actor.node], _LONGEST_PAUSE)
            self._paused_until[actor.node] = time.monotonic() + pause
        if ended.status != 0:
            log = log_file(self._folder, name)
            log.parent.mkdir(parents=True, exist_ok=True)
            log.write_text(event.get("log") or ended.message, encoding="utf-8")
        return ended

    def _drop(self, name: str) -> None:
        """End a worker, and with it the process that runs its trial."""
        with suppress(ray.exceptions.RayError):
            ray.kill(self._actors.pop(name).handle)

    def _fetch(self) -> Iterator[Ended]:
        """Fetch the experiments of finished trials; later, if the remote is away."""
        now = time.monotonic()
        if not self._published or now < self._next_fetch:
            return
        refs = [f"{self._experiments}/{name}" for name in self._published]
        try:
            git(self._root, *_FETCH, self._remote, *(f"+{ref}:{ref}" for ref in refs))
        except GitError:
            self._remote_lost_at = self._remote_lost_at or now
            self._next_fetch = now + _INTERVAL
            if now - self._remote_lost_at > _OUTAGE:
                raise
            return
        self._remote_lost_at = 0.0
        names, self._published = self._published, []
        for name in names:
            yield Ended(name, read_trials(self._root, name=name)[0])

    def answer(self, name: str, epoch: int, *, go_on: bool) -> None:  # noqa: D102
        actor = next(one for one in self._actors.values() if one.trial == name)
        actor.handle.answer.remote(epoch, go_on=go_on)

    def stop(self) -> None:  # noqa: D102
        for name in list(self._actors):
            self._drop(name)

    def close(self) -> None:  # noqa: D102
        self.stop()
        with suppress(GitError):  # a ref that is left does no harm
            git(self._root, "push", "--quiet", self._remote, f":{self._ref}")

    def _start_workers(self, most: int) -> None:
        """Start as many workers as are wanted; one that finds no room waits in Ray for a node."""
        while len(self._actors) < min(self._jobs or self._capacity(), most):
            name = f"worker-{uuid.uuid4()}"
            handle = (
                ray.remote(Worker)
                .options(
                    name=name,
                    lifetime="detached",
                    num_cpus=self._share.cpus,
                    num_gpus=self._share.gpus,
                    max_concurrency=8,  # calls that wait, and calls that do not
                    scheduling_strategy="SPREAD",
                )
                .remote(asdict(self._job))
            )
            self._actors[name] = _Actor(handle, handle.state.remote())

    def _capacity(self) -> int:
        """Return how many shares the nodes can hold now."""
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
    """Return how many GPUs a trial trains on; 0 if the cluster has none."""
    return gpus_wanted(base, fixed) if ray.cluster_resources().get("GPU") else 0


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
    folder = top_of(root) / url
    return str(folder.resolve()) if folder.exists() else url


def _check_is_commit(root: Path, point: StartingPoint) -> None:
    """Refuse uncommitted changes, which nodes would not get."""
    changed = set(git(root, "diff", "--name-only", point.baseline, point.snapshot).splitlines())
    if changed := changed - {f"{point.subfolder}{TIMING}"}:  # changes with every `dvc repro`
        raise SweepError(
            f"{', '.join(sorted(changed))}: changed and not committed, and a cluster gets the "
            "commit alone; commit it, or put it away with `git stash` (a sweep that has begun with "
            "it on one machine goes on there, or takes another `name`)"
        )


def _push(root: Path, remote: str, refspec: str) -> None:
    """Push the commit and what trials read to the remotes."""
    try:
        dvc(root, "config", "--project", "core.remote")
    except DvcError as err:
        raise SweepError(
            ".dvc/config: found no default remote, and nodes have nothing else in common; "
            "`dvc remote add -d NAME URL`, and commit it"
        ) from err
    try:
        git(root, "push", "--quiet", remote, refspec)
        if data := cached_dependencies(root, TARGET):
            dvc(root, "push", *data)
    except (GitError, DvcError) as err:
        raise SweepError(f"{err}; nodes get the commit and its data from the remotes") from err
