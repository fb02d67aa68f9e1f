"""Test photos with what the classifier says of them."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from fieldguide.data.store import Split
from fieldguide.evaluation.predictions import Predictions
from fieldguide.figures.canvas import HEADING, RIGHT, WRONG, grid_of, heading, show_photo

_MISTAKES = (3, 5)  # rows, columns


def prediction_grid(
    test: Split, predictions: Predictions, *, per_class: int, rng: np.random.Generator
) -> Figure:
    """Draw `per_class` random test photos of each class, a row per class."""
    classes = predictions.classes
    figure = Figure(figsize=(2.3 * per_class + 0.3, 2.45 * len(classes) + HEADING + 0.5))
    heading(
        figure,
        "Random test photos: true → predicted",
        "with confidence; green: right; red and framed: wrong",
    )
    grid = grid_of(figure, len(classes), per_class, hspace=0.16, wspace=0.06, lines=1)
    for label, row in enumerate(grid):
        of_class = np.flatnonzero(predictions.labels == label)
        drawn = rng.choice(of_class, min(per_class, len(of_class)), replace=False)
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
    figure = Figure(figsize=(2.2 * columns + 0.3, 2.65 * rows + HEADING + 0.6))
    heading(
        figure,
        "The most confident mistakes",
        f"{len(worst)} of {len(wrong):,} wrong among {len(predictions.labels):,} test photos",
    )
    grid = grid_of(figure, rows, columns, hspace=0.25, wspace=0.06, lines=2)
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
