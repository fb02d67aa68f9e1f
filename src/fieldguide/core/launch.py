"""Start a stage once for each device of a machine.

torchrun's Python interface does it, and ends the other processes if one fails.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from fieldguide.core.errors import TrainingError
from fieldguide.core.params import TrainParams

AGAIN = "run it again: it goes on after the last finished epoch"
START = timedelta(minutes=30)  # machines may start, download or compute features at other times


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
        # The status of a signal: a sweep starts such a run again.
        print(f"train: process {rank} was ended by {name}; {AGAIN}", file=sys.stderr)
        sys.exit(128 - failure.exitcode)
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
        "rdzv_configs": {"rank": int(node), "timeout": START.total_seconds()},
    }
