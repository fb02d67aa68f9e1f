"""A node's side of a sweep on a cluster: one trial at a time, in a clone of the node's own.

`python -m fieldguide.sweeps.node` reads its job, then orders, and writes events, a JSON object a
line. It lives as long as its standard input: without anyone to give orders, it ends its trial.
What outlasts it lies in the node's folder: the project, DVC's cache and workspaces, used again.
"""

from __future__ import annotations

import hashlib
import json
import os
import queue
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, TextIO

from dvc.config import Config
from dvc.exceptions import DvcException
from dvc.repo import Repo
from filelock import FileLock, Timeout

from fieldguide.core.errors import FieldguideError, GitError
from fieldguide.results.git import git
from fieldguide.sweeps.experiments import Trial
from fieldguide.sweeps.pool import Ended
from fieldguide.sweeps.slot import TARGET, Slot, Start, how_it_failed, is_running
from fieldguide.sweeps.worker import FOLDER
from fieldguide.training.trial import VARIABLE, Channel

_TICK = 0.1  # seconds between looks at the trial
_PAUSES = (1.0, 5.0, 15.0)  # seconds between tries of publishing
_LOG_TAIL = 20_000  # characters of a failed trial's log that are sent


@dataclass(frozen=True)
class Job:
    """What all trials of a sweep share; sent as JSON."""

    sweep: str
    url: str  # Git remote
    ref: str  # there, of the baseline
    baseline: str  # commit
    threads: int  # of a trial


class Node:
    """The folder of one project on this node."""

    def __init__(self, job: Job) -> None:
        """Choose the folder: $FIELDGUIDE_NODE_FOLDER, or one in the user's cache."""
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        base = Path(os.environ.get(FOLDER) or cache / "fieldguide" / "nodes")
        self.job = job
        self.folder = base.resolve() / hashlib.sha256(job.url.encode()).hexdigest()[:16]
        self.project = self.folder / "project"

    def set_up(self) -> None:
        """Bring the clone to the sweep's commit, and its data into the node's cache, once.

        Raises:
            GitError: the remote cannot be read, or lacks the commit.
            DvcException: the data cannot be fetched.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        ready = self.folder / f"{self.job.baseline}.ready"
        with FileLock(self.folder / "setup.lock"):  # the others of this node find it done
            if ready.exists() and (self.project / ".git").exists():
                return
            if not (self.project / ".git" / "HEAD").is_file():
                git(self.folder, "init", "--quiet", str(self.project))
            fetch = ("fetch", "--quiet", "--no-tags", "--force", self.job.url)
            git(self.project, *fetch, f"{self.job.ref}:{self.job.ref}")
            git(self.project, "checkout", "--quiet", "--force", "--detach", self.job.baseline)
            with Config(str(self.project / ".dvc")).edit("local") as config:
                config["cache"] = {"dir": str(self.folder / "cache")}
            with Repo(str(self.project)) as repo:
                repo.fetch(targets=data_of_trials(repo))
            ready.touch()

    @contextmanager
    def slot(self) -> Iterator[Slot]:
        """Take the first free workspace; the kernel frees that of a process that was killed."""
        folder = self.folder / "slots"
        folder.mkdir(parents=True, exist_ok=True)
        for number in count():
            lock = FileLock(folder / f"{number}.lock")
            try:
                lock.acquire(timeout=0)
            except Timeout:
                continue
            try:
                start = Start(self.job.baseline, self.job.baseline)
                slot = Slot(self.project, folder / str(number), start)
                slot.kill()  # what the one before it left running
                yield slot
            finally:
                lock.release()
            return

    def publish(self, slot: Slot, trial: Trial) -> None:
        """Push what a trial made, then its ref: where the ref is, the model is too.

        Of two that finish the same trial, as after a line that was cut, the first one's stays.

        Raises:
            DvcException, GitError: a remote cannot be written.
        """
        slot.hand_over(trial)
        for pause in (*_PAUSES, None):  # a training is worth some patience
            try:
                with Repo(str(slot.folder)) as repo:
                    repo.push(targets=data_of_trials(repo, written=True))
                self._push(trial)
            except (GitError, DvcException):
                if pause is None:
                    raise
                time.sleep(pause)
            else:
                return

    def _push(self, trial: Trial) -> None:
        try:
            git(self.project, "push", "--quiet", self.job.url, f"{trial.rev}:{trial.ref}")
        except GitError:
            if not git(self.project, "ls-remote", self.job.url, trial.ref):
                raise


def data_of_trials(repo: Repo, *, written: bool = False) -> list[str]:
    """Paths of what TARGET reads, and if asked for writes, that DVC keeps."""
    stage = next(stage for stage in repo.index.stages if getattr(stage, "name", None) == TARGET)
    kept = {out.fs_path for out in repo.index.outs if out.use_cache}
    used = [*stage.deps, *(stage.outs if written else ())]
    return [one.fs_path for one in used if one.fs_path in kept]


def serve(job: Job, orders: queue.Queue[dict[str, Any] | None], events: TextIO) -> None:
    """Run the trials that are ordered, until there is None."""

    def tell(**event: Any) -> None:
        events.write(json.dumps(event) + "\n")
        events.flush()

    node = Node(job)
    with node.slot() as slot:
        while (order := orders.get()) is not None:
            if "overrides" not in order:
                continue  # an answer that came late
            try:
                node.set_up()
                for event in _run(node, slot, order, orders):
                    tell(name=order["name"], **event)
            except (FieldguideError, DvcException, OSError) as err:
                # Before the training, or after it: what this node lacks, another one may have.
                message = f"{type(err).__name__}: {err}"
                ended = {"event": "ended", "status": None, "of_place": True, "message": message}
                tell(name=order["name"], **ended)


def _run(
    node: Node, slot: Slot, order: dict[str, Any], orders: queue.Queue[dict[str, Any] | None]
) -> Iterator[dict[str, Any]]:
    """Run one trial and yield what happens; the last event says how it ended."""
    name = order["name"]
    channel = Channel(slot.folder.with_suffix(".channel"))
    shutil.rmtree(channel.folder, ignore_errors=True)  # of an earlier trial
    channel.open(order["rungs"])
    log = slot.folder.with_suffix(".log")
    log.unlink(missing_ok=True)
    env = {VARIABLE: str(channel.folder), "OMP_NUM_THREADS": str(node.job.threads)}
    process = slot.run(name, order["overrides"], log=log, env=env)
    seen: set[int] = set()
    running = True
    while running:
        time.sleep(_TICK)
        running = is_running(process)  # asked first: what it reported is then all
        for epoch, metrics in channel.reports().items():
            if epoch not in seen:
                seen.add(epoch)
                yield {"event": "epoch", "epoch": epoch, "metrics": metrics}
        with suppress(queue.Empty):
            while True:
                answer = orders.get_nowait()
                if answer is None:  # nobody waits for this trial any more
                    slot.kill()
                    orders.put(None)
                    return
                if answer["name"] == name:
                    channel.answer(answer["epoch"], go_on=answer["go_on"])
    slot.kill()
    if trial := slot.finished(name):
        node.publish(slot, trial)
        yield {"event": "ended", "status": 0, "message": ""}
        return
    ended = Ended(name, None, *how_it_failed(log))
    text = log.read_text(encoding="utf-8", errors="replace")[-_LOG_TAIL:]
    if not ended.is_its_own_fault:
        slot.discard()
    yield {"event": "ended", "status": ended.status, "message": ended.message, "log": text}


def _read(orders: queue.Queue[dict[str, Any] | None]) -> None:
    for line in sys.stdin:
        orders.put(json.loads(line))
    orders.put(None)


def main() -> None:
    """Serve orders of standard input until it ends."""
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    # Events alone go to standard output; what a library prints goes beside them.
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    job = Job(**json.loads(sys.stdin.readline()))
    orders: queue.Queue[dict[str, Any] | None] = queue.Queue()
    threading.Thread(target=_read, args=(orders,), daemon=True).start()
    serve(job, orders, events)


if __name__ == "__main__":
    main()
