"""Workers on this machine: one thread, one clone and a share of the cores and GPUs for each."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from fieldguide.core.errors import GitError
from fieldguide.core.params import Params
from fieldguide.results.dvc import cache_folder
from fieldguide.sweeps.space import Run, Values
from fieldguide.sweeps.worker import Clone, Outcome, StartingPoint, end_left_processes


class Pool(Protocol):
    """Workers, as the driver sees them: these here, or those of a Ray cluster (cluster.py)."""

    def room(self) -> int:
        """Return how many runs may go on at a time; 1 or more."""

    def start(self, run: Run, checkpoints: set[int]) -> Future[Outcome]:
        """Train a run; `checkpoints` are the configurations whose checkpoints are still needed."""

    def stop(self) -> None:
        """End all runs now; what they have not finished is lost."""

    def close(self) -> None:
        """Free what the pool holds, once the sweep has ended."""


def log_file(folder: Path, name: str) -> Path:
    """Return the file that has, or will have, the output of a run; `folder` is the sweep's."""
    return folder / "logs" / f"{name}.log"


class LocalPool:
    """`jobs` clones in a folder, which may be deleted between two runs of a sweep."""

    def __init__(
        self,
        root: Path,
        folder: Path,
        start: StartingPoint,
        *,
        jobs: int,
        base: Params,
        fixed: Values,
    ) -> None:
        """End what an earlier driver has left; nothing is started.

        Args:
            root: the project.
            folder: for clones, logs and checkpoints.
            start: what all runs start from.
            jobs: runs at a time.
            base: params.yaml's values.
            fixed: values that all runs of the sweep share.
        """
        end_left_processes(folder)
        cache = cache_folder(root)
        self._folder, self._gpus, self._jobs = folder, gpus_of(base, fixed), jobs
        self._clones = {k: Clone(root, folder / f"clone-{k}", start, cache) for k in range(jobs)}
        self._free = list(self._clones)
        self._threads = ThreadPoolExecutor(jobs)
        self._fetching = threading.Lock()  # Git does not wait for another fetch

    def room(self) -> int:  # noqa: D102 - Pool's, here and below
        return self._jobs

    def start(self, run: Run, checkpoints: set[int]) -> Future[Outcome]:  # noqa: D102
        drop_checkpoints(self._folder, checkpoints)
        return self._threads.submit(self._train, run, self._free.pop(0))

    def _train(self, run: Run, number: int) -> Outcome:
        env = threads(self._jobs)
        if self._gpus:
            env["CUDA_VISIBLE_DEVICES"] = self._gpus[number % len(self._gpus)]
        clone = self._clones[number]
        try:
            outcome = clone.run(
                run,
                log=log_file(self._folder, run.name),
                checkpoint=checkpoint_folder(self._folder, run),
                env=env,
            )
            if outcome.commit:
                with self._fetching:
                    clone.fetch(run)
        except (GitError, OSError) as err:  # such as a full disk
            return Outcome(message=f"{type(err).__name__}: {err}", node_failed=True)
        else:
            return outcome
        finally:
            self._free.append(number)

    def stop(self) -> None:  # noqa: D102
        self._threads.shutdown(wait=False, cancel_futures=True)
        for clone in self._clones.values():
            clone.stop()
        self._threads.shutdown()

    def close(self) -> None:  # noqa: D102
        self._threads.shutdown()
        for path in [*self._folder.glob("clone-*"), self._folder / "checkpoints"]:
            shutil.rmtree(path, ignore_errors=True)


def checkpoint_folder(folder: Path, run: Run) -> Path:
    """Return where a configuration's training goes on; `folder` is the sweep's."""
    return folder / "checkpoints" / f"{run.number}-{run.index}"


def drop_checkpoints(folder: Path, needed: Iterable[int]) -> None:
    """Delete checkpoints of configurations that are not needed; `folder` is the sweep's.

    Those that began after all needed ones stay: on a cluster, the run that brought the list may
    have waited for a node.
    """
    numbers = set(needed)
    for path in (folder / "checkpoints").glob("*-*"):
        number = int(path.name.split("-")[0])
        if number not in numbers and number < max(numbers, default=0):
            shutil.rmtree(path, ignore_errors=True)


def cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1  # macOS


def threads(jobs: int) -> dict[str, str]:
    """Give each run an equal share of the cores: two that use all of them slow each other.

    A run that is portable has `compute.threads` instead.
    """
    share = max(1, cores() // jobs)
    given = os.environ.get("OMP_NUM_THREADS", "")
    threads = min(share, int(given)) if given.isdigit() and int(given) else share
    return {"OMP_NUM_THREADS": str(threads)}


def portable_threads(base: Params, fixed: Values) -> int | None:
    """Return the threads that each run of a sweep has on any machine; None without portable."""
    portable = fixed.get("compute.portable", base.compute.portable)
    threads = fixed.get("compute.threads", base.compute.threads)
    return int(str(threads)) if portable else None


def gpus_wanted(base: Params, fixed: Values) -> int:
    """Return how many GPUs a run trains on where there are some; 0 if it trains on a CPU."""
    # Not checked as a whole: a fixed value may be allowed only with one that is searched.
    if portable_threads(base, fixed) is not None:
        return 0
    accelerator = fixed.get("train.accelerator", base.train.accelerator)
    devices = fixed.get("train.devices", base.train.devices)
    assert isinstance(devices, int)
    return devices if accelerator in ("auto", "gpu") else 0


def gpus_of(base: Params, fixed: Values) -> list[str]:
    """Return the GPUs that workers use in turn; none if one run uses several, or none at all."""
    if gpus_wanted(base, fixed) != 1:
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [gpu.strip() for gpu in visible.split(",") if gpu.strip()]
    import torch  # noqa: PLC0415 - takes seconds, and most sweeps do not need it

    return [str(k) for k in range(torch.cuda.device_count())]
