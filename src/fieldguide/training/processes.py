"""Several processes, on one machine or more, that train together and end together.

Lightning's DDP averages the gradients. This module starts the other processes, compares what each
is going to train, and ends all processes if one is gone.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

import lightning as L
import torch
from lightning.fabric.plugins import ClusterEnvironment
from lightning.pytorch.strategies import DDPStrategy
from torch import distributed

from fieldguide.core.errors import FieldguideError, TrainingError
from fieldguide.core.params import TrainParams

AGAIN = "run it again: it goes on after the last finished epoch"
_PARENT = "FIELDGUIDE_PARENT"  # process id, set for the processes that are started here
_LOOK_EVERY = 2.0  # seconds between two looks at the other processes
_GRACE = 3.0  # seconds in which the main thread may notice by itself that a process is gone
_FAREWELL = 10.0  # seconds for the started processes to end by themselves
# Gloo raises plain RuntimeErrors.
_LOST = re.compile(r"gloo|NCCL|Connection (closed|reset) by peer|Broken pipe")


def check_launcher(params: TrainParams) -> None:
    """Compare params with what torchrun, Slurm or a person has started.

    If several processes share this machine and OMP_NUM_THREADS is not set, divide its threads.

    Raises:
        TrainingError: the number of processes differs, or variables for several machines are
            missing or wrong.
    """
    if params.devices > 1 and "OMP_NUM_THREADS" not in os.environ:
        threads = max(1, torch.get_num_threads() // params.devices)
        torch.set_num_threads(threads)
        os.environ["OMP_NUM_THREADS"] = str(threads)  # for the processes that are started here
    torchrun = distributed.is_torchelastic_launched()
    variable = "WORLD_SIZE" if torchrun else "SLURM_NTASKS"
    launched = os.environ.get(variable)
    # A single training may run in a Slurm job of several tasks.
    if launched is not None and (torchrun or params.processes > 1):
        if launched != str(params.processes):
            raise TrainingError(
                f"{variable}: found {launched}; allowed: {params.processes}, which is "
                f"train.devices: {params.devices} × train.num_nodes: {params.num_nodes}"
            )
        return
    if params.num_nodes == 1:
        return
    node = os.environ.get("NODE_RANK", "none")
    address = {"MASTER_ADDR", "MASTER_PORT"} <= set(os.environ)
    if not address or node not in map(str, range(params.num_nodes)):
        raise TrainingError(
            f"train.num_nodes: {params.num_nodes} needs MASTER_ADDR, MASTER_PORT and NODE_RANK "
            f"(found {node}; allowed: 0 to {params.num_nodes - 1}); docs/distributed.md shows how "
            "to start several machines"
        )


@contextmanager
def joined(trainer: L.Trainer, facts: dict[str, object]) -> Iterator[None]:
    """Run the block together with all other processes; start them unless a launcher has.

    Without DDP there is only this process.

    Args:
        trainer: of this process.
        facts: what must be equal in all processes, by the name that a user knows.

    Raises:
        TrainingError: facts differ, or another process has ended.
    """
    strategy = trainer.strategy
    if not isinstance(strategy, DDPStrategy):
        yield
        return
    if trainer.world_size > 1:
        os.environ["RANK"] = str(trainer.global_rank)  # only one reports (`fieldguide.core.stage`)
    environment = strategy.cluster_environment
    assert environment is not None
    started = []
    if not environment.creates_processes_externally:
        started = _start_others(environment, strategy.num_processes, trainer.world_size)
    finished = threading.Event()
    threading.Thread(target=_watch, args=[started, finished], daemon=True).start()
    try:
        strategy.setup_environment()
        _compare(facts)
        yield
    except FieldguideError as err:
        if trainer.is_global_zero or str(err).startswith("process "):
            raise
        raise type(err)(f"process {trainer.global_rank}: {err}") from err
    except RuntimeError as err:
        if not (isinstance(err, distributed.DistError) or _LOST.search(str(err))):
            raise
        # Gloo's message without the line of its source and the advice.
        why = re.sub(r"^\[\S*\] ", "", str(err).strip().splitlines()[0]).split(". ")[0]
        raise TrainingError(
            f"process {trainer.global_rank} of {trainer.world_size} has lost another process, "
            f"whose own message says why ({why}); {AGAIN}"
        ) from err
    finally:
        finished.set()
        if distributed.is_initialized():
            distributed.destroy_process_group()
        end_all(started, patience=_FAREWELL)


def _start_others(
    environment: ClusterEnvironment, devices: int, world_size: int
) -> list[subprocess.Popen[bytes]]:
    """Start the other processes of this machine, by the command that started this one.

    Lightning's own launcher is not used: when one process ends, it kills the first one before that
    can print a message and clean up.
    """
    os.environ |= {
        "MASTER_ADDR": environment.main_address,
        "MASTER_PORT": str(environment.main_port),
        "NODE_RANK": str(environment.node_rank()),
        "LOCAL_RANK": "0",
        "WORLD_SIZE": str(world_size),
    }
    command = [sys.executable, str(Path(sys.argv[0]).resolve()), *sys.argv[1:]]
    own = {_PARENT: str(os.getpid())}
    return [
        subprocess.Popen(command, env={**os.environ, **own, "LOCAL_RANK": str(rank)})  # noqa: S603
        for rank in range(1, devices)
    ]


def end_all(processes: list[subprocess.Popen[bytes]], *, patience: float) -> None:
    """Wait `patience` seconds for processes to end, then kill them."""
    last = monotonic() + patience
    for process in processes:
        try:
            process.wait(max(0.0, last - monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _watch(started: list[subprocess.Popen[bytes]], finished: threading.Event) -> None:
    """End this process if one that it started, or the one that started it, is gone.

    Only needed if the main thread does not notice, for example because it waits for a process that
    ended before it had joined.
    """
    parent = os.environ.get(_PARENT)
    while not finished.wait(_LOOK_EVERY):
        failed = any(process.poll() for process in started)
        orphaned = parent is not None and str(os.getppid()) != parent
        if (failed or orphaned) and not finished.wait(_GRACE):
            gone = (
                "a process that this one started" if failed else "the process that started this one"
            )
            print(f"train: {gone} has ended; {AGAIN}", file=sys.stderr, flush=True)
            end_all(started, patience=0)
            os._exit(1)


def _compare(facts: dict[str, object]) -> None:
    """Compare the facts of all processes."""
    every: list[dict[str, object]] = [{} for _ in range(distributed.get_world_size())]
    distributed.all_gather_object(every, facts)
    for rank, theirs in enumerate(every):
        differ = [name for name in every[0] if theirs.get(name) != every[0][name]]
        if differ:
            raise TrainingError(
                f"process {rank} has another {' and '.join(differ)} than process 0; every machine "
                "needs the same commit, the same installed versions, and after that "
                "`dvc pull data/prepared`"
            )
