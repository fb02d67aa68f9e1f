"""The process that runs the trials of one worker on a node of a cluster, one at a time.

`python -m fieldguide.sweeps.node` reads its job, then orders, and writes events: JSON, one object a
line. When its standard input closes, nobody waits for the trial any more, and it ends both. The
clone of the project, DVC's cache and the slots lie in the node's folder and are used again.
"""

from __future__ import annotations

import hashlib
import json
import os
import queue
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, TextIO

from filelock import FileLock, Timeout

from fieldguide.core.errors import DvcError, FieldguideError, GitError
from fieldguide.results.dvc import cached_dependencies, dvc
from fieldguide.results.git import git
from fieldguide.sweeps.experiments import Trial
from fieldguide.sweeps.slot import CACHE, TARGET, Slot, StartingPoint
from fieldguide.sweeps.worker import FOLDER

_TICK = 0.1  # seconds between looks at the trial
_PAUSES = (1.0, 5.0, 15.0)  # seconds between tries to publish an experiment
_LOG_TAIL = 20_000  # characters of a failed trial's log that are sent
Order = dict[str, Any]
Event = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """What all trials of a sweep share; sent as JSON."""

    sweep: str
    url: str  # of the Git remote
    ref: str  # of the baseline, on the remote
    baseline: str  # commit
    subfolder: str  # of the project in the repository: "birds/", or "" for the top folder
    threads: int  # of a trial


class Node:
    """The folder of one project on this node."""

    def __init__(self, job: Job) -> None:
        """Choose the folder: in $FIELDGUIDE_NODE_FOLDER, or in the user's cache."""
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        base = Path(os.environ.get(FOLDER) or cache / "fieldguide" / "nodes")
        self.job = job
        name = hashlib.sha256(f"{job.url} {job.subfolder}".encode()).hexdigest()[:16]
        self.folder = base.resolve() / name
        self.clone = self.folder / "clone"
        self.project = self.clone / job.subfolder

    def set_up(self) -> None:
        """Bring the clone to the sweep's commit, and its data into the node's cache, once.

        Raises:
            GitError: the remote cannot be read, or lacks the commit.
            DvcError: the data cannot be fetched.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        ready = self.folder / f"{self.job.baseline}.ready"
        with FileLock(self.folder / "setup.lock"):  # the node's other workers wait
            if ready.exists() and (self.clone / ".git").exists():
                return
            if not (self.clone / ".git" / "HEAD").is_file():
                git(self.folder, "init", "--quiet", str(self.clone))
            fetch = ("fetch", "--quiet", "--no-tags", "--force", self.job.url)
            git(self.clone, *fetch, f"{self.job.ref}:{self.job.ref}")
            git(self.clone, "checkout", "--quiet", "--force", "--detach", self.job.baseline)
            dvc(self.project, "config", "--local", "cache.dir", CACHE)
            if data := cached_dependencies(self.project, TARGET):
                dvc(self.project, "fetch", *data)
            ready.touch()

    @contextmanager
    def slot(self) -> Iterator[Slot]:
        """Take the first free slot; if this process is killed, the kernel frees it."""
        folder = self.folder / "slots"
        folder.mkdir(parents=True, exist_ok=True)
        for number in count():
            lock = FileLock(folder / f"{number}.lock")
            try:
                lock.acquire(timeout=0)
            except Timeout:
                continue
            with lock:
                start = StartingPoint(self.job.baseline, self.job.baseline, self.job.subfolder)
                yield Slot(self.project, folder / str(number), start)
            return

    def publish(self, slot: Slot, trial: Trial) -> None:
        """Push what a trial read and wrote, then its ref: if the ref is there, the model is too.

        If another node has published the same trial, that one stays.

        Raises:
            DvcError, GitError: a remote cannot be written.
        """
        data = cached_dependencies(slot.project, TARGET)
        for pause in (*_PAUSES, None):  # a training is worth some patience
            try:
                dvc(slot.project, "push", *data, TARGET)
                self._push(trial)
            except (GitError, DvcError):
                if pause is None:
                    raise
                time.sleep(pause)
            else:
                return

    def _push(self, trial: Trial) -> None:
        try:
            git(self.clone, "push", "--quiet", self.job.url, f"{trial.rev}:{trial.ref}")
        except GitError:
            if not git(self.clone, "ls-remote", self.job.url, trial.ref):
                raise


def serve(job: Job, orders: queue.Queue[Order | None], events: TextIO) -> None:
    """Run the trials that are ordered, until an order is None."""

    def tell(name: str, event: Event) -> None:
        events.write(json.dumps({"name": name, **event}) + "\n")
        events.flush()

    node = Node(job)
    with node.slot() as slot:
        slot.kill()  # what a killed process left running
        while (order := orders.get()) is not None:
            if "overrides" not in order:
                continue  # an answer that came late
            try:
                node.set_up()
                for event in _run(node, slot, order, orders):
                    tell(order["name"], event)
            except (FieldguideError, OSError) as err:
                # Before or after the training: what this node lacks, another one may have.
                message = f"{type(err).__name__}: {err}"
                tell(order["name"], {**_ended(None, message), "node_failed": True})


def _run(
    node: Node, slot: Slot, order: Order, orders: queue.Queue[Order | None]
) -> Iterator[Event]:
    """Run one trial and yield its events; the last one says how it ended."""
    env = {"OMP_NUM_THREADS": str(node.job.threads)}
    slot.run(order["name"], order["overrides"], order["rungs"], env=env)
    running = True
    while running:
        time.sleep(_TICK)
        running = slot.is_running  # asked first: after the end, no report is missed
        for report in slot.new_epochs():
            yield {"event": "epoch", "epoch": report.epoch, "metrics": report.metrics}
        with suppress(queue.Empty):
            while True:
                answer = orders.get_nowait()
                if answer is None:  # nobody waits for this trial any more
                    slot.kill()
                    orders.put(None)
                    return
                if answer["name"] == order["name"]:
                    slot.answer(answer["epoch"], go_on=answer["go_on"])
    ended = slot.end()
    log = slot.log.read_text(encoding="utf-8", errors="replace")[-_LOG_TAIL:]
    slot.log.unlink()
    if ended.trial:
        node.publish(slot, ended.trial)
        yield _ended(0, "")
    else:
        yield {**_ended(ended.status, ended.message), "log": log}


def _ended(status: int | None, message: str) -> Event:
    return {"event": "ended", "status": status, "message": message}


def _read(orders: queue.Queue[Order | None]) -> None:
    for line in sys.stdin:
        orders.put(json.loads(line))
    orders.put(None)


def main() -> None:
    """Serve the orders from standard input until it closes."""
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    # Only events go to standard output; what a library prints goes to standard error.
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    job = Job(**json.loads(sys.stdin.readline()))
    orders: queue.Queue[Order | None] = queue.Queue()
    threading.Thread(target=_read, args=(orders,), daemon=True).start()
    serve(job, orders, events)


if __name__ == "__main__":
    main()
