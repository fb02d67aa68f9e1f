"""Training curves: loss, accuracy and learning rate by epoch."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from fieldguide.core.errors import StoreError
from fieldguide.figures.canvas import RIGHT, TRAIN, VAL


def training_curves(path: Path) -> Figure:
    """Draw loss, accuracy and learning rate of every epoch.

    Args:
        path: plots/curves.csv.

    Raises:
        StoreError: the file is missing or holds something else.
    """
    curves = _read(path)
    epochs = curves["epoch"].astype(int)
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    loss, accuracy, rate = figure.subplots(1, 3)
    validated = "val_acc" in curves  # unless the validation photos were trained on
    for axes, name in ((loss, "loss"), (accuracy, "acc")):
        for split, colour in (("train", TRAIN), ("val", VAL))[: 2 if validated else 1]:
            values = curves[f"{split}_{name}"]
            axes.plot(epochs, values, color=colour, marker="o", markersize=3, label=split)
        axes.legend(frameon=False)
    if validated:
        best = int(np.argmax(curves["val_acc"]))
        accuracy.axvline(epochs[best], color=RIGHT, linewidth=1, linestyle="--")
        kept = f"epoch {epochs[best]}, val {curves['val_acc'][best]:.1%}"
        accuracy.set_title(f"Accuracy; kept: {kept}")
    else:
        accuracy.set_title("Accuracy; trained on val too, kept: the last epoch")
    accuracy.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    loss.set_title("Cross-entropy; train as it was smoothed and mixed")
    rate.plot(epochs, curves["learning_rate"], color="#444444", marker="o", markersize=3)
    rate.set_title("Learning rate at the end of the epoch")
    for axes in (loss, accuracy, rate):
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        _clean(axes)
    figure.suptitle(f"Training of {len(epochs)} epochs", fontsize=14)
    return figure


def _clean(axes: Axes) -> None:
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _read(path: Path) -> dict[str, np.ndarray]:
    """Values of each column, by its name."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            header, *lines = csv.reader(file)
        columns = np.array(lines, dtype=np.float64).reshape(-1, len(header)).T
        curves = dict(zip(header, columns, strict=True))
        if not {"epoch", "train_loss", "train_acc", "learning_rate"} <= curves.keys():
            raise ValueError(f"columns {header}")
    except (OSError, ValueError) as err:
        raise StoreError(f"{path}: not a table of curves ({err}); run `dvc repro`") from err
    if len(lines) == 0:
        raise StoreError(f"{path}: holds no epoch; run `dvc repro`")
    return curves
