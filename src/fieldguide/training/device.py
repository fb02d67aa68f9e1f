"""The device of a training, its number format, and PyTorch's settings for equal results."""

from __future__ import annotations

import os

import torch

from fieldguide.core.errors import TrainingError
from fieldguide.core.params import TrainParams

_ON_CPU = (
    "Trains on the CPU, for the same bytes on every machine; faster on this machine's GPU: "
    "-S compute.portable=false"
)
_ON_GPU = "Trains on the GPU; another kind of GPU, or a CPU, would give other bytes"


def choose_device(params: TrainParams, *, portable: bool) -> torch.device:
    """Return the device of this process; each process of a machine has a GPU of its own.

    Say what `auto` means for the bytes where there is a GPU.

    Raises:
        TrainingError: the machine has no such device, or not enough GPUs, or no GPU for 16-mixed.
    """
    # PyTorch has no DistributedDataParallel for mps.
    mps = torch.backends.mps.is_available() and not params.uses_ddp
    found = {"cuda": torch.cuda.device_count(), "mps": int(mps), "cpu": params.devices}
    kinds = {"auto": ["cuda", "mps", "cpu"], "gpu": ["cuda", "mps"]}
    wanted = kinds.get(params.accelerator, [params.accelerator])
    if params.accelerator == "auto" and (found["cuda"] or found["mps"]):
        if portable:
            wanted = ["cpu"]
        if os.environ.get("RANK", "0") == "0":
            print(_ON_CPU if portable else _ON_GPU)
    kind = next((kind for kind in wanted if found[kind] > 0), wanted[0])
    if found[kind] < params.devices:
        raise TrainingError(
            f"train.accelerator: {params.accelerator}, train.devices: {params.devices}: not "
            f"possible on this machine, where this training can use {found[kind]} such devices"
        )
    if params.precision == "16-mixed" and kind == "cpu":
        raise TrainingError(
            'train.precision: "16-mixed" needs a GPU, and this machine has none; allowed here: '
            '"32", "bf16-mixed"'
        )
    if kind != "cuda":
        return torch.device(kind)
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    torch.cuda.set_device(device)
    return device


def autocast(params: TrainParams, device: torch.device) -> torch.autocast:
    """Return the context in which `train.precision` computes a loss; it can be entered again."""
    dtype = torch.float16 if params.precision == "16-mixed" else torch.bfloat16
    return torch.autocast(device.type, dtype, enabled=params.precision != "32")


def make_deterministic(params: TrainParams) -> None:
    """Let the same training on the same machine give the same bytes.

    Every operation of the CNN is deterministic. PyTorch is not sure of some (the gradient of
    pooling on CUDA, whose windows never overlap here), hence a warning, not an error.
    """
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # as PyTorch asks for
    if params.compile:
        torch.use_deterministic_algorithms(True, warn_only=True)
    else:  # the same without the compiler, whose import takes as long as that of PyTorch
        torch.set_deterministic_debug_mode("warn")
    # In deterministic mode PyTorch also fills every new tensor with NaN, to show reads of memory
    # that nothing has written. That takes about a tenth of a step and changes no result.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
