"""Several processes, on one machine or more, that train together and end together.

torchrun, or its Python interface, starts the processes of a machine and ends the others if one
fails. DistributedDataParallel averages their gradients.
"""

from __future__ import annotations

import ctypes
import logging
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn

from fieldguide.core.errors import FieldguideError, TrainingError
from fieldguide.core.params import TrainParams
from fieldguide.training.device import choose_device

T = TypeVar("T")

AGAIN = "run it again: it goes on after the last finished epoch"
_START = timedelta(minutes=30)  # machines may start, download or compute features at other times
_STEP = timedelta(minutes=1)  # longest silence of a process within an epoch
_REPEAT = 3.0  # seconds before a process says what the first of its machine may have said
_PDEATHSIG = 1  # of linux/prctl.h
# Gloo raises plain RuntimeErrors.
_LOST = re.compile(r"gloo|NCCL|Connection (closed|reset) by peer|Broken pipe")


@dataclass(frozen=True)
class Processes:
    """The processes that train together; by default only this one."""

    device: torch.device  # of this process
    rank: int = 0
    count: int = 1
    group: Any = None  # of PyTorch; None without DDP

    @property
    def is_first(self) -> bool:
        """True for the process that prints and writes."""
        return self.rank == 0

    def synchronize_batch_norm(self, net: nn.Module) -> None:
        """On GPUs, let each batch norm inside a network see the photos of all processes."""
        if self.group is not None and self.device.type == "cuda":
            # Unlike PyTorch's own function it keeps the activations inside batch norms of timm.
            from timm.layers import convert_sync_batchnorm  # noqa: PLC0415 - slow to import

            convert_sync_batchnorm(net)

    def parallel(self, net: nn.Module) -> nn.Module:
        """Return a module that computes as `net` and averages gradients over the processes.

        It expects a gradient of every parameter that needs one now: make another if this changes.
        """
        if self.group is None:
            return net
        gpu = [self.device] if self.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(net, device_ids=gpu, process_group=self.group)

    def sum(self, values: Tensor) -> Tensor:
        """Add up the values of all processes, in place."""
        if self.group is not None:
            distributed.all_reduce(values, group=self.group)
        return values

    def share_buffers(self, net: nn.Module) -> None:
        """Give all processes the buffers of the first, such as statistics of batch norm."""
        if self.group is not None:
            for buffer in net.buffers():
                distributed.broadcast(buffer, 0, group=self.group)

    def broadcast(self, value: T) -> T:
        """Return what the first process passes, in all processes.

        Wait for it for as long as machines may take to start.
        """
        values = [value]
        if self.group is not None:
            distributed.broadcast_object_list(values)
        return values[0]

    def compare(self, facts: dict[str, object]) -> None:
        """Compare what must be equal in all processes, by the name that a user knows.

        Raises:
            TrainingError: something differs.
        """
        every: list[dict[str, object]] = [facts] * self.count
        if self.group is not None:
            distributed.all_gather_object(every, facts)
        for rank, theirs in enumerate(every):
            differ = [name for name in every[0] if theirs.get(name) != every[0][name]]
            if differ:
                raise TrainingError(
                    f"process {rank} has another {' and '.join(differ)} than process 0; every "
                    "machine needs the same commit, the same installed versions, and after that "
                    "`dvc pull data/prepared`"
                )


def start_processes(params: TrainParams) -> None:
    """Start the processes of this machine, wait for them and exit with the status of the first.

    Each runs the command of this process. Return at once if there is only one process without
    DDP, or if torchrun has started this one.

    Raises:
        TrainingError: torchrun has started another number of processes, or variables for several
            machines are missing or wrong.
        SystemExit: the processes have ended.
    """
    if distributed.is_torchelastic_launched():
        launched = os.environ.get("WORLD_SIZE")
        if launched != str(params.processes):
            raise TrainingError(
                f"WORLD_SIZE: found {launched}; allowed: {params.processes}, which is "
                f"train.devices: {params.devices} × train.num_nodes: {params.num_nodes}"
            )
        return
    if not params.uses_ddp:
        return
    from torch.distributed.elastic.multiprocessing import SignalException  # noqa: PLC0415 - slow
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError  # noqa: PLC0415
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch  # noqa: PLC0415

    logging.disable(logging.ERROR)  # torchrun's own reports; the processes print theirs
    threads = max(1, torch.get_num_threads() // params.devices)
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))  # they share the cores
    config = LaunchConfig(
        min_nodes=params.num_nodes,
        max_nodes=params.num_nodes,
        nproc_per_node=params.devices,
        run_id="fieldguide",
        max_restarts=0,
        **_meeting_point(params),
    )
    command = [str(Path(sys.argv[0]).resolve()), *sys.argv[1:]]
    try:
        elastic_launch(config, sys.executable)(*command)
    except SignalException as err:
        sys.exit(128 + err.sigval)
    except ChildFailedError as err:
        rank, failure = err.get_first_failure()
        if failure.exitcode > 0:  # it has said why
            sys.exit(failure.exitcode)
        name = signal.Signals(-failure.exitcode).name
        raise TrainingError(f"process {rank} was ended by {name}; {AGAIN}") from err
    sys.exit(0)


def _meeting_point(params: TrainParams) -> dict[str, Any]:
    """Return where the processes find each other: a free port, or the address of a machine."""
    if params.num_nodes == 1:
        local = "localhost"
        return {"rdzv_backend": "c10d", "rdzv_endpoint": f"{local}:0", "local_addr": local}
    node = os.environ.get("NODE_RANK", "none")
    address = {"MASTER_ADDR", "MASTER_PORT"} <= set(os.environ)
    if not address or node not in map(str, range(params.num_nodes)):
        raise TrainingError(
            f"train.num_nodes: {params.num_nodes} needs MASTER_ADDR, MASTER_PORT and NODE_RANK "
            f"(found {node}; allowed: 0 to {params.num_nodes - 1}); docs/distributed.md shows how "
            "to start several machines"
        )
    return {
        "rdzv_backend": "static",
        "rdzv_endpoint": "{MASTER_ADDR}:{MASTER_PORT}".format(**os.environ),
        "rdzv_configs": {"rank": int(node), "timeout": _START.total_seconds()},
    }


@contextmanager
def joined(params: TrainParams) -> Iterator[Processes]:
    """Run the block together with all other processes that `start_processes` or torchrun started.

    Raises:
        TrainingError: another process has ended, or the machine lacks the device of `params`.
    """
    if not params.uses_ddp:
        yield Processes(choose_device(params))
        return
    rank = int(os.environ["RANK"])
    if sys.platform == "linux":  # end with the process that started this one, even if it is killed
        ctypes.CDLL(None).prctl(_PDEATHSIG, signal.SIGKILL)
    try:
        device = choose_device(params)
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_START)
        yield Processes(device, rank, params.processes, distributed.new_group(timeout=_STEP))
    except FieldguideError as err:
        if os.environ.get("LOCAL_RANK", "0") != "0":
            # Most mistakes are those of all processes: after the message of the first one the
            # launcher ends this one, so that it does not repeat the message.
            time.sleep(_REPEAT)
        if rank == 0 or str(err).startswith("process "):
            raise
        raise type(err)(f"process {rank}: {err}") from err
    except RuntimeError as err:
        if not (isinstance(err, distributed.DistError) or _LOST.search(str(err))):
            raise
        # Gloo's message without the line of its source and the advice.
        why = re.sub(r"^\[\S*\] ", "", str(err).strip().splitlines()[0]).split(". ")[0]
        raise TrainingError(
            f"process {rank} of {params.processes} has lost another process, whose own message "
            f"says why ({why}); {AGAIN}"
        ) from err
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()
