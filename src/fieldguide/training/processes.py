"""Several processes, on one machine or more, that train together or end together.

Lightning's DDP averages gradients. What is here: starting the others, agreeing on what is trained,
and noticing that one is gone, also where a backend would wait for ever.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from time import monotonic

import lightning as L
import torch
from lightning.fabric.plugins import ClusterEnvironment
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, distributed
from torch.distributed.distributed_c10d import Store, _get_default_store

import fieldguide
from fieldguide.core.errors import FieldguideError, TrainingError
from fieldguide.core.params import TrainParams

AGAIN = "run it again: it goes on after the last finished epoch"
_PARENT = "FIELDGUIDE_PARENT"  # process id, for the processes that are started here
BEAT = 2.0  # seconds between signs of life
SILENCE = 20.0  # seconds without one, after which a process counts as dead
GRACE = 3.0  # seconds for the main thread to notice by itself, and to clean up
_FAREWELL = 10.0  # seconds for started processes to end by themselves
_DONE = "done"
# Gloo raises plain RuntimeErrors.
_LOST = re.compile(r"gloo|NCCL|Connection (closed|reset) by peer|Broken pipe")


def check_launcher(params: TrainParams) -> None:
    """Compare what params ask for with what torchrun, Slurm or a person started.

    Where several processes share this machine and nobody has done it, its threads are shared out.

    Raises:
        TrainingError: the numbers differ, or a machine is not told which of several it is.
    """
    if params.devices > 1 and "OMP_NUM_THREADS" not in os.environ:
        threads = max(1, torch.get_num_threads() // params.devices)
        torch.set_num_threads(threads)
        os.environ["OMP_NUM_THREADS"] = str(threads)  # for those that are started here
    asked = f"train.devices: {params.devices} × train.num_nodes: {params.num_nodes}"
    for launcher, variable, number in (
        ("torchrun", "WORLD_SIZE", params.processes),
        ("torchrun", "LOCAL_WORLD_SIZE", params.devices),
        ("Slurm", "SLURM_NTASKS", params.processes),
    ):
        if launcher == "torchrun" and not distributed.is_torchelastic_launched():
            continue
        if launcher == "Slurm" and params.processes == 1:  # as of a job that runs one training
            continue
        started = os.environ.get(variable)
        if started is not None and started != str(number):
            where = " on each machine" if variable == "LOCAL_WORLD_SIZE" else ""
            raise TrainingError(
                f"{asked}: {launcher} started {started} processes{where} ({variable}); "
                f"allowed: {number}"
            )
    if params.num_nodes == 1 or distributed.is_torchelastic_launched():
        return
    if "SLURM_NTASKS" in os.environ:
        return
    missing = {"MASTER_ADDR", "MASTER_PORT", "NODE_RANK"} - set(os.environ)
    if missing:
        raise TrainingError(
            f"train.num_nodes: {params.num_nodes}, and {', '.join(sorted(missing))} not set; "
            "docs/distributed.md shows how several machines are started"
        )
    node = os.environ["NODE_RANK"]
    if node not in map(str, range(params.num_nodes)):
        raise TrainingError(
            f"NODE_RANK: found {node!r}; allowed with train.num_nodes: {params.num_nodes}: 0 to "
            f"{params.num_nodes - 1}"
        )


@contextmanager
def joined(trainer: L.Trainer, facts: dict[str, str]) -> Iterator[None]:
    """Train together in this block; a single process without DDP just runs it.

    The processes are started first, unless torchrun, Slurm or a person has.

    Args:
        trainer: of this process.
        facts: what must be the same in all processes, by the name that a person knows it by.

    Raises:
        TrainingError: facts differ, or another process has ended.
    """
    strategy = trainer.strategy
    if not isinstance(strategy, DDPStrategy):
        yield
        return
    if trainer.world_size > 1:
        os.environ["RANK"] = str(trainer.global_rank)  # one reports (`fieldguide.core.stage`)
    environment = strategy.cluster_environment
    assert environment is not None
    started = []
    if not environment.creates_processes_externally:
        started = _start_others(environment, strategy.num_processes, trainer.world_size)
    watch = _Watch(trainer.global_rank, trainer.world_size, started)
    try:
        watch.start()
        strategy.setup_environment()
        watch.listen()
        _agree(facts, strategy.root_device)
        yield
    except FieldguideError as err:
        if trainer.is_global_zero or str(err).startswith("process "):
            raise
        raise type(err)(f"process {trainer.global_rank}: {err}") from err
    except RuntimeError as err:
        if not (isinstance(err, distributed.DistError) or _LOST.search(str(err))):
            raise
        # Of Gloo's message, neither the line of its source before nor the advice behind.
        why = re.sub(r"^\[\S*\] ", "", str(err).strip().splitlines()[0]).split(". ")[0]
        raise TrainingError(
            f"process {trainer.global_rank} of {trainer.world_size} has lost another one, whose "
            f"own message says why ({why}); {AGAIN}"
        ) from err
    finally:
        watch.stop()
        if distributed.is_initialized():
            distributed.destroy_process_group()
        end_all(started, patience=_FAREWELL)


def from_first(data: bytes | None, device: torch.device) -> bytes | None:
    """Return what the first process passes to all; no pickle, as `broadcast_object_list` has."""
    if not distributed.is_initialized():
        return data
    size = torch.tensor(-1 if data is None else len(data), device=device)
    distributed.broadcast(size, 0)
    if size < 0:
        return None
    content = torch.empty(int(size), dtype=torch.uint8, device=device)
    if distributed.get_rank() == 0:
        content.copy_(torch.frombuffer(bytearray(data or b""), dtype=torch.uint8))
    distributed.broadcast(content, 0)
    return content.cpu().numpy().tobytes()


def _start_others(
    environment: ClusterEnvironment, devices: int, world_size: int
) -> list[subprocess.Popen[bytes]]:
    """Start this machine's other processes with the command that started this one.

    Not by Lightning, which kills this process, too, when one of them has ended, before it can say
    what happened and clean up.
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
    """Wait some seconds for processes to end, then kill them."""
    last = monotonic() + patience
    for process in processes:
        try:
            process.wait(max(0.0, last - monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _agree(facts: dict[str, str], device: torch.device) -> None:
    """Compare facts, and the code, of all processes by their hashes."""
    code = Path(fieldguide.__file__).parent
    files = sorted(code.rglob("*.py"))
    facts = {**facts, "src/fieldguide": "".join(file.read_text("utf-8") for file in files)}
    digests = [list(hashlib.sha256(text.encode()).digest()) for text in facts.values()]
    own = torch.tensor(digests, dtype=torch.uint8, device=device)  # (facts, 32)
    every = [torch.empty_like(own) for _ in range(distributed.get_world_size())]
    distributed.all_gather(every, own)
    for rank, theirs in enumerate(every):
        differ = [
            name
            for name, same in zip(facts, _equal_rows(theirs, every[0]), strict=True)
            if not same
        ]
        if differ:
            raise TrainingError(
                f"process {rank} has another {' and '.join(differ)} than process 0; every machine "
                "needs the same commit, the same installed versions, and after that "
                "`dvc pull data/prepared`"
            )


def _equal_rows(left: Tensor, right: Tensor) -> list[bool]:
    equal: list[bool] = (left == right).all(dim=1).tolist()
    return equal


class _Watch(threading.Thread):
    """Ends this process, with a message, when another one is gone and the main thread hangs.

    Gloo notices a closed connection at once. It does not notice a machine without power or network,
    nor a process that is stopped, and NCCL may not notice anything; both then wait for half an
    hour. So every process gives signs of life in the store by which the group was made: the first
    watches all, the others watch the first. They go on while a process computes for long.
    """

    def __init__(self, rank: int, world_size: int, others: list[subprocess.Popen[bytes]]) -> None:
        super().__init__(daemon=True, name="watch")
        self._rank, self._others = rank, others
        self._watched = [0] if rank else list(range(1, world_size))
        self._parent = os.environ.get(_PARENT)
        self._finished = threading.Event()
        # Apart, because a store whose machine is gone may never return.
        self._talker: threading.Thread | None = None
        self._heard: dict[int, tuple[str, float]] = {}  # last sign of life, and when
        self._cut: str | None = None  # why there is no store any more

    def listen(self) -> None:
        """Begin to give and expect signs of life; every process calls it."""
        store = _get_default_store().clone()  # the group's own is for the main thread
        store.set(self._key(self._rank), "joined")
        distributed.barrier()
        self._heard = {rank: ("", monotonic()) for rank in self._watched}
        self._talker = threading.Thread(target=self._talk, args=[store], daemon=True)
        self._talker.start()

    def stop(self) -> None:
        """Leave without alarm."""
        self._finished.set()
        if self._talker is not None:
            self._talker.join(GRACE)

    def run(self) -> None:
        """Look every two seconds."""
        while not self._finished.wait(BEAT):
            gone = self._gone()
            if gone is not None and not self._finished.wait(GRACE):
                print(f"train: {gone}; {AGAIN}", file=sys.stderr, flush=True)
                end_all(self._others, patience=0)
                os._exit(1)

    def _gone(self) -> str | None:
        """Say which process is, if one is."""
        if self._parent is not None and str(os.getppid()) != self._parent:
            return f"process {self._rank}: the one that started it has ended"
        for process in self._others:
            if process.poll():
                return f"a process that process {self._rank} started ended ({process.returncode})"
        if self._cut is not None:
            return f"process {self._rank} cannot reach process 0 ({self._cut})"
        for rank, (beat, since) in self._heard.items():
            silence = monotonic() - since
            if beat != _DONE and silence > SILENCE:
                return f"process {rank} has given no sign of life for {silence:.0f} s"
        return None

    def _talk(self, store: Store) -> None:
        """Give signs of life and note those of others, until the end."""
        keys = [self._key(rank) for rank in self._watched]
        try:
            for number in count():
                store.set(self._key(self._rank), str(number))
                for rank, found in zip(self._watched, store.multi_get(keys), strict=True):
                    beat = found.decode()
                    if beat != self._heard[rank][0]:
                        self._heard[rank] = (beat, monotonic())
                if self._finished.wait(BEAT):
                    store.set(self._key(self._rank), _DONE)
                    return
        except RuntimeError as err:
            self._cut = str(err).splitlines()[0]

    @staticmethod
    def _key(rank: int) -> str:
        return f"fieldguide/{rank}"
