"""A small real Git and DVC project with a tiny classifier, and results written by hand."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from bundles import bundle_of

from fieldguide.network.bundle import save_bundle

BIN = Path(sys.executable).parent
SRC = Path(__file__).resolve().parents[2] / "src"
CLASSES = ["ant", "bee", "crab"]
# Ten test photos a class: true, predicted, photos.
PAIRS = [
    *[("ant", "ant", 9), ("ant", "bee", 1)],
    *[("bee", "ant", 3), ("bee", "bee", 6), ("bee", "crab", 1)],
    ("crab", "crab", 10),
]
RESULTS = {
    "metrics/prepare.json": {
        "photos": {"train": 30, "val": 6, "test": 30},
        "left_out": {"unreadable": 2, "too_small": 0, "duplicate": 1},
        "classes": {name: {"train": 10, "val": 2, "test": 10} for name in CLASSES},
    },
    "metrics/train/metrics.json": {
        "train": {"loss": 0.1, "acc": 0.9},
        "best": {"val_acc": 0.875, "val_loss": 0.5, "epoch": 3},
        "parameters": {"trained": 1234, "all": 1234},
    },
    "metrics/environment.json": {
        "python": "3.11.7",
        "system": "Linux x86_64",
        "device": "cpu",
        "cuda": None,
        "libraries": {"torch": "2.15.0"},
    },
    "metrics/test.json": {
        "test": {
            "photos": 30,
            "acc": 0.833333,
            "acc_low": 0.664,
            "acc_high": 0.927,
            "macro_f1": 0.827,
            "top3_acc": 1.0,
            "ece": 0.05,
        }
    },
    "metrics/per_class.json": {
        "ant": {"precision": 0.75, "recall": 0.9, "photos": 10},
        "bee": {"precision": 0.857143, "recall": 0.6, "photos": 10},
        "crab": {"precision": 0.909091, "recall": 1.0, "photos": 10},
    },
}
PARAMS = {
    "data": {"archive": "data/photos.zip", "image_size": 16, "resize": "crop"},
    "model": {"name": "cnn", "weights": "none"},
    "train": {"epochs": 3, "use_augmentation": True},
    "evaluate": {"calibration_bins": 15},
}


def in_git(*paths):
    return [{path: {"cache": False}} for path in paths]


# What the real one writes; nothing here runs them.
STAGES = {
    "prepare": {"cmd": "false", "deps": ["data/photos.zip"], "params": ["data"],
                "metrics": in_git("metrics/prepare.json")},
    "train": {"cmd": "false", "deps": ["metrics/prepare.json"], "params": ["model", "train"],
              "outs": ["models/classifier", *in_git("metrics/environment.json")],
              "metrics": in_git("metrics/train/metrics.json")},
    "evaluate": {"cmd": "false", "deps": ["models/classifier"], "params": ["evaluate"],
                 "outs": in_git("metrics/per_class.json", "plots/confusion.csv"),
                 "metrics": in_git("metrics/test.json")},
    "visualize": {"cmd": "false", "deps": ["models/classifier"], "outs": ["plots/figures"]},
}  # fmt: skip
ARTIFACTS = {"classifier": {"path": "models/classifier", "type": "model", "desc": "A tiny one"}}


class Project:
    """A project's folder, with commands run in it as a user would."""

    def __init__(self, folder):
        self.folder = folder
        self.env = {
            **os.environ,
            "PATH": os.pathsep.join([str(BIN), os.environ["PATH"]]),
            "PYTHONPATH": str(SRC),
            "GIT_CONFIG_GLOBAL": os.devnull,
            "DVC_NO_ANALYTICS": "1",
        }

    def run(self, *command, status=0):
        done = subprocess.run(
            command, cwd=self.folder, env=self.env, capture_output=True, text=True, check=False
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout

    def git(self, *command):
        return self.run("git", *command).strip()

    def dvc(self, *command):
        return self.run("dvc", *command)

    def write(self, name, content):
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)  # it may be a link into DVC's cache
        file.write_text(content if isinstance(content, str) else json.dumps(content))

    def commit(self, message="change"):
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", message)

    def train(self, val_acc):
        """Another classifier, as if `dvc repro` had made it."""
        shutil.rmtree(self.folder / "models/classifier", ignore_errors=True)
        bundle = bundle_of(CLASSES)
        changed = type(bundle)(**(vars(bundle) | {"val_acc": val_acc}))
        save_bundle(changed, self.folder / "models/classifier")
        self.dvc("commit", "--quiet", "--force")

    def identity(self):
        self.git("config", "user.name", "A")
        self.git("config", "user.email", "a@example.org")


def write_results(project):
    for name, content in RESULTS.items():
        project.write(name, content)
    lines = [f"{true},{guess}\n" * photos for true, guess, photos in PAIRS]
    project.write("plots/confusion.csv", "actual,predicted\n" + "".join(lines))
