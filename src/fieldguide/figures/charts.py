"""Training curves, the confusion matrix and calibration."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from fieldguide.errors import StoreError
from fieldguide.evaluation.metrics import confusion
from fieldguide.evaluation.predictions import Predictions
from fieldguide.figures.canvas import RIGHT, TRAIN, VAL, short

_LABELLED = 30  # classes up to which every cell of the confusion matrix carries its number


def training_curves(folder: Path) -> Figure:
    """Draw loss, accuracy and learning rate of every epoch, from DVCLive's TSV files."""
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    loss, accuracy, rate = figure.subplots(1, 3)
    validated = (folder / "val").is_dir()  # unless all photos were trained on
    for axes, name in ((loss, "loss"), (accuracy, "acc")):
        for split, colour in (("train", TRAIN), ("val", VAL))[: 2 if validated else 1]:
            epochs, values = _read_tsv(folder / split / f"{name}.tsv")
            axes.plot(epochs, values, color=colour, marker="o", markersize=3, label=split)
        axes.legend(frameon=False)
    if validated:
        best = int(np.argmax(values))
        accuracy.axvline(epochs[best], color=RIGHT, linewidth=1, linestyle="--")
        accuracy.set_title(f"Accuracy; kept: epoch {epochs[best]}, val {values[best]:.1%}")
    else:
        accuracy.set_title("Accuracy; trained on val too, kept: the last epoch")
    accuracy.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    loss.set_title("Cross-entropy; train as it was smoothed and mixed")
    rate.plot(*_read_tsv(folder / "learning_rate.tsv"), color="#444444", marker="o", markersize=3)
    rate.set_title("Learning rate at the end of the epoch")
    for axes in (loss, accuracy, rate):
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        _clean(axes)
    figure.suptitle(f"Training of {len(epochs)} epochs", fontsize=14)
    return figure


def confusion_figure(predictions: Predictions) -> Figure:
    """Draw the share of each true class that was called each class."""
    counts = confusion(predictions)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    size = len(predictions.classes)
    side = max(5.0, min(0.55 * size + 2.5, 40.0))  # inches
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    ticks = np.arange(size)
    names = [short(name) for name in predictions.classes]
    axes.set_xticks(ticks, names, rotation=45, ha="right")
    axes.set_yticks(ticks, names)
    axes.set(xlabel="predicted class", ylabel="true class")
    accuracy = np.trace(counts) / counts.sum()
    axes.set_title(f"Confusion on {counts.sum():,} test photos, accuracy {accuracy:.1%}", pad=10)
    if size <= _LABELLED:
        for (row, column), count in np.ndenumerate(counts):
            colour = "white" if shares[row, column] > 0.5 else "black"  # noqa: PLR2004
            axes.text(
                column, row, str(count or ""), ha="center", va="center", color=colour, fontsize=8
            )
    bar = figure.colorbar(image, shrink=0.8, label="share of the true class")
    bar.ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    return figure


def reliability_figure(points: Path, predictions: Predictions) -> Figure:
    """Draw accuracy against confidence, from `plots/reliability.csv`."""
    try:
        with points.open(encoding="utf-8", newline="") as file:
            rows = [(float(r["confidence"]), float(r["accuracy"])) for r in csv.DictReader(file)]
        confidence, accuracy = zip(*rows, strict=True)
    except (OSError, ValueError, KeyError) as err:
        raise StoreError(f"{points}: not a reliability table ({err}); run `dvc repro`") from err
    figure = Figure(figsize=(6, 6.6), layout="constrained")
    axes, below = figure.subplots(2, 1, height_ratios=(4, 1), sharex=True)
    axes.plot((0, 1), (0, 1), color="#aaaaaa", linestyle="--", label="perfectly calibrated")
    axes.plot(confidence, accuracy, color=VAL, marker="o", label="this classifier")
    axes.set(ylabel="accuracy (above the line: too modest)", ylim=(0, 1), xlim=(0, 1))
    axes.set_title("Calibration: is the confidence earned?")
    axes.legend(frameon=False, loc="upper left")
    below.hist(predictions.confidence, bins=np.linspace(0, 1, 31).tolist(), color=VAL)
    below.set(xlabel="confidence in the predicted class", ylabel="photos")
    for each in (axes, below):
        _clean(each)
        each.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    return figure


def _clean(axes: Axes) -> None:
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _read_tsv(path: Path) -> tuple[list[int], list[float]]:
    """Epochs counted from 1, and values."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            lines = list(csv.DictReader(file, delimiter="\t"))
        return [int(line["step"]) + 1 for line in lines], [float(line[path.stem]) for line in lines]
    except (OSError, ValueError, KeyError) as err:
        raise StoreError(f"{path}: not a curve of DVCLive ({err}); run `dvc repro`") from err
