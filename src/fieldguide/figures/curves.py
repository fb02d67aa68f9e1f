"""Training curves: loss, accuracy and learning rate by epoch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from fieldguide.core.curves import kept_epoch, parse_curves
from fieldguide.core.errors import StoreError
from fieldguide.figures.canvas import GREY, RIGHT, TRAIN, VAL


def training_curves(path: Path) -> Figure:
    """Draw loss, accuracy and learning rate of every epoch.

    Args:
        path: of plots/curves.csv.

    Raises:
        StoreError: the file is missing or is not a table of curves.
    """
    try:
        curves = parse_curves(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as err:
        raise StoreError(f"{path}: not a table of curves ({err}); run `dvc repro`") from err
    epochs = np.arange(1, len(curves["train_loss"]) + 1)
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
    if "val_acc" in curves:
        kept = kept_epoch(curves)
        accuracy.axvline(kept, color=RIGHT, linewidth=1, linestyle="--")
        scores = curves["val_acc"]
        score = scores[kept - 1]
        other = "" if kept == scores.index(max(scores)) + 1 else " by another metric"
        accuracy.set_title(f"Accuracy; kept: epoch {kept}{other}, val {score:.1%}")
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
