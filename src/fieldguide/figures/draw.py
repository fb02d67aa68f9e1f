"""Draw every figure of a classifier into one folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from fieldguide.core.errors import StoreError
from fieldguide.core.files import new_folder
from fieldguide.core.params import VisualizeParams
from fieldguide.core.store import Split
from fieldguide.evaluation.predictions import Predictions
from fieldguide.figures.cam import cam_figure
from fieldguide.figures.canvas import save
from fieldguide.figures.curves import training_curves
from fieldguide.figures.drawn_layers import filters_of, guided_layer
from fieldguide.figures.layers import filter_figure, response_figure, responses
from fieldguide.figures.photos import confident_mistakes, prediction_grid
from fieldguide.figures.saliency import guided_figure, network_input
from fieldguide.network.bundle import Bundle


class Inputs(NamedTuple):
    """What figures are drawn from."""

    bundle: Bundle
    test: Split
    predictions: Predictions
    curves: Path  # plots/curves.csv


def draw_all(inputs: Inputs, params: VisualizeParams, folder: Path) -> None:
    """Write a PNG per figure, and print their names.

    Raises:
        StoreError: predictions and test split do not belong together, or a table is damaged.
    """
    if inputs.predictions.sources != inputs.test.sources:
        raise StoreError("predictions.csv is not of this test split; run `dvc repro evaluate`")
    # A class name is text, whatever dollar signs it holds.
    with new_folder(folder) as aside, rc_context({"text.parse_math": False}):
        for name, figure in _figures(inputs, params):
            file = f"{name.replace('.', '_')}.png"
            save(figure, aside / file)
            print(f"  {folder / file}", flush=True)


def _figures(inputs: Inputs, params: VisualizeParams) -> Iterator[tuple[str, Figure]]:
    bundle, test, predictions = inputs.bundle, inputs.test, inputs.predictions
    # A generator each: one figure more leaves the draws of the others alone.
    photos, response, neurons = (
        np.random.default_rng(seed) for seed in np.random.SeedSequence(params.seed).spawn(3)
    )
    yield (
        "predictions",
        prediction_grid(test, predictions, per_class=params.photos_per_class, rng=photos),
    )
    yield "mistakes", confident_mistakes(test, predictions)
    if guided_layer(bundle.net):
        yield "guided_backprop", guided_figure(bundle, test, count=params.neurons, rng=neurons)
    else:
        yield "grad_cam", cam_figure(bundle, predictions, test, count=params.neurons, rng=neurons)
    row = int(response.integers(len(test)))
    label, pixels = bundle.classes[test.labels[row]], test.images(np.array([row]))[0]
    for k, (name, conv) in enumerate(filters_of(bundle.net)):
        yield f"filters_{name}", filter_figure(name, conv, first=k == 0)
    for name, maps in responses(bundle.net, network_input(bundle, test, row)).items():
        yield f"responses_{name}", response_figure(name, maps, pixels, label)
    yield "curves", training_curves(inputs.curves)
