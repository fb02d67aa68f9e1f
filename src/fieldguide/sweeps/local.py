"""Trials on this machine: a few workspaces, each with its share of the cores and its GPU."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from fieldguide.core.params import Params
from fieldguide.sweeps.pool import Ended, Reported
from fieldguide.sweeps.record import Run
from fieldguide.sweeps.slot import Slot, Start, how_it_failed, is_running, remove_aside
from fieldguide.sweeps.space import Values
from fieldguide.training.trial import VARIABLE, Channel

_TICK = 0.1  # seconds between looks at the trials


@dataclass
class _Worker:
    name: str
    slot: Slot
    process: psutil.Process | None
    channel: Channel
    seen: set[int] = field(default_factory=set)  # epochs


class LocalPool:
    """`jobs` workspaces below `folder`, which may be deleted between two runs of a sweep."""

    options = ""

    def __init__(
        self, root: Path, folder: Path, start: Start, *, jobs: int, base: Params, fixed: Values
    ) -> None:
        """Prepare to run trials.

        Args:
            root: top folder of the project.
            folder: for workspaces, logs and channels.
            start: what all trials begin with.
            jobs: trials at a time.
            base: params.yaml's values.
            fixed: those of the sweep that all trials share.
        """
        self._root, self._folder, self._start, self._jobs = root, folder, start, jobs
        self._workers: list[_Worker] = []
        self._gpus = gpus_of(base, fixed)

    def recover(self, wanted: Collection[str]) -> set[str]:  # noqa: D102 - Pool's, here and below
        for note in sorted(self._folder.glob("slot-*.json")):
            slot = self._slot(note.stem)
            name, process = slot.running() or ("", None)
            if name in wanted and name not in (worker.name for worker in self._workers):
                self._workers.append(_Worker(name, slot, process, self._channel(name)))
            else:
                slot.kill()
        return {worker.name for worker in self._workers}

    def expect(self, most: int) -> None:  # noqa: D102
        del most  # workspaces are made when they are needed

    def room(self) -> int:  # noqa: D102
        return max(0, self._jobs - len(self._workers))

    def start(self, run: Run, rungs: list[int]) -> None:  # noqa: D102
        busy = {worker.slot.folder.name for worker in self._workers}
        place = next(k for k in range(self._jobs) if f"slot-{k}" not in busy)
        slot = self._slot(f"slot-{place}")
        channel = self._channel(run.name)
        shutil.rmtree(channel.folder, ignore_errors=True)  # of an earlier start
        channel.open(rungs)
        env = {VARIABLE: str(channel.folder.resolve()), **threads(self._jobs)}
        if self._gpus:
            env["CUDA_VISIBLE_DEVICES"] = self._gpus[place % len(self._gpus)]
        log = self.log(run.name)
        log.parent.mkdir(parents=True, exist_ok=True)
        process = slot.run(run.name, run.overrides, log=log, env=env)
        self._workers.append(_Worker(run.name, slot, process, channel))

    def wait(self) -> Iterator[Reported | Ended]:  # noqa: D102
        time.sleep(_TICK)
        for worker in list(self._workers):
            running = is_running(worker.process)  # asked first: what it reported is then all
            for epoch, metrics in worker.channel.reports().items():
                if epoch not in worker.seen:
                    worker.seen.add(epoch)
                    yield Reported(worker.name, epoch, metrics)
            if not running:
                self._workers.remove(worker)
                yield self._end(worker)

    def _end(self, worker: _Worker) -> Ended:
        slot = worker.slot
        slot.kill()  # a killed DVC leaves its stage running
        if trial := slot.finished(worker.name):
            slot.hand_over(trial)
            return Ended(worker.name, trial)
        ended = Ended(worker.name, None, *how_it_failed(self.log(worker.name)))
        if not ended.is_its_own_fault:
            slot.discard()
        return ended

    def answer(self, name: str, epoch: int, *, go_on: bool) -> None:  # noqa: D102
        self._channel(name).answer(epoch, go_on=go_on)

    def log(self, name: str) -> Path:  # noqa: D102
        return self._folder / "logs" / f"{name}.log"

    def stop(self) -> None:  # noqa: D102
        for worker in self._workers:
            worker.slot.discard()

    def close(self) -> None:  # noqa: D102
        for path in sorted(self._folder.glob("slot-*")):  # the next start makes new ones
            remove_aside(path)

    def _slot(self, name: str) -> Slot:
        return Slot(self._root, self._folder / name, self._start)

    def _channel(self, name: str) -> Channel:
        return Channel(self._folder / "trials" / name)


def threads(jobs: int) -> dict[str, str]:
    """An equal share of the cores for each trial, as two that use all of them slow each other."""
    share = max(1, len(os.sched_getaffinity(0)) // jobs)
    given = os.environ.get("OMP_NUM_THREADS", "")
    threads = min(share, int(given)) if given.isdigit() and int(given) else share
    return {"OMP_NUM_THREADS": str(threads)}


def gpus_of(base: Params, fixed: Values) -> list[str]:
    """The GPUs that trials take in turn; none where there is one at most, or they want several."""
    # Not checked as a whole: what is fixed may be allowed only with a value that is searched.
    accelerator = fixed.get("train.accelerator", base.train.accelerator)
    if accelerator not in ("auto", "gpu") or fixed.get("train.devices", base.train.devices) != 1:
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [gpu.strip() for gpu in visible.split(",") if gpu.strip()]
    import torch  # noqa: PLC0415 - takes seconds, and most have no need

    return [str(k) for k in range(torch.cuda.device_count())]
