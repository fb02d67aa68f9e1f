"""Test photos with what the classifier says of them."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from fieldguide.data.store import Split
from fieldguide.evaluation.predictions import Predictions
from fieldguide.figures.canvas import RIGHT, WRONG, bare, show_photo

_MISTAKES = (3, 5)  # rows, columns


def prediction_grid(
    test: Split, predictions: Predictions, *, per_class: int, rng: np.random.Generator
) -> Figure:
    """Draw `per_class` random test photos of each class, a row per class."""
    classes = predictions.classes
    height = 1.95 * len(classes) + 1.0  # inches
    figure = Figure(figsize=(2.3 * per_class + 0.8, height))
    figure.suptitle(
        "Random test photos: true → predicted (confidence)", fontsize=12, y=1 - 0.3 / height
    )
    figure.text(
        0.5,
        1 - 0.6 / height,
        "green: right   red, framed: wrong",
        ha="center",
        va="center",
        fontsize=9.5,
        color="#444444",
    )
    grid = figure.subplots(
        len(classes),
        per_class,
        squeeze=False,
        gridspec_kw={
            "left": 0.03,
            "right": 0.97,
            "top": 1 - 1.05 / height,
            "bottom": 0.1 / height,
            "hspace": 0.25,
            "wspace": 0.05,
        },
    )
    for label, row in enumerate(grid):
        of_class = np.flatnonzero(predictions.labels == label)
        drawn = rng.choice(of_class, min(per_class, len(of_class)), replace=False)
        for axes in row:
            bare(axes)
        for axes, photo in zip(row, drawn, strict=False):
            guess = int(predictions.predicted[photo])
            right = guess == label
            show_photo(axes, test.images(np.array([photo]))[0], None if right else WRONG)
            axes.set_title(
                f"{classes[label]} → {classes[guess]} ({predictions.confidence[photo]:.0%})",
                color=RIGHT if right else WRONG,
                fontsize=9,
                pad=4,
            )
    return figure


def confident_mistakes(test: Split, predictions: Predictions) -> Figure:
    """Draw the wrong predictions of highest confidence, most confident first."""
    rows, columns = _MISTAKES
    wrong = np.flatnonzero(predictions.predicted != predictions.labels)
    worst = wrong[np.argsort(-predictions.confidence[wrong], kind="stable")][: rows * columns]
    figure = Figure(figsize=(2.1 * columns, 2.55 * rows + 0.7))
    figure.suptitle(
        f"The {len(worst)} most confident of {len(wrong)} mistakes on {len(predictions.labels)} "
        "test photos",
        fontsize=14,
    )
    grid = figure.subplots(
        rows,
        columns,
        squeeze=False,
        gridspec_kw={"left": 0.02, "right": 0.98, "top": 0.86, "bottom": 0.02, "hspace": 0.35},
    )
    for axes in grid.flat:
        bare(axes)
    for axes, photo in zip(grid.flat, worst, strict=False):
        show_photo(axes, test.images(np.array([photo]))[0])
        truth = predictions.classes[predictions.labels[photo]]
        guess = predictions.classes[predictions.predicted[photo]]
        axes.set_title(
            f"{truth}\ntaken for {guess} ({predictions.confidence[photo]:.0%})",
            fontsize=9,
            color=WRONG,
            pad=4,
        )
    return figure
