"""Training curves: loss, accuracy and learning rate by epoch."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from fieldguide.core.errors import StoreError
from fieldguide.figures.canvas import GREY, RIGHT, TRAIN, VAL

_TRAINED = ("epoch", "train_loss", "train_acc", "learning_rate")
_VALIDATED = ("val_loss", "val_acc")  # not with train.train_on_val


def training_curves(path: Path) -> Figure:
    """Draw loss, accuracy and learning rate of every epoch.

    Args:
        path: of plots/curves.csv.

    Raises:
        StoreError: the file is missing or is not a table of curves.
    """
    curves = _read(path)
    epochs = curves["epoch"].astype(int)
    validated = "val_acc" in curves
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    loss, accuracy, rate = figure.subplots(1, 3)
    for axes, name in ((loss, "loss"), (accuracy, "acc")):
        for split, colour in (("train", TRAIN), ("val", VAL)):
            if f"{split}_{name}" in curves:
                values = curves[f"{split}_{name}"]
                axes.plot(epochs, values, color=colour, marker="o", markersize=3, label=split)
        axes.legend(frameon=False)
    rate.plot(epochs, curves["learning_rate"], color=GREY, marker="o", markersize=3)
    loss.set_title("Cross-entropy; train: with smoothing and mixing")
    rate.set_title("Learning rate at the end of the epoch")
    if validated:
        best = int(np.argmax(curves["val_acc"]))
        accuracy.axvline(epochs[best], color=RIGHT, linewidth=1, linestyle="--")
        kept = f"epoch {epochs[best]}, val {curves['val_acc'][best]:.1%}"
        accuracy.set_title(f"Accuracy; kept: {kept}")
    else:
        accuracy.set_title("Accuracy; trained on val too, kept: the last epoch")
    accuracy.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    for axes in (loss, accuracy, rate):
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"Training of {len(epochs)} epochs", fontsize=14)
    return figure


def _read(path: Path) -> dict[str, npt.NDArray[np.float64]]:
    """Return the values of each column by its name."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            header, *lines = list(csv.reader(file)) or [[]]
        needed = _TRAINED + _VALIDATED if set(_VALIDATED) & set(header) else _TRAINED
        if missing := [name for name in needed if name not in header]:
            raise ValueError(f"no column {', '.join(missing)}")
        if not lines:
            raise ValueError("no epoch")
        values = np.array(lines, dtype=np.float64).T  # (epochs, columns) -> (columns, epochs)
        return dict(zip(header, values, strict=True))
    except (OSError, ValueError, csv.Error) as err:
        raise StoreError(f"{path}: not a table of curves ({err}); run `dvc repro`") from err
