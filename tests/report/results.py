"""A run's files with numbers that can be checked by hand."""

import csv
import io
import json

import numpy as np
from PIL import Image

from fieldguide.evaluation.predictions import Predictions, write_predictions

# A stranger's class: markup of HTML, Markdown and Plotly, a mention and a column's end.
BEE = "<script>document.title='x'</script><b>bee</b> @all | `x`"
CLASSES = ["ant", BEE, "crab"]
# 14 of 20 right.
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
    "evaluate": {"calibration_bins": 5},
}
CURVES = {
    "train/acc": [0.3, 0.6, 0.9],
    "val/acc": [0.4, 0.7, 0.6],
    "train/loss": [2.0, 1.0, 0.5],
    "val/loss": [1.5, 1.0, 1.1],
}
FIGURES = ("predictions", "confusion", "filters_conv1", "<b>own&")


def write_train(root, *, epochs=3, machine="cpu: A"):
    """What prepare and train leave."""
    photos = {
        name: {"train": 10, "val": 5, "test": n} for name, n in zip(CLASSES, (8, 8, 4), strict=True)
    }
    left_out = {"unreadable": 2, "too_small": 0, "duplicate": 1}
    _json(root, "prepare", {"photos": {}, "left_out": left_out, "classes": photos})
    best = {"val_acc": 0.7, "val_loss": 1.0, "epoch": 2}
    _json(root, "train/metrics", {"best": best, "parameters": {"all": 1234567}, "step": 2})
    _json(root, "environment", {"device": machine, "libraries": {"torch": "2.15.0"}})
    _json(root, "timing", {"train": {"seconds": 90.0, "images_per_second": 11.5}})
    for name, values in CURVES.items():
        rows = [[k, value] for k, value in enumerate(values[:epochs])]
        path = f"metrics/train/plots/metrics/{name}.tsv"
        _table(root, path, ["step", name.split("/")[1]], rows, delimiter="\t")


def write_test(root, pairs=PAIRS, **scores):
    """What evaluate leaves: 90 % sure of ant, 70 % of the others."""
    hits = sum(actual == called for actual, called in pairs)
    found = {"photos": len(pairs), "acc": hits / len(pairs), "top3_acc": 1.0, "ece": 0.1}
    _json(root, "test", {"test": {**found, "macro_f1": 0.5, **scores}})
    per_class = {}
    for name in CLASSES:
        right = sum(pair == (name, name) for pair in pairs)
        shown = sum(actual == name for actual, _ in pairs)
        called = sum(called == name for _, called in pairs)
        per_class[name] = {
            "precision": right / called if called else 0.0,
            "recall": right / shown,
            "photos": shown,
        }
    _json(root, "per_class", per_class)
    _table(root, "plots/confusion.csv", ["actual", "predicted"], pairs)
    _table(root, "plots/reliability.csv", ["confidence", "accuracy"], [[0.7, 0.75], [0.9, 0.6]])
    sure = np.full((len(pairs), 3), 0.15)
    for row, (_, called) in zip(sure, pairs, strict=True):
        if called == "ant":
            row[:] = 0.05
        row[CLASSES.index(called)] = 0.9 if called == "ant" else 0.7
    labels = np.array([CLASSES.index(actual) for actual, _ in pairs])
    sources = [f"{k}.png" for k in range(len(pairs))]
    write_predictions(Predictions(sources, CLASSES, labels, sure), root / "metrics/predictions.csv")


def write_figures(root, colour="red"):
    """What visualize leaves."""
    for name in FIGURES:
        path = root / "plots" / "figures" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (300, 200), colour).save(path)


def _json(root, name, value):
    path = root / "metrics" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def _table(root, path, header, rows, delimiter=","):
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter, lineterminator="\n").writerows([header, *rows])
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text.getvalue(), encoding="utf-8")
