"""Let a CPU compute the same bytes as every other processor.

PyTorch, oneDNN, MKL, OpenBLAS and NumPy choose code by the processor, and each choice rounds
differently. These settings limit them to what all x86 processors with AVX2 have in common. The
libraries read them when they are loaded, so this module imports PyTorch only after setting them.
docs/reproducibility.md says what they cost and on which processors they were tested.
"""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

from fieldguide.core.errors import TrainingError
from fieldguide.core.params import ComputeParams, ModelParams

_SETTINGS = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "MKL_CBWR": "COMPATIBLE",  # the only branch of MKL that is the same on Intel and AMD
    "MKL_DYNAMIC": "FALSE",  # else MKL takes fewer threads on fewer cores
    "OMP_DYNAMIC": "FALSE",
    "OMP_WAIT_POLICY": "PASSIVE",  # a thread that waits leaves its core to other processes
    "ONEDNN_DEFAULT_FPMATH_MODE": "STRICT",
    "OPENBLAS_CORETYPE": "Haswell",
    "OPENBLAS_NUM_THREADS": "1",  # it never has more threads than cores
    "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",
}
# Variables that would change the number of threads, or contradict the settings.
_REMOVED = (
    *("OMP_THREAD_LIMIT", "OMP_MAX_ACTIVE_LEVELS", "MKL_DOMAIN_NUM_THREADS"),
    "NPY_ENABLE_CPU_FEATURES",
)


def set_up(params: ComputeParams, model: ModelParams | None = None) -> bool:
    """Set the number of threads and the instructions of this process; then import PyTorch.

    If PyTorch is there already, as after a look at timm's list of networks, the process starts
    again with the settings.

    Args:
        params: section `compute`.
        model: the network, if it is trained; None if it only predicts.

    Returns:
        Whether the results of the CPU are the same bytes on every processor: False without
        `compute.portable`, and on processors without AVX2, where a message says so.

    Raises:
        TrainingError: PyTorch does not keep to the settings.
    """
    if not params.portable:
        return False
    if not _has_avx2():
        print(
            f"compute.portable: this processor ({platform.machine()}, {platform.system()}) is not "
            "one of x86 with AVX2 under Linux, so that its results are its own: the same in each "
            "run here, other bytes elsewhere",
            flush=True,
        )
        return False
    counts = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(params.threads))
    wanted = {**_SETTINGS, **counts, "ONEDNN_MAX_CPU_ISA": _instructions(model)}
    is_set = wanted.items() <= os.environ.items() and not set(_REMOVED) & set(os.environ)
    os.environ.update(wanted)
    for name in _REMOVED:
        os.environ.pop(name, None)
    if "torch" in sys.modules and not is_set:
        sys.stdout.flush()
        os.execv(sys.executable, sys.orig_argv)  # noqa: S606 - no shell
    import torch  # noqa: PLC0415 - reads the settings

    torch.set_num_threads(params.threads)
    found = (torch.backends.cpu.get_cpu_capability(), torch.get_num_threads())
    if found != ("AVX2", params.threads):
        raise TrainingError(
            f"compute.portable: PyTorch computes with {found[0]} and {found[1]} threads; allowed: "
            f"AVX2 and {params.threads}; set compute.portable: false"
        )
    return True


def _has_avx2() -> bool:
    try:
        return "avx2" in Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    except OSError:  # not Linux
        return False


def _instructions(model: ModelParams | None) -> str:
    """Return the instructions that oneDNN may use for a network's convolutions.

    Its code for AVX2 adds up in an order that depends on the processor's cache, except for kernels
    of one or three pixels of this project's own network, as far as benchmarks/portable.py has
    found.
    """
    safe = model is not None and model.name == "cnn" and max(model.kernels) <= 3  # noqa: PLR2004
    return "AVX2" if safe else "AVX"
