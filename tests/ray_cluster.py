"""A real Ray cluster on loopback: a head and nodes, each with its own folder, behind a token."""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest
from servers import free_ports

TOKEN = "0123456789abcdef-of-tests"
# Ray puts the machine's outer address in place of 127.0.0.1, and then listens to everybody. The
# variable that stops it where there is one node forbids others, so those are started so.
NODE = """
import sys
from ray._private import services
services.resolve_ip_for_localhost = lambda host: host
from ray.scripts.scripts import main
main()
"""


class Cluster:
    """Starts and kills nodes; `env` is what a driver needs."""

    def __init__(self, folder, **env):
        self.folder = folder
        # Ray's sockets lie in it, and a socket's path has at most 107 characters.
        self.short = Path(tempfile.mkdtemp(prefix="fgray"))
        self.env = {
            **os.environ,
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": TOKEN,
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
            "DVC_NO_ANALYTICS": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
            **env,
        }
        self.env.pop("DVC_ROOT", None)
        self.env.pop("PYTHONPATH", None)
        (self.port,) = free_ports(1)
        self.address = f"127.0.0.1:{self.port}"
        self.nodes = []

    def start(self, name, cpus=1, gpus=0, **env):
        """Start a node, the first one as the head; GPUs are a number, as far as Ray knows."""
        (self.folder / name).mkdir(exist_ok=True)
        place = {
            "FIELDGUIDE_NODE_FOLDER": str(self.folder / name),
            "CLUSTER_NODE": self._mark(name),
        }
        env = {**self.env, **place, **env}
        options = [
            *("--node-ip-address=127.0.0.1", f"--num-cpus={cpus}", f"--num-gpus={gpus}"),
            *(f"--temp-dir={self.short / name}", "--object-store-memory=80000000"),
        ]
        if self.nodes:
            env["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "1"
            command = [sys.executable, "-c", NODE, "start", f"--address={self.address}"]
        else:
            command = [Path(sys.executable).with_name("ray"), "start", "--head"]
            command += [f"--port={self.port}", "--include-dashboard=false"]
            command += ["--min-worker-port=0", "--max-worker-port=0"]
        done = subprocess.run(
            [*command, *options],
            env=env,
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        self.nodes.append(name)

    def processes(self, name):
        """All processes of a node, trials included."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                # Read once: a process that renames itself overwrites its environment meanwhile.
                if process.environ().get("CLUSTER_NODE") == self._mark(name):
                    found.append(process)
        return found

    def _mark(self, name):
        return str(self.folder / name)

    def kill(self, name):
        """SIGKILL for a node and all that runs there, as by a power cut."""
        end = time.monotonic() + 120
        while processes := self.processes(name):
            assert time.monotonic() < end, processes
            for process in processes:
                with contextlib.suppress(psutil.Error):
                    process.kill()
            psutil.wait_procs(processes, timeout=2)

    def close(self):
        for name in reversed(self.nodes):
            self.kill(name)
        shutil.rmtree(self.short)


@pytest.fixture
def cluster(tmp_path):
    """Makes a cluster: cluster(**env); its nodes are killed when the test ends."""
    with contextlib.ExitStack() as stack:

        def make(**env):
            made = Cluster(tmp_path, **env)
            stack.callback(made.close)
            return made

        yield make
