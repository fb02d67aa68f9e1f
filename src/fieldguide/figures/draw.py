"""Draw every figure of a classifier into one folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from fieldguide.core.errors import StoreError
from fieldguide.core.files import new_folder
from fieldguide.core.params import VisualizeParams
from fieldguide.core.store import Store
from fieldguide.evaluation.predictions import Predictions
from fieldguide.figures.cam import cam_figure
from fieldguide.figures.canvas import save
from fieldguide.figures.curves import training_curves
from fieldguide.figures.drawn_layers import filters_of, guided_layer
from fieldguide.figures.layers import filter_figure, response_figure, responses
from fieldguide.figures.photos import confident_mistakes, most_alike_pair, prediction_grid
from fieldguide.figures.saliency import guided_figure, network_input
from fieldguide.network.bundle import Bundle


def draw_all(
    bundle: Bundle,
    store: Store,
    *,
    predictions: Predictions,
    curves: Path,
    params: VisualizeParams,
    folder: Path,
) -> None:
    """Replace a folder by one with a PNG file per figure, and print their paths.

    Args:
        bundle: the classifier.
        store: has the photos that it was tested on.
        predictions: for these photos.
        curves: path of plots/curves.csv.
        params: how many photos and neurons to draw, and the seed that chooses them.
        folder: path of the figures.

    Raises:
        StoreError: the predictions are for other photos, or the curves are damaged.
    """
    test = store.split("test")
    if predictions.sources != test.sources:
        raise StoreError(
            "metrics/predictions.csv: its photos are not those of the test split; "
            "run `dvc repro evaluate`"
        )
    # One generator per figure: a change of one leaves what the others draw as it is.
    photos, response, neurons = (
        np.random.default_rng(seed) for seed in np.random.SeedSequence(params.seed).spawn(3)
    )
    row = int(response.integers(len(test)))
    label, pixels = bundle.classes[test.labels[row]], test.images(np.array([row]))[0]
    layer = guided_layer(bundle.net)

    # Without the setting, Matplotlib would read dollar signs in a class name as mathematics.
    with new_folder(folder) as partial, rc_context({"text.parse_math": False}):

        def write(name: str, figure: Figure) -> None:
            file = f"{name.replace('.', '_')}.png"
            save(figure, partial / file)
            print(f"  {folder / file}", flush=True)

        per_class = params.photos_per_class
        write("predictions", prediction_grid(test, predictions, per_class=per_class, rng=photos))
        write("mistakes", confident_mistakes(test, predictions))
        if layer is not None:
            figure = guided_figure(bundle, test, layer=layer, count=params.neurons, rng=neurons)
            write("guided_backprop", figure)
        else:
            figure = cam_figure(bundle, predictions, test, count=params.neurons, rng=neurons)
            write("grad_cam", figure)
        for k, (name, conv) in enumerate(filters_of(bundle.net)):
            write(f"filters_{name}", filter_figure(name, conv, first=k == 0))
        for name, maps in responses(bundle.net, network_input(bundle, test, row)).items():
            write(f"responses_{name}", response_figure(name, maps, pixels, label))
        write("curves", training_curves(curves))
        alike = store.most_alike
        if alike is not None:
            write("most_alike", most_alike_pair(store, alike))
