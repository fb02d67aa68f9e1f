"""Runs trainings in processes that are forked from one with all slow imports done."""

import ctypes
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LIMIT = 120  # seconds, after which a process counts as hanging
# Arguments: store, folder of the outputs, params as JSON. A training over several processes starts
# it again for each of them.
SCRIPT = """
import json, sys
from pathlib import Path
from fieldguide.core.store import Store
from fieldguide.core.params import Params
from fieldguide.training.loop import train
from fieldguide.training.outputs import Outputs
from fieldguide.core.launch import start_processes

store, out = Store(Path(sys.argv[1])), Path(sys.argv[2])
params = Params.model_validate(json.loads(sys.argv[3]))
names = "classifier", "metrics", "curves.csv", "model_summary.txt", "environment.json"
outputs = Outputs(*(out / name for name in names))
start_processes(params.train)
train(params.train, params.model, store=store, outputs=outputs)
"""


def files_in(folder):
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


# A server that has imported the slow modules and forks processes.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["fieldguide.training.loop"])


def fork(function, *arguments):
    """Start a process that calls a function; it must be importable from a module."""
    process = FORKS.Process(target=function, args=arguments)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("DVC_ROOT", raising=False)
        patch.setenv(
            "PYTHONPATH", str(ROOT / "src")
        )  # the server starts with it, and all processes inherit it
        process.start()
    return process


def run_script(arguments, cwd, printed, network, env):
    """Run a script in this process, as `python script` does, with its output in a file."""
    os.setsid()
    os.chdir(cwd)
    os.environ |= env
    if network is not None:  # a namespace made by `ip netns`
        with Path("/run/netns", network).open() as file:
            if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), 0) != 0:
                raise OSError(ctypes.get_errno(), f"setns {network}")
    printed = os.open(printed, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(printed, stream.fileno())
    sys.argv = list(arguments)
    runpy.run_path(sys.argv[0], run_name="__main__")


class Started:
    """A script in a forked process, with the methods of `subprocess.Popen` that tests need."""

    def __init__(self, *arguments, cwd, printed=None, network=None, **env):
        self.printed = Path(printed or Path(cwd) / "printed.txt")
        self.process = fork(run_script, arguments, str(cwd), str(self.printed), network, env)
        self.pid = self.process.pid

    def poll(self):
        return self.process.exitcode

    def communicate(self, timeout=None):
        self.process.join(timeout)
        if self.process.is_alive():
            raise subprocess.TimeoutExpired("script", timeout)
        return self.printed.read_text(encoding="utf-8"), None

    @property
    def returncode(self):
        return self.process.exitcode


def end(process):
    """Wait for a process and return (status, output); kill it if it hangs."""
    try:
        output, _ = process.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        pytest.fail(f"still running after {LIMIT} s:\n{output}")
    return process.returncode, output


def wait_for_epoch(process, curves, epoch):
    """Wait until curves.csv has the line of an epoch."""
    last = time.monotonic() + LIMIT
    while not (curves.is_file() and len(curves.read_text(encoding="utf-8").splitlines()) > epoch):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < last, "curves.csv did not get the epoch"
        time.sleep(0.002)


def signal_at_epoch(process, sent, curves, epoch):
    """Send a signal to a process and its children as soon as curves.csv has an epoch."""
    wait_for_epoch(process, curves, epoch)
    os.killpg(process.pid, sent)
