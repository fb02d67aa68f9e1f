"""Speed-up of a sweep on two nodes of a Ray cluster over one node: the same 16 trials.

Every node is a real Ray node bound to one core, with its own clone and cache. Git and DVC remotes
are folders. The driver and the head, which runs no trial, may use every core: with one node they
have the other core to themselves. Prints seconds and their ratio as JSON.

Run it in a clone whose results are up to date (`make repro`), on a machine with two free cores:

    python benchmarks/cluster_speedup.py --rounds 1
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from ray_cluster import Cluster  # type: ignore[import-not-found]

ROOT = Path(__file__).resolve().parents[1]
TRIALS = 16
SWEEP = f"""
method: random
metric: {{name: val/acc, goal: maximize}}
run_cap: {TRIALS}
parameters:
  learning_rate: {{distribution: log_uniform_values, min: 1.0e-4, max: 1.0e-2}}
  epochs: {{value: EPOCHS}}
"""


def run(*command: str, cwd: Path, env: dict[str, str] | None = None) -> None:
    """Run a command that must succeed."""
    subprocess.run(command, cwd=cwd, env=env, check=True, stdout=subprocess.DEVNULL)


def make_project(folder: Path, epochs: int) -> Path:
    """Clone this project with its cache, and give it two remotes and a sweep."""
    project = folder / "project"
    run("git", "clone", "--quiet", str(ROOT), str(project), cwd=folder)
    run("git", "init", "--bare", "--quiet", str(folder / "remote.git"), cwd=folder)
    run("git", "remote", "set-url", "origin", str(folder / "remote.git"), cwd=project)
    for name, value in (("user.name", "bench"), ("user.email", "bench@localhost")):
        run("git", "config", name, value, cwd=project)
    (project / "sweeps/speedup.yaml").write_text(
        SWEEP.replace("EPOCHS", str(epochs)), encoding="utf-8"
    )
    dvc = (sys.executable, "-m", "dvc")
    run(*dvc, "cache", "dir", "--local", str(ROOT / ".dvc/cache"), cwd=project)
    run(*dvc, "remote", "add", "--default", "storage", str(folder / "storage"), cwd=project)
    run("git", "commit", "--quiet", "--all", "--message", "remote", cwd=project)
    return project


def measure(nodes: int, epochs: int) -> float:
    """Return the seconds of `fieldguide sweep run` on this number of nodes."""
    with tempfile.TemporaryDirectory() as temporary, contextlib.ExitStack() as stack:
        folder = Path(temporary)
        project = make_project(folder, epochs)
        (folder / "nodes").mkdir()
        cluster = Cluster(folder / "nodes", OMP_NUM_THREADS="1")
        stack.callback(cluster.close)
        cores = sorted(os.sched_getaffinity(0))
        cluster.start("head", cpus=0)
        for node, core in zip(range(nodes), cores, strict=False):
            os.sched_setaffinity(0, {core})  # the node that starts now inherits it
            cluster.start(f"node-{node}")
            os.sched_setaffinity(0, cores)
        command = (sys.executable, "-m", "fieldguide.cli", "sweep", "run", "sweeps/speedup.yaml")
        env = {**cluster.env, "PYTHONPATH": "src"}
        start = time.perf_counter()
        run(*command, "--engine", "ray", "--address", cluster.address, cwd=project, env=env)
        return time.perf_counter() - start


def main() -> None:
    """Measure one and two nodes in turn and print the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=4)
    options = parser.parse_args()
    seconds: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(options.rounds):
        for nodes, times in seconds.items():
            times.append(round(measure(nodes, options.epochs), 1))
            print(f"{nodes} nodes: {times[-1]} s", file=sys.stderr, flush=True)
    ratios = [one / two for one, two in zip(seconds[1], seconds[2], strict=True)]
    print(
        json.dumps(
            {
                "trials": TRIALS,
                "epochs": options.epochs,
                "seconds": seconds,
                "speedup": round(statistics.median(ratios), 3),
            }
        )
    )


if __name__ == "__main__":
    main()
