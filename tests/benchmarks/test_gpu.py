"""The GPU's benchmark, with tiny sizes on a CPU."""

import subprocess
import sys
import tempfile

import gpu
import psutil
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
    assert not done.stderr
    assert [file.read_bytes() if file.exists() else None for file in files] == before


def test_work_for_which_no_time_is_left_is_named(capsys):
    with pytest.raises(SystemExit, match="batches 32: no time left"):
        gpu.measure(gpu.Options(tiny=True, imagenette=None), seconds=0.0)
    assert capsys.readouterr().out == ""


def test_work_that_takes_too_long_is_stopped_with_its_processes(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)  # read TMPDIR again
    sleep = [sys.executable, "-c", f"import time; time.sleep(60)  # {tmp_path}"]
    sleeping = f"import subprocess; subprocess.run({sleep})"
    with pytest.raises(subprocess.TimeoutExpired):
        gpu._in_its_own_process([sys.executable, "-c", sleeping], seconds=1)
    inside = [p for p in psutil.process_iter(["cmdline"]) if str(tmp_path) in str(p.info)]
    assert not inside
    assert not list(tmp_path.iterdir())
