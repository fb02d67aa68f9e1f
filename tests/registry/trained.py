"""A small project whose stages have run, with results that can be checked by hand."""

import csv
import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import yaml
from bundles import bundle_of
from project import ROOT, Project

from fieldguide.network.bundle import save_bundle

CLASSES = ["ant", "bee", "crab"]
# Ten test photos of each class.
PAIRS = (
    [("ant", "ant")] * 9
    + [("ant", "bee")]
    + [("bee", "bee")] * 6
    + [("bee", "ant")] * 3
    + [("bee", "crab")]
    + [("crab", "crab")] * 10
)
PARAMS = {
    "data": {"archive": "data/photos.zip", "image_size": 16, "resize": "crop"},
    "model": {"name": "cnn", "weights": "none"},
    "train": {"epochs": 3, "monitor": "val/acc", "use_augmentation": True},
    "evaluate": {"calibration_bins": 15},
}
SCORES = {"acc": 0.833333, "bal_acc": 0.833333, "macro_f1": 0.827, "top3_acc": 1.0, "ece": 0.05}
SCORES["coverage"] = 2 / 3
# Of 20 of the 30 test photos 19 are right.
TRUST = {
    "photos": 30,
    "temperature": 1.5,
    "nll": 0.7,
    "nll_before": 0.9,
    "ece": 0.05,
    "ece_before": 0.125,
    "target_precision": 0.95,
    "min_confidence": 0.834,
    "accepted": 20,
    "right": 19,
    "aurc": 0.0312,
}
PREPARE = ("plots/classes.csv", "plots/left_out.csv")
EVALUATE = ("plots/confusion.csv", "plots/per_class.csv")


def in_git(*paths):
    return [{path: {"cache": False}} for path in paths]


# The layout of the real pipeline; nothing runs these commands.
STAGES = {
    "prepare": {
        "cmd": "false",
        "params": ["data"],
        "deps": ["data/photos.zip"],
        "plots": in_git(*PREPARE),
    },
    "train": {
        "cmd": "false",
        "params": ["model", "train"],
        "deps": ["plots/classes.csv", "models/weights/none"],
        "outs": ["models/classifier", "metrics/environment.json"],
        "metrics": in_git("metrics/train/metrics.json"),
    },
    "evaluate": {
        "cmd": "false",
        "params": ["evaluate"],
        "deps": ["models/classifier"],
        "outs": ["metrics/trust.json"],
        "metrics": in_git("metrics/test.json"),
        "plots": in_git(*EVALUATE),
    },
    "visualize": {"cmd": "false", "deps": ["models/classifier"], "plots": ["plots/figures"]},
}
ARTIFACTS = {
    "classifier": {
        "path": "models/classifier",
        "type": "model",
        "desc": "A tiny one",
        "labels": ["insects"],
    }
}


def write_inputs(folder, *, params=PARAMS, artifacts=ARTIFACTS):
    """What a person writes."""
    _write(folder, "dvc.yaml", yaml.safe_dump({"stages": STAGES, "artifacts": artifacts}))
    _write(folder, "params.yaml", yaml.safe_dump(params))
    _write(folder, "models/weights/none", "none")
    for path in _archives(params):
        _write(folder, path, "photos")


def write_results(
    folder, *, classes=CLASSES, libraries=(("torch", "2.15.0"),), trust=TRUST, **scores
):
    """What the stages write besides models/classifier; `classes` are other names for these three.

    Args:
        folder: the project's.
        classes: names of ant, bee and crab.
        libraries: names and versions.
        trust: what metrics/trust.json holds.
        scores: other scores on the test set.
    """
    name = dict(zip(CLASSES, classes, strict=True))
    splits = [[name[c], split, n, n, 0] for c in CLASSES for split, n in SPLITS.items()]
    header = ["class", "split", "photos", "groups", "near_copies"]
    _table(folder, "plots/classes.csv", header, splits)
    reasons = [["unreadable", 2], ["too_small", 0], ["duplicate", 1]]
    _table(folder, "plots/left_out.csv", ["reason", "files"], reasons)
    metrics = {"best": {"val_acc": 0.875}, "parameters": {"trained": 1234, "all": 1234}}
    _write(folder, "metrics/train/metrics.json", json.dumps(metrics))
    machine = {"portable": False, "system": "Linux x86_64", "device": "cpu", "cuda": None}
    machine["libraries"] = dict(libraries)
    _write(folder, "metrics/environment.json", json.dumps(machine))
    _write(folder, "metrics/test.json", json.dumps({"test": SCORES | scores}))
    _write(folder, "metrics/trust.json", json.dumps(trust))
    pairs = [[name[actual], name[predicted]] for actual, predicted in PAIRS]
    _table(folder, "plots/confusion.csv", ["actual", "predicted"], pairs)
    _table(folder, "plots/per_class.csv", ["class"], [[one] for one in classes])


SPLITS = {"train": 10, "val": 2, "test": 10}


def write_lock(folder, params=PARAMS):
    """dvc.lock as DVC would write it, for a card that is written without Git and DVC."""
    lock = {}
    for stage, has in STAGES.items():
        outs = [*has.get("metrics", ()), *has.get("plots", ()), *has.get("outs", ())]
        paths = [out if isinstance(out, str) else next(iter(out)) for out in outs]
        deps = _archives(params) if stage == "prepare" else has["deps"]
        sections = {section: params[section] for section in has.get("params", ())}
        lock[stage] = {
            "deps": [_entry(folder, path) for path in deps],
            "params": {"params.yaml": sections},
            "outs": [_entry(folder, path) for path in paths if path != "plots/figures"],
        }
    lock["train"]["deps"].append(_entry(folder, f"models/weights/{params['model']['weights']}"))
    _write(folder, "dvc.lock", yaml.safe_dump({"stages": lock}))


def _archives(params):
    found = params["data"]["archive"]
    return [found] if isinstance(found, str) else found


def _entry(folder, path):
    if path == "models/classifier":
        return {"path": path, "md5": f"{'cd' * 16}.dir", "size": 7_360_000}
    data = (folder / path).read_bytes()
    return {"path": path, "md5": hashlib.md5(data).hexdigest(), "size": len(data)}


def _write(folder, path, text):
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).unlink(missing_ok=True)  # it may be a link into DVC's cache
    (folder / path).write_text(text, encoding="utf-8")


def _table(folder, path, header, rows):
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    with (folder / path).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])


class Trained(Project):
    """The project in a real Git and DVC repository, or in a folder of one."""

    def __init__(self, folder):
        super().__init__(Path(folder))
        self.env["PYTHONPATH"] = str(ROOT / "src")

    def git(self, *command):
        return super().git(*command).strip()

    def write(self, path, text):
        _write(self.folder, path, text)

    def commit(self, message="change"):
        self.git("add", "--all", ".")
        self.git("commit", "--quiet", "--message", message)

    def train(self, val_acc):
        """Save another classifier, as if `dvc repro` had made it."""
        shutil.rmtree(self.folder / "models/classifier", ignore_errors=True)
        changed = replace(bundle_of(CLASSES), val_acc=val_acc)
        save_bundle(changed, self.folder / "models/classifier")
        self.dvc("commit", "--quiet", "--force")

    def md5(self, path):
        return hashlib.md5(self.read(path)).hexdigest()

    def head(self):
        return self.git("rev-parse", "HEAD")
