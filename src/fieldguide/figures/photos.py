"""Figures of test photos with their predictions."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fieldguide.core.store import MostAlike, Split, Store
from fieldguide.evaluation.predictions import Predictions
from fieldguide.figures.canvas import RIGHT, WRONG, photo_grid, short, show_photo

_MISTAKES = (3, 5)  # rows, columns


def prediction_grid(
    test: Split, predictions: Predictions, *, per_class: int, rng: np.random.Generator
) -> Figure:
    """Draw `per_class` random test photos of each class, one row per class."""
    figure, grid = photo_grid(
        len(predictions.classes),
        per_class,
        title="Random test photos",
        subtitle="true → predicted (confidence); green: right; red and framed: wrong",
        lines=2,
    )
    for label, row in enumerate(grid):
        of_class = np.flatnonzero(predictions.labels == label)
        drawn = rng.choice(of_class, min(per_class, len(of_class)), replace=False)
        for axes, photo in zip(row, drawn, strict=False):
            _show(axes, test, predictions, int(photo))
    return figure


def confident_mistakes(test: Split, predictions: Predictions) -> Figure:
    """Draw the wrong predictions with the highest confidence, the most confident first."""
    rows, columns = _MISTAKES
    wrong = np.flatnonzero(predictions.predicted != predictions.labels)
    worst = wrong[np.argsort(-predictions.confidence[wrong], kind="stable")][: rows * columns]
    figure, grid = photo_grid(
        rows,
        columns,
        title="The most confident mistakes",
        subtitle=f"true → predicted (confidence); {len(worst)} of {len(wrong):,} mistakes on "
        f"{len(predictions.labels):,} test photos",
        lines=2,
    )
    for axes, photo in zip(grid.flat, worst, strict=False):
        _show(axes, test, predictions, int(photo))
    return figure


def most_alike_pair(store: Store, pair: MostAlike) -> Figure:
    """Draw the training photo and the test photo that look most alike."""
    figure, grid = photo_grid(
        1,
        2,
        title="The most alike training and test photo",
        subtitle="if both show the same moment, the test is easier than new photos are",
        lines=2,
    )
    for axes, name, source in zip(grid.flat, ("train", "test"), pair[:2], strict=True):
        split = store.split(name)
        row = split.sources.index(source)
        show_photo(axes, split.images(np.array([row]))[0])
        label = short(store.classes[int(split.labels[row])])
        axes.set_title(f"{name}: {label}\n{short(source, 38)}", fontsize=9, pad=4)
    return figure


def _show(axes: Axes, test: Split, predictions: Predictions, photo: int) -> None:
    """Show a photo below its true class, predicted class and confidence; frame it if wrong."""
    label, guess = int(predictions.labels[photo]), int(predictions.predicted[photo])
    colour = RIGHT if label == guess else WRONG
    show_photo(axes, test.images(np.array([photo]))[0], frame=None if label == guess else WRONG)
    true, predicted = short(predictions.classes[label]), short(predictions.classes[guess], 19)
    title = f"{true}\n→ {predicted} ({predictions.confidence[photo]:.0%})"
    axes.set_title(title, color=colour, fontsize=9, pad=4)
