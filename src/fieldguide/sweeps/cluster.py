"""Workers on the nodes of a Ray cluster; nodes and driver share a Git remote and a DVC remote.

Ray decides on which node a run is trained, and ends the runs of a node or driver that dies.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import threading
import time
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
from filelock import FileLock
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from fieldguide.core.errors import DvcError, FieldguideError, GitError, SweepError, first_line
from fieldguide.core.files import first_free_folder
from fieldguide.core.params import Params
from fieldguide.results.dvc import cached_dependencies, dvc
from fieldguide.results.git import git, top_of
from fieldguide.results.paths import TIMING
from fieldguide.sweeps.local import checkpoint_folder, drop_checkpoints, gpus_wanted, log_file
from fieldguide.sweeps.space import Run, Values
from fieldguide.sweeps.worker import CACHE, TARGET, Clone, Outcome, StartingPoint

_FETCH = ("fetch", "--quiet", "--force", "--no-tags", "--no-write-fetch-head")
_PAUSES = (1.0, 5.0, 15.0)  # seconds between a node's tries to push an experiment
_NODE_PAUSE = 10.0  # seconds that a run waits on a node that cannot train it
_MOST_FAILURES = 3  # in a row, after which a node gets no more runs
_LOG_TAIL = 20_000  # characters of a run's log that are sent to the driver
_INTERVAL, _OUTAGE = 5.0, 600.0  # seconds between the driver's tries to fetch, and of all of them


@dataclass(frozen=True)
class Job:
    """What a node must know of a sweep, and where it keeps its files."""

    url: str  # of the Git remote
    ref: str  # of the sweep's commit on the remote
    start: StartingPoint
    threads: int  # of a run

    @property
    def folder(self) -> Path:
        """The project's folder on this node: a clone with DVC's cache, slots and checkpoints."""
        base = Path(os.environ.get("FIELDGUIDE_NODE_FOLDER") or "~/.cache/fieldguide/nodes")
        name = hashlib.sha256(f"{self.url} {self.start.subfolder}".encode()).hexdigest()[:16]
        return base.expanduser().resolve() / name

    @property
    def sweep(self) -> Path:
        """The folder of the sweep's checkpoints and logs on this node."""
        return self.folder / "sweeps" / Path(self.ref).name


def _train_on_node(job: Job, run: Run, checkpoints: set[int]) -> tuple[Outcome, str, str]:
    """Train a run and push its experiment; return how it ended, its log and the node's ID."""
    log, node = log_file(job.sweep, run.name), ray.get_runtime_context().get_node_id()
    try:
        project = _set_up(job)
        drop_checkpoints(job.sweep, checkpoints)
        with first_free_folder(job.folder / "slots") as slot:
            clone = Clone(project, slot / "clone", job.start, project / CACHE)
            outcome = clone.run(
                run,
                log=log,
                checkpoint=checkpoint_folder(job.sweep, run),
                env={"OMP_NUM_THREADS": str(job.threads)},
            )
            if outcome.commit:
                _push(clone, job, run)
            text = log.read_text(encoding="utf-8", errors="replace")
            return outcome, text[-_LOG_TAIL:], node
    except (FieldguideError, OSError) as err:  # what this node lacks, another one may have
        time.sleep(_NODE_PAUSE)
        return Outcome(message=first_line(err), node_failed=True), "", node


def _set_up(job: Job) -> Path:
    """Bring the node's clone to the sweep's commit, and the data into its cache, once."""
    clone, commit = job.folder / "clone", job.start.baseline
    project, ready = clone / job.start.subfolder, job.folder / f"{commit}.ready"
    job.folder.mkdir(parents=True, exist_ok=True)
    with FileLock(job.folder / "setup.lock"):  # the node's other workers wait
        if not ready.exists():
            git(job.folder, "init", "--quiet", str(clone))
            git(clone, *_FETCH, job.url, f"{job.ref}:{job.ref}")
            git(clone, "checkout", "--quiet", "--force", "--detach", commit)
            dvc(project, "config", "--local", "cache.dir", CACHE)
            if data := cached_dependencies(project, TARGET):
                dvc(project, "fetch", "--with-deps", *data)
            ready.touch()
    return project


def _push(clone: Clone, job: Job, run: Run) -> None:
    """Push what a run read and wrote, then its ref: if the ref is there, the model is too."""
    ref = job.start.refs + run.name
    for pause in (*_PAUSES, None):
        try:
            dvc(clone.project, "push", "--with-deps", TARGET)
            git(clone.folder, "push", "--quiet", "--force", job.url, f"{ref}:{ref}")
        except (GitError, DvcError):
            if pause is None:
                raise
            time.sleep(pause)
        else:
            return


def _delete_files_of(job: Job) -> None:
    shutil.rmtree(job.sweep, ignore_errors=True)


class RayPool:
    """Workers on a cluster that this process has joined (`prepare.ray_connection.connected`)."""

    def __init__(
        self,
        root: Path,
        folder: Path,
        start: StartingPoint,
        *,
        sweep: str,
        remote: str,
        cpus: int,
        gpus: float,
        jobs: int | None,
    ) -> None:
        """Push the commit and the data of runs to the remotes.

        Args:
            root: the project.
            folder: for logs.
            start: what all runs start from; a commit without further changes.
            sweep: its name.
            remote: Git's name of the remote that nodes reach.
            cpus: that a run reserves, and its threads.
            gpus: that a run reserves; may be a part of one.
            jobs: runs at a time; None for as many as the nodes can hold.

        Raises:
            SweepError: the workspace has uncommitted changes, a remote is missing or refuses, or
                no node can hold a run.
        """
        self._root, self._folder, self._remote, self._jobs = root, folder, remote, jobs
        self._share = {"num_cpus": cpus, "num_gpus": gpus}
        self._failures = Counter[str]()  # in a row, by node
        ref = f"refs/fieldguide/{sweep}-{start.baseline}"
        self._job = Job(_url(root, remote), ref, start, cpus)
        if jobs is None and self._capacity() == 0:
            raise SweepError(
                f"no node holds --cpus {cpus} and --gpus {gpus:g}; allowed: what one has (`ray "
                "status`), or -j N, with which the sweep waits for such a node"
            )
        _publish(root, remote, start, ref)
        self._nodes: dict[tuple[int, int], str] = {}  # ID of the node with its checkpoint
        self._answers: set[Any] = set()  # Ray's references to results that are still to come
        self._threads = ThreadPoolExecutor(1000)  # each waits for a run
        self._fetching, self._stopped = threading.Lock(), threading.Event()

    def room(self) -> int:  # noqa: D102 - Pool's, here and below
        return self._jobs or max(1, self._capacity())  # one that waits shows an autoscaler demand

    def _capacity(self) -> int:
        """Return how many runs the nodes can hold now, without the broken ones."""
        cpus, gpus, found = self._share["num_cpus"], self._share["num_gpus"], 0
        for node in ray.nodes():
            if node["Alive"] and self._failures[node["NodeID"]] < _MOST_FAILURES:
                has = node["Resources"]
                by_cpus = int(has.get("CPU", 0) // cpus)
                found += min(by_cpus, int(has.get("GPU", 0) / gpus)) if gpus else by_cpus
        return found

    def start(self, run: Run, checkpoints: set[int]) -> Future[Outcome]:  # noqa: D102
        if self._capacity() == 0:
            self._failures.clear()  # rather a broken node than none
        broken = [node for node, count in self._failures.items() if count >= _MOST_FAILURES]
        others = {"ray.io/node-id": f"!in({','.join(broken)})"}
        node = self._nodes.pop((run.number, run.index), None)
        train = ray.remote(_train_on_node).options(
            **self._share,
            max_retries=0,
            scheduling_strategy=(
                NodeAffinitySchedulingStrategy(node, soft=True) if node else "SPREAD"
            ),
            label_selector=others if broken else None,
        )
        answer = train.remote(self._job, run, checkpoints)
        self._answers.add(answer)
        return self._threads.submit(self._wait, run, answer)

    def _wait(self, run: Run, answer: Any) -> Outcome:
        """Wait for a run; bring its experiment into the project, or its log into the log file."""
        outcome: Outcome
        try:
            outcome, log, node = ray.get(answer)
        except ray.exceptions.RayError as err:  # its node died, for example
            outcome, log, node = Outcome(message=first_line(err)), "", ""
        self._answers.discard(answer)
        self._failures[node] = self._failures[node] + 1 if outcome.node_failed else 0
        if outcome.commit:
            self._nodes[run.number, run.index] = node
            return replace(outcome, commit=self._fetch(self._job.start.refs + run.name))
        path = log_file(self._folder, run.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(log or outcome.message, encoding="utf-8")
        return outcome

    def _fetch(self, ref: str) -> str:
        """Fetch an experiment, later if the remote is away, and return its commit."""
        end = time.monotonic() + _OUTAGE
        while True:
            try:
                with self._fetching:  # Git does not wait for another fetch
                    git(self._root, *_FETCH, self._remote, f"{ref}:{ref}")
                return git(self._root, "rev-parse", ref).strip()
            except GitError:
                if time.monotonic() > end or self._stopped.wait(_INTERVAL):
                    raise

    def stop(self) -> None:  # noqa: D102
        self._stopped.set()
        for answer in list(self._answers):
            ray.cancel(answer, force=True)
        self._threads.shutdown()

    def close(self) -> None:  # noqa: D102
        cleaned = []
        for node in (node["NodeID"] for node in ray.nodes() if node["Alive"]):
            place = NodeAffinitySchedulingStrategy(node, soft=False)
            clean = ray.remote(_delete_files_of).options(num_cpus=0, scheduling_strategy=place)
            cleaned.append(clean.remote(self._job))
        ray.wait(cleaned, num_returns=len(cleaned), timeout=60)
        with suppress(GitError):  # a ref that is left does no harm
            git(self._root, "push", "--quiet", self._remote, f":{self._job.ref}")


def gpus_of_a_trial(base: Params, fixed: Values) -> int:
    """Return how many GPUs a run trains on; 0 if the cluster has none."""
    return gpus_wanted(base, fixed) if ray.cluster_resources().get("GPU") else 0


def _url(root: Path, remote: str) -> str:
    """Return the address of a Git remote, which must hold no password: nodes would be sent it."""
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


def _publish(root: Path, remote: str, start: StartingPoint, ref: str) -> None:
    """Push the commit and what runs read to the remotes, where nodes get them."""
    changed = git(root, "diff", "--name-only", start.baseline, start.snapshot).splitlines()
    if others := set(changed) - {f"{start.subfolder}{TIMING}"}:  # changes with every `dvc repro`
        raise SweepError(
            f"{', '.join(sorted(others))}: changed and not committed, and a cluster gets the "
            "commit alone; commit it, or put it away with `git stash` (a sweep that has begun with "
            "it on one machine goes on there, or takes another `name`)"
        )
    try:
        dvc(root, "config", "--project", "core.remote")
    except DvcError as err:
        raise SweepError(
            ".dvc/config: found no default remote, and nodes have nothing else in common; "
            "`dvc remote add -d NAME URL`, and commit it"
        ) from err
    try:
        git(root, "push", "--quiet", remote, f"{start.baseline}:{ref}")
        if data := cached_dependencies(root, TARGET):
            dvc(root, "push", "--with-deps", *data)
    except (GitError, DvcError) as err:
        raise SweepError(f"{err}; nodes get the commit and its data from the remotes") from err
