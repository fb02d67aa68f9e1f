"""Test photos with what the classifier says of them."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fieldguide.core.store import Split
from fieldguide.evaluation.predictions import Predictions
from fieldguide.figures.canvas import HEADING, RIGHT, WRONG, grid_of, heading, short, show_photo

_MISTAKES = (3, 5)  # rows, columns


def prediction_grid(
    test: Split, predictions: Predictions, *, per_class: int, rng: np.random.Generator
) -> Figure:
    """Draw `per_class` random test photos of each class, a row per class."""
    rows = len(predictions.classes)
    figure = Figure(figsize=(max(2.3 * per_class, 5) + 0.3, 2.65 * rows + HEADING + 0.5))
    heading(
        figure,
        "Random test photos",
        "true → predicted (confidence); green: right; red and framed: wrong",
    )
    grid = grid_of(figure, rows, per_class, hspace=0.25, wspace=0.06, lines=2)
    for label, row in enumerate(grid):
        of_class = np.flatnonzero(predictions.labels == label)
        drawn = rng.choice(of_class, min(per_class, len(of_class)), replace=False)
        for axes, photo in zip(row, drawn, strict=False):
            _show(axes, test, predictions, int(photo))
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
        f"true → predicted (confidence); {len(worst)} of {len(wrong):,} mistakes on "
        f"{len(predictions.labels):,} test photos",
    )
    grid = grid_of(figure, rows, columns, hspace=0.25, wspace=0.06, lines=2)
    for axes, photo in zip(grid.flat, worst, strict=False):
        _show(axes, test, predictions, int(photo))
    return figure


def _show(axes: Axes, test: Split, predictions: Predictions, photo: int) -> None:
    """Show a photo under its true class, predicted class and confidence; frame it if wrong."""
    label, guess = int(predictions.labels[photo]), int(predictions.predicted[photo])
    colour = RIGHT if label == guess else WRONG
    frame = None if label == guess else WRONG
    show_photo(axes, test.images(np.array([photo]))[0], frame)
    truth, called = (short(predictions.classes[k]) for k in (label, guess))
    title = f"{truth}\n→ {called} ({predictions.confidence[photo]:.0%})"
    axes.set_title(title, color=colour, fontsize=9, pad=4)
