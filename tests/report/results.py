"""Files of a run with numbers that can be checked by hand."""

import csv
import hashlib
import json

import yaml
from PIL import Image

# A stranger's class: markup of HTML, Markdown and Plotly, a mention, and a bar that ends a cell.
BEE = "<script>document.title='x'</script><b>bee</b> @all | `x`"
CLASSES = ["ant", BEE, "crab"]
# 14 of 20 are right.
PAIRS = (
    [("ant", "ant")] * 6
    + [("ant", BEE)] * 2
    + [(BEE, BEE)] * 4
    + [(BEE, "ant")] * 3
    + [(BEE, "crab")]
    + [("crab", "crab")] * 4
)
PARAMS = {
    "data": {"archive": "photos.zip", "image_size": 32, "seed": 0},
    "model": {"name": "cnn"},
    "train": {"epochs": 3, "use_augmentation": True, "learning_rate": 0.002},
}
# 6 of the 9 photos with a confidence of 90 % are right.
TRUST = {
    "photos": 20,
    "temperature": 1.5,
    "nll": 0.7,
    "nll_before": 0.9,
    "ece": 0.1,
    "ece_before": 0.2,
    "target_precision": 0.6,
    "min_confidence": 0.8,
    "accepted": 9,
    "right": 6,
    "aurc": 0.31,
}
CURVES = {
    "train_loss": [2.0, 1.0, 0.5],
    "train_acc": [0.3, 0.6, 0.9],
    "val_loss": [1.5, 1.0, 1.1],
    "val_acc": [0.4, 0.7, 0.6],
    "val_macro_f1": [0.3, 0.65, 0.55],
    "kept": [0, 1, 0],
}
FIGURES = ("predictions", "mistakes", "filters_conv1", "<b>own&")
OUTPUTS = {
    "prepare": ("metrics/prepare.json", "plots/classes.csv", "plots/left_out.csv"),
    "train": ("metrics/train/metrics.json", "plots/curves.csv", "metrics/environment.json"),
    "evaluate": (
        *("metrics/test.json", "plots/confusion.csv", "plots/per_class.csv"),
        *("plots/reliability.csv", "plots/risk_coverage.csv", "metrics/trust.json"),
    ),
}


def write_train(root, *, epochs=3, machine="cpu: A"):
    """What prepare and train leave."""
    photos = [("train", 10), ("val", 5), ("test", 8)]
    counts = [[name, split, n, n // 2, 2 * (n == 10)] for name in CLASSES for split, n in photos]
    _json(root, "metrics/prepare.json", {"photos": {"train": 30}})
    _table(root, "plots/classes.csv", ["class", "split", "photos", "groups", "near_copies"], counts)
    left_out = [["unreadable", 2], ["too small", 0]]
    _table(root, "plots/left_out.csv", ["reason", "files"], left_out)
    best = {"val_acc": 0.7, "val_loss": 1.0}
    metrics = {"best": best, "parameters": {"all": 1234567}, "step": 2}
    _json(root, "metrics/train/metrics.json", metrics)
    environment = {"device": machine, "cuda": None, "libraries": {"torch": "2.15.0"}}
    _json(root, "metrics/environment.json", environment)
    rows = list(zip(range(1, epochs + 1), *CURVES.values(), strict=False))
    _table(root, "plots/curves.csv", ["epoch", *CURVES], rows)


def write_timing(root, model):
    """A note beside the outputs: the training of the model with this MD5."""
    train = {"model": model, "seconds": 90.0, "epochs_run": 3, "images_per_second": 11.5}
    _json(root, "metrics/timing.json", {"train": train})


def write_test(root, pairs=PAIRS, **scores):
    """What evaluate leaves: 20 photos, of which 9 have a confidence of 90 %, the others 70 %."""
    hits = sum(actual == called for actual, called in pairs)
    found = {"acc": hits / len(pairs), "bal_acc": 0.6, "macro_f1": 0.5, "top3_acc": 1.0, "ece": 0.1}
    found["coverage"] = 9 / 20
    _json(root, "metrics/test.json", {"test": {**found, **scores}})
    _json(root, "metrics/trust.json", TRUST)
    curve = [[0.45, 1 / 3, 0.9], [1.0, 1 - hits / len(pairs), 0.7]]
    _table(root, "plots/risk_coverage.csv", ["coverage", "risk", "confidence"], curve)
    _table(root, "plots/confusion.csv", ["actual", "predicted"], pairs)
    _table(root, "plots/per_class.csv", ["class", "precision"], [[name, 0] for name in CLASSES])
    bins = [[0.7, 8 / 11, 11], [0.9, 6 / 9, 9]]
    _table(root, "plots/reliability.csv", ["confidence", "accuracy", "photos"], bins)


def write_figures(root, colour="red"):
    """What visualize leaves."""
    for name in FIGURES:
        path = root / "plots" / "figures" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (300, 200), colour).save(path)


def write_lock(root, *stages, params=PARAMS, deps=()):
    """dvc.lock, as if these stages had written the files that are there."""
    lock = {}
    for stage in stages:
        outs = [
            {"path": path, "md5": hashlib.md5((root / path).read_bytes()).hexdigest()}
            for path in OUTPUTS[stage]
        ]
        lock[stage] = {"deps": list(deps), "params": {"params.yaml": params}, "outs": outs}
    (root / "dvc.lock").write_text(yaml.safe_dump({"stages": lock}))


def _json(root, path, value):
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(json.dumps(value), encoding="utf-8")


def _table(root, path, header, rows):
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    with (root / path).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])
