"""A CPU computes the same bytes whatever its instructions, its cores and the environment say."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fieldguide.core import compute
from fieldguide.core.params import ComputeParams

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow
PROBE = """
{before}
import json, sys
from pathlib import Path
from fieldguide.core.compute import set_up
from fieldguide.core.params import ComputeParams, load_params
params = load_params(Path({params!r}))
model = params.model.model_copy(update={model})
portable = set_up(ComputeParams(portable={portable}, threads={threads}), model)
import os, threading, numpy, torch
from numpy._core._multiarray_umath import __cpu_features__ as features
found = []
thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
thread.start(); thread.join()
print(json.dumps([portable, torch.backends.cpu.get_cpu_capability(), torch.get_num_threads(),
                  found[0], os.environ.get("ONEDNN_MAX_CPU_ISA"), features["X86_V4"]]))
"""


def set_up(*, portable=True, threads=3, model=None, affinity=None, before="", **env):
    """Return what holds in a new process: portable, instructions, threads, ..."""
    text = PROBE.format(
        params=str(ROOT / "params.yaml"),
        portable=portable,
        threads=threads,
        model=model or {},
        before=before,
    )
    kept = {name: value for name, value in os.environ.items() if "NUM_THREADS" not in name}
    done = subprocess.run(
        [sys.executable, "-c", text],
        env={**kept, "PYTHONPATH": str(ROOT / "src"), **env},
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: os.sched_setaffinity(0, affinity) if affinity else None,
    )
    return json.loads(done.stdout)


def test_threads_and_instructions_hold_whatever_the_environment_says():
    core = {next(iter(os.sched_getaffinity(0)))}
    outer = {"OMP_NUM_THREADS": "1", "OMP_THREAD_LIMIT": "1", "ATEN_CPU_CAPABILITY": "default"}
    outer |= {"OMP_MAX_ACTIVE_LEVELS": "0", "NPY_ENABLE_CPU_FEATURES": "X86_V4"}
    for found in (set_up(), set_up(affinity=core, **outer)):
        assert found == [True, "AVX2", 3, 3, "AVX2", False]


def test_only_small_kernels_of_the_cnn_are_computed_by_avx2():
    assert set_up(model={"kernel_size": [3, 1, 3, 3, 3]})[4] == "AVX2"
    assert set_up(model={"kernel_size": [3, 1, 5, 3, 3]})[4] == "AVX"
    assert set_up(model={"name": "resnet50"})[4] == "AVX"


def test_without_portable_nothing_is_limited():
    portable, _, threads, _, instructions, _ = set_up(portable=False, OMP_NUM_THREADS="1")
    assert (portable, threads, instructions) == (False, 1, None)


def test_a_process_that_has_imported_pytorch_starts_again():
    assert set_up(before="import torch") == [True, "AVX2", 3, 3, "AVX2", False]


def test_a_processor_without_avx2_is_told_that_its_results_are_its_own(monkeypatch, capsys):
    """Under Linux the processor's features are read from /proc/cpuinfo."""
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: "flags : fpu sse2 avx")
    assert not compute.set_up(ComputeParams(portable=True, threads=1))
    assert "results are its own: the same in each run here" in capsys.readouterr().out
