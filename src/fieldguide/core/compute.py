"""Let a CPU compute the same bytes as every other processor.

PyTorch, oneDNN, MKL, OpenBLAS and NumPy choose code by the processor, and each choice rounds
differently. These settings limit them to what all x86 processors with AVX2 have in common. The
libraries read them when they are loaded, so this module imports none of them before.
docs/reproducibility.md says what they cost and on which processors they were tested.
"""

from __future__ import annotations

import os
import platform
import sys

from fieldguide.core.params import ComputeParams, ModelParams

_SETTINGS = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "MKL_CBWR": "COMPATIBLE",  # the only branch of MKL that is the same on Intel and AMD
    "MKL_DYNAMIC": "FALSE",  # else MKL takes fewer threads on fewer cores
    "OMP_DYNAMIC": "FALSE",
    "OMP_WAIT_POLICY": "PASSIVE",  # a thread that waits leaves its core to other processes
    "ONEDNN_DEFAULT_FPMATH_MODE": "STRICT",
    "OPENBLAS_CORETYPE": "Haswell",
    "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",
}
_LIMITS = ("OMP_THREAD_LIMIT", "MKL_DOMAIN_NUM_THREADS")  # would change the number of threads


def set_up(params: ComputeParams, model: ModelParams | None = None) -> bool:
    """Set number of threads and instructions for this process, before PyTorch is imported.

    Args:
        params: of the process.
        model: the network, if it is trained; None if it only predicts.

    Returns:
        Whether the results of the CPU are the same bytes on every processor: False without
        `compute.portable`, and on processors without AVX2, where a message says so.
    """
    if not params.portable:
        return False
    if "torch" in sys.modules:
        raise RuntimeError("PyTorch was imported before its settings")
    threads = str(params.threads)
    counts = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), threads)
    os.environ.update({**_SETTINGS, **counts, "ONEDNN_MAX_CPU_ISA": _instructions(model)})
    for name in _LIMITS:
        os.environ.pop(name, None)
    import torch  # noqa: PLC0415 - reads the settings

    torch.set_num_threads(params.threads)
    found = torch.backends.cpu.get_cpu_capability()
    if found == "AVX2" and torch.get_num_threads() == params.threads:
        return True
    print(
        f"compute.portable: this processor ({platform.machine()}, {found}) has no AVX2, so that "
        "its results are its own: the same in each run here, other bytes elsewhere",
        flush=True,
    )
    return False


def _instructions(model: ModelParams | None) -> str:
    """Return the instructions that oneDNN may use for a network's convolutions.

    Its code for AVX2 adds up in an order that depends on the processor's cache, except for kernels
    of one or three pixels of this project's own network, as far as benchmarks/portable.py has
    found.
    """
    safe = model is not None and model.name == "cnn" and max(model.kernels) <= 3  # noqa: PLR2004
    return "AVX2" if safe else "AVX"
