"""The process that runs one trial on a node of a cluster.

`python -m fieldguide.sweeps.node` reads the trial to run, then the driver's answers at rungs, and
writes events: JSON, one object a line. When its standard input closes, nobody waits for the trial
any more, and it is ended. The clone of the project, DVC's cache and the slots stay in the node's
folder for later trials.
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
from pathlib import Path
from typing import Any

from filelock import FileLock

from fieldguide.core.errors import DvcError, FieldguideError, GitError
from fieldguide.core.files import first_free_folder
from fieldguide.results.dvc import cached_dependencies, dvc
from fieldguide.results.git import git
from fieldguide.sweeps.experiments import Trial
from fieldguide.sweeps.slot import CACHE, TARGET, Slot, StartingPoint
from fieldguide.sweeps.worker import FOLDER

_TICK = 0.1  # seconds between looks at the trial
_PAUSES = (1.0, 5.0, 15.0)  # seconds between tries to publish an experiment
_LOG_TAIL = 20_000  # characters of a failed trial's log that are sent
Event = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """What all trials of a sweep share; sent as JSON."""

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
        """Take the first free slot."""
        start = StartingPoint(self.job.baseline, self.job.baseline, self.job.subfolder)
        with first_free_folder(self.folder / "slots") as folder:
            yield Slot(self.project, folder, start)

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


def _run(
    node: Node, slot: Slot, order: dict[str, Any], answers: queue.Queue[dict[str, Any] | None]
) -> Iterator[Event]:
    """Run the trial and yield its events; the last one says how it ended."""
    slot.kill()  # what a killed process left running
    env = {"OMP_NUM_THREADS": str(node.job.threads)}
    slot.run(order["name"], order["overrides"], order["rungs"], env=env)
    running = True
    while running:
        with suppress(queue.Empty):
            answer = answers.get(timeout=_TICK)
            if answer is None:  # nobody waits for this trial any more
                slot.kill()
                return
            slot.answer(**answer)
        # Checked before the reports are read, so that the last ones are read too.
        running = slot.is_running
        for report in slot.new_epochs():
            yield {"event": "epoch", "epoch": report.epoch, "metrics": report.metrics}
    ended = slot.end()
    log = slot.log.read_text(encoding="utf-8", errors="replace")[-_LOG_TAIL:]
    slot.log.unlink()
    if ended.trial:
        node.publish(slot, ended.trial)
        yield {"event": "ended", "status": 0, "message": ""}
    else:
        yield {"event": "ended", "status": ended.status, "message": ended.message, "log": log}


def _read(answers: queue.Queue[dict[str, Any] | None]) -> None:
    for line in sys.stdin:
        answers.put(json.loads(line))
    answers.put(None)


def main() -> None:
    """Run the trial that the first line of standard input describes."""
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    # Only events go to standard output; what a library prints goes to standard error.
    output = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    order = json.loads(sys.stdin.readline())
    answers: queue.Queue[dict[str, Any] | None] = queue.Queue()
    threading.Thread(target=_read, args=(answers,), daemon=True).start()
    node = Node(Job(**order["job"]))
    try:
        node.set_up()
        with node.slot() as slot:
            for event in _run(node, slot, order, answers):
                print(json.dumps(event), file=output, flush=True)
    except (FieldguideError, OSError) as err:
        # Before or after the training: what this node lacks, another one may have.
        message = f"{type(err).__name__}: {err}"
        event = {"event": "ended", "status": None, "message": message, "node_failed": True}
        print(json.dumps(event), file=output, flush=True)


if __name__ == "__main__":
    main()
