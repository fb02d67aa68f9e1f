"""The GPU's benchmark, with tiny sizes on a CPU."""

import subprocess
import sys

import gpu
import pytest
from contender import ROOT


@pytest.mark.soak
def test_every_work_runs_on_a_cpu_with_tiny_sizes():
    files = [gpu.PAGE, gpu.ROWS]
    before = [file.read_bytes() if file.exists() else None for file in files]
    command = [sys.executable, str(ROOT / "benchmarks/gpu.py"), "--tiny"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line for line in done.stdout.splitlines() if not line.startswith(" ")]
    assert len(rows) == len(gpu.works(gpu.Options(tiny=True, imagenette=None))) == 7
    assert "Warning" not in done.stderr
    assert [file.read_bytes() if file.exists() else None for file in files] == before


def test_work_for_which_no_time_is_left_is_named(capsys):
    with pytest.raises(SystemExit, match="batches 32: no time left"):
        gpu.measure(gpu.Options(tiny=True, imagenette=None), seconds=0.0)
    assert capsys.readouterr().out == ""
