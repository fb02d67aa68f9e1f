"""Several processes, on one machine or more, that train together and end together.

`core/launch.py` or torchrun starts them. DistributedDataParallel averages their gradients.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn

from fieldguide.core.errors import FieldguideError, TrainingError
from fieldguide.core.launch import AGAIN, START
from fieldguide.core.params import TrainParams
from fieldguide.training.device import choose_device

T = TypeVar("T")

_STEP = timedelta(minutes=1)  # longest silence of a process within an epoch
_REPEAT = 10.0  # seconds before a process says what the first of its machine may have said
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
        """Return what the first process passes; wait as long as machines may take to start."""
        values = [value]
        if self.group is not None:
            distributed.broadcast_object_list(values)
        return values[0]

    def gather(self, value: T) -> list[T]:
        """Return what each process passes, in the order of their ranks."""
        every = [value] * self.count
        if self.group is not None:
            distributed.all_gather_object(every, value)
        return every

    def compare(self, facts: dict[str, object]) -> None:
        """Compare what must be equal in all processes, by the name that a user knows.

        Raises:
            TrainingError: something differs.
        """
        every = self.gather(facts)
        for rank, theirs in enumerate(every):
            differ = [name for name in every[0] if theirs.get(name) != every[0][name]]
            if differ:
                raise TrainingError(
                    f"process {rank} has another {' and '.join(differ)} than process 0; every "
                    "machine needs the same commit, the same installed versions, and after that "
                    "`dvc pull data/prepared`"
                )


@contextmanager
def joined(params: TrainParams, *, portable: bool) -> Iterator[Processes]:
    """Run the block together with all other processes that `start_processes` or torchrun started.

    Raises:
        TrainingError: another process has ended, or the machine lacks the device of `params`.
    """
    if not params.uses_ddp:
        yield Processes(choose_device(params, portable=portable))
        return
    rank = int(os.environ["RANK"])
    if sys.platform == "linux":  # end with the process that started this one, even if it is killed
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # 1: PR_SET_PDEATHSIG
    try:
        device = choose_device(params, portable=portable)
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=START)
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
