"""A real Git and DVC project whose stage `train` takes a fraction of a second."""

import copy
import io
import json
import os
import signal
import subprocess
import sys
import time
import zlib
from dataclasses import replace
from functools import partial
from pathlib import Path

import psutil
from ruamel.yaml import YAML

from fieldguide.core.params import load_params
from fieldguide.results.git import subfolder_of
from fieldguide.sweeps.driver import run_sweep
from fieldguide.sweeps.local import LocalPool
from fieldguide.sweeps.space import name_in_repository
from fieldguide.sweeps.sweep_file import load_sweep

ROOT = Path(__file__).resolve().parents[2]
# Writes what the real stage writes, and keeps a checkpoint as it does. The score depends on the
# params, is last_k / 1000 if that is above 2, and grows with the epochs. The notes `began` and
# `ended` get a line for each training: the name of the experiment, and the epoch after which it
# began, or ended.
TRAIN = """
import hashlib, json, os, re, shutil, sys, time
from pathlib import Path
text = Path("params.yaml").read_text()
name = os.environ["DVC_EXP_NAME"] if "DVC_EXP_NAME" in os.environ else "main"
root = Path(__file__).parent / "root"
note = lambda what, text: (Path(root.read_text()) / what).open("a").write(text + "\\n")
epochs = int(re.search("  epochs: ([0-9]+)", text)[1])
stop = int(re.search("  stop_after: ([0-9]+)", text)[1]) or epochs
key = hashlib.sha256(re.sub("stop_after: [0-9]+", "", text).encode()).hexdigest()
checkpoint = Path(os.environ.get("DVC_ROOT", ".")) / ".fieldguide/resume" / key
done = int(checkpoint.read_text()) if checkpoint.exists() else 0
done = 0 if done > stop else done
note("began", f"{name} {done}")
share = [os.environ.get(key, "") for key in ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")]
note("share", "/".join(share))
if "optimizer: sgd" in text:
    sys.exit("the settings are at fault")
for epoch in range(done + 1, stop + 1):
    time.sleep(float(os.environ.get("STUB_SECONDS", "0.1")) / epochs)
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    checkpoint.with_suffix(".new").write_text(str(epoch))
    checkpoint.with_suffix(".new").replace(checkpoint)
wanted = int(re.search("  last_k: ([0-9]+)", text)[1])
score = (wanted / 1000 if wanted > 2 else int(key[:4], 16) / 65536) * (1 - 0.5**stop)
metrics = {"best": {"val_acc": score, "val_loss": 1 - score, "epoch": 1}}
for folder in ("models/classifier", "metrics/train", "metrics/copies/train", "plots"):
    Path(folder).mkdir(parents=True, exist_ok=True)
Path("models/classifier/weights").write_text(f"{key} after {stop}")
Path("metrics/train/metrics.json").write_text(json.dumps(metrics))
rows = [f"{k},{1 - score},{score}\\n" for k in range(1, stop + 1)]
Path("plots/curves.csv").write_text("epoch,val_loss,val_acc\\n" + "".join(rows))
for file in ("metrics/train/metrics.json", "plots/curves.csv"):
    shutil.copy(file, "metrics/copies/train")
Path("metrics/timing.json").write_text(json.dumps({"train": {"seconds": 0.1}}))
if stop == epochs:
    checkpoint.unlink(missing_ok=True)
note("ended", f"{name} {stop}")
"""
DVC_YAML = """
stages:
  train:
    cmd: python stages/train.py
    params: [model, train]
    deps: [stages/train.py]
    outs: [models/classifier, metrics/copies/train]
    metrics:
      - metrics/train/metrics.json: {cache: false}
    plots:
      - plots/curves.csv: {cache: false}
  evaluate:
    cmd: python -c "open('metrics/test.json', 'w').write('{}')"
    deps: [models/classifier]
    metrics:
      - metrics/test.json: {cache: false}
"""


def wait_for(condition):
    end = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def processes_of(folder):
    """Return the processes in the clones of a project's workers: guards, DVC and its stages."""
    found = []
    for process in psutil.process_iter():
        try:
            if str(folder) in process.environ().get("FIELDGUIDE_CLONE", ""):
                found.append(process)
        except psutil.Error:
            continue
    return found


class Stub:
    """The project, in which commands run as a user would run them.

    Its folder may lie in a Git repository that exists already.
    """

    def __init__(self, folder):
        self.folder = folder
        self.notes = folder / ".fieldguide" / "notes"
        self.env = {
            **os.environ,
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "PYTHONPATH": str(ROOT / "src"),
            "GIT_CONFIG_GLOBAL": os.devnull,
            "DVC_NO_ANALYTICS": "1",
        }
        self.env.pop("DVC_ROOT", None)
        self.notes.mkdir(parents=True)
        params = YAML(typ="safe").load(ROOT / "params.yaml")  # without comments: read faster
        params["compute"]["threads"] = 1
        params["train"] |= {"epochs": 24, "learning_rate": 0.002}  # TRAIN above does not know auto
        compact = io.StringIO()
        plain = YAML(typ="safe")
        plain.default_flow_style = False
        plain.dump(params, compact)
        for name, text in {
            "params.yaml": compact.getvalue(),
            "dvc.yaml": DVC_YAML,
            "stages/train.py": TRAIN,
            "stages/root": str(self.notes),
            ".gitignore": ".fieldguide/\n*.study*\n",
            ".dvcignore": ".fieldguide\n",
            ".dvc/config": (ROOT / ".dvc/config").read_text(),
        }.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        inside = subprocess.run(["git", "rev-parse"], cwd=folder, capture_output=True, check=False)
        if inside.returncode != 0:
            self.make_repository(folder)
        self.dvc("repro", "--quiet")
        self.git("add", ".")
        self.git("commit", "--quiet", "--message", "start")

    @staticmethod
    def make_repository(folder):
        subprocess.run(["git", "init", "--quiet", folder], check=True)
        for key, value in (("email", "test@example.com"), ("name", "Test")):
            subprocess.run(["git", "config", f"user.{key}", value], cwd=folder, check=True)

    def at(self, folder):
        """The same project in another folder, such as a clone."""
        other = copy.copy(self)
        other.folder = folder
        return other

    def start(self, *command, **options):
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=options.get("env", self.env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # A shell makes its background processes ignore Ctrl-C, and children inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        )

    def run(self, *command, status=0):
        process = self.start(*command)
        output, _ = process.communicate(timeout=600)
        assert process.returncode == status, output
        return output

    def search(self, file, jobs=2, checkpoints=None):
        """Run a sweep in this process."""
        base = load_params(self.folder / "params.yaml")
        sweep = load_sweep(self.folder / file, base)
        sweep = replace(sweep, name=name_in_repository(sweep.name, subfolder_of(self.folder)))
        pool = partial(LocalPool, self.folder, jobs=jobs, base=base, fixed=sweep.fixed)
        return run_sweep(self.folder, sweep, base, pool, checkpoints)

    def git(self, *command):
        return self.run("git", *command)

    def dvc(self, *command):
        return self.run(sys.executable, "-m", "dvc", *command)

    def sweep(self, *arguments, status=0):
        return self.run(sys.executable, "-m", "fieldguide.cli", "sweep", *arguments, status=status)

    def write_sweep(self, name="search", **changes):
        space = {
            "method": "random",
            "metric": {"name": "val/acc", "goal": "maximize"},
            "run_cap": 4,
            # Each name has other proposals: DVC's run cache would answer the same ones.
            "seed": zlib.crc32(name.encode()),
            "parameters": {
                "learning_rate": {"distribution": "log_uniform_values", "min": 1e-4, "max": 1e-2},
                "activation": {"values": ["relu", "gelu"]},
            },
            **changes,
        }
        path = self.folder / "sweeps" / f"{name}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(space))
        return f"sweeps/{name}.yaml"

    def noted(self, what):
        path = self.notes / what
        return path.read_text().splitlines() if path.exists() else []

    def experiments(self):
        refs = self.git("for-each-ref", "--format=%(refname)", "refs/exps/").split()
        return [ref.split("/")[-1] for ref in refs if ref.count("/") == 4]
