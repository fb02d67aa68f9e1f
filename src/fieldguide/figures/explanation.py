"""Explain one prediction: the photo, and the pixels in it that support a class."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from torch import Tensor

from fieldguide.figures.cam import grad_cam
from fieldguide.figures.canvas import show_heat, show_photo
from fieldguide.figures.drawn_layers import guided_layer
from fieldguide.figures.saliency import guided_gradient
from fieldguide.network.interface import Network


class Explanation(NamedTuple):
    """How much each pixel supports a class."""

    method: str  # "guided backprop" or "Grad-CAM"
    heat: npt.NDArray[np.float32]  # (H, W), in [0, 1]


def explain(net: Network, image: Tensor, label: int) -> Explanation:
    """Apply guided backprop to a class's score, or Grad-CAM if that has no rule for the network.

    Args:
        net: in eval mode; no other thread may use it meanwhile.
        image: (1, 3, H, W), normalised.
        label: index of the class.
    """
    if guided_layer(net):
        gradient = guided_gradient(net, image, layer=net, place=(label,))
        heat = gradient.abs().amax(dim=0)  # (3, H, W) -> (H, W)
        # The 99.5th percentile: a single bright pixel would leave the rest dark.
        method, peak = "guided backprop", heat.flatten().quantile(0.995)
    else:
        heat = grad_cam(net, image, label)
        method, peak = "Grad-CAM", heat.max()
    scaled = (heat / peak.clamp_min(1e-12)).clamp(0, 1)
    return Explanation(method, np.asarray(scaled.cpu().numpy()))


def explanation_figure(
    photo: npt.NDArray[np.uint8], explanation: Explanation, *, label: str, caption: str
) -> Figure:
    """Draw the photo beside its dimmed copy, in which the pixels that support `label` are bright.

    Args:
        photo: (H, W, 3), of any size.
        explanation: of the same square of the photo.
        label: name of the explained class.
        caption: line below the photos.
    """
    figure = Figure(figsize=(8, 4.7))
    left, right = figure.subplots(
        1, 2, gridspec_kw={"left": 0.01, "right": 0.99, "bottom": 0.09, "top": 0.91, "wspace": 0.02}
    )
    show_photo(left, photo)
    left.set_title("the photo as the classifier takes it", fontsize=10)
    show_heat(right, photo, explanation.heat)
    words = f"{explanation.method}:\nbright pixels support {label}"
    title = right.set_title(words, fontsize=10)
    below = figure.text(0.5, 0.03, caption, ha="center", fontsize=8.5)
    for text in (title, below):
        text.set_parse_math(False)  # a class name may hold dollar signs
    return figure
