"""Guided backprop: which pixels excite a neuron, and the photo that excites it most.

Source: Springenberg et al. 2015, "Striving for Simplicity", section 3.4
(https://arxiv.org/abs/1412.6806).
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn import functional as F

from fieldguide.core.store import Split
from fieldguide.figures.canvas import pairs, short, show_photo
from fieldguide.network.batches import in_order
from fieldguide.network.bundle import Bundle
from fieldguide.network.cnn import ACTIVATIONS
from fieldguide.network.preprocessing import to_unit

_BELOW_6 = 6 - 2**-20  # an input for which ReLU6 still has a slope; exact in float32


class Neuron(NamedTuple):
    """One value of a layer's output, and the test photo that excites it most."""

    place: tuple[int, int, int]  # channel, row, column
    photo: int  # row of the test split


def pick_neurons(
    bundle: Bundle, test: Split, *, layer: nn.Module, count: int, rng: np.random.Generator
) -> list[Neuron]:
    """Draw `count` random neurons of an activation layer, or all if fewer are ever excited.

    A neuron is excited if some test photo brings it above 0.
    """
    peak, photo = _strongest(bundle, test, layer)
    excited = np.argwhere(peak > 0)  # (channel, row, column) each
    chosen = rng.choice(len(excited), min(count, len(excited)), replace=False)
    places = excited[np.sort(chosen)].tolist()
    return [Neuron((c, y, x), int(photo[c, y, x])) for c, y, x in places]


@torch.no_grad()
def _strongest(
    bundle: Bundle, test: Split, layer: nn.Module
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Return the highest input of each neuron over the split, and its photo: (F, h, w) each.

    All activations rise with a positive input, so the photo with the highest input excites the
    neuron most. For ReLU6 the input also ranks the photos that reach its upper bound.
    """
    inputs: list[Tensor] = []
    peak, photo, start = torch.tensor(-torch.inf), torch.tensor(0), 0
    # A copy, because some activations overwrite their input.
    with layer.register_forward_pre_hook(lambda _module, taken: inputs.append(taken[0].clone())):
        for images, _ in in_order(test, bundle.preprocessing, torch.device("cpu")):
            bundle.net(images)
            values, rows = inputs.pop().max(dim=0)  # (B, F, h, w) -> (F, h, w)
            photo = torch.where(values > peak, rows + start, photo)
            peak = torch.maximum(values, peak)
            start += len(images)
    return peak.numpy(), photo.numpy()


def guided_gradient(
    net: nn.Module, image: Tensor, *, layer: nn.Module, place: tuple[int, ...]
) -> Tensor:
    """Compute the gradient of a neuron, passing only positive gradients back through activations.

    The paper's rule is for ReLU. The CNN's other activations let small negative values through; the
    gradient goes through them by their own derivative, then its negative values are set to zero,
    which is the same as the paper's rule for ReLU. ReLU6 is treated as if it had no upper bound:
    a value above 6 does not mean that the neuron is not excited.

    Args:
        net: in eval mode.
        image: (1, 3, H, W), normalised.
        layer: the layer of the neuron.
        place: index of the neuron in the layer's output for one image.

    Returns:
        (3, H, W).
    """
    outputs: list[Tensor] = []

    def clip(module: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
        # A copy, because other layers may take the same input and some activations overwrite it.
        value = inputs[0].clone()
        value.register_hook(F.relu)  # type: ignore[no-untyped-call]  # clips the gradient
        if isinstance(module, nn.ReLU6):
            with torch.no_grad():  # the gradient passes as if nothing was changed
                value.clamp_(max=_BELOW_6)
        return value

    with ExitStack() as hooks:
        for module in net.modules():
            if isinstance(module, (*ACTIVATIONS.values(), nn.ReLU6)):
                hooks.enter_context(module.register_forward_pre_hook(clip))
        keep = layer.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
        hooks.enter_context(keep)
        image = image.detach().clone().requires_grad_()
        net(image)
    (gradient,) = torch.autograd.grad(outputs[0][(0, *place)], image)
    return gradient[0]


def guided_figure(
    bundle: Bundle,
    test: Split,
    *,
    layer: tuple[str, nn.Module],
    count: int,
    rng: np.random.Generator,
) -> Figure:
    """Draw random neurons of a named activation layer, each beside the photo that excites it."""
    name, module = layer
    neurons = pick_neurons(bundle, test, layer=module, count=count, rng=rng)
    figure, grid = pairs(
        len(neurons),
        title=f"Guided backprop of {len(neurons)} random neurons of {name}, "
        "the last convolution layer",
        subtitle="left: the test photo that excites the neuron most; "
        "right: the pixels that do it (grey: none)"
        if neurons
        else "no test photo excites any: the network is dead",
    )
    for (photo, saliency), neuron in zip(grid, neurons, strict=False):
        show_photo(photo, test.images(np.array([neuron.photo]))[0])
        photo.set_title(short(bundle.classes[test.labels[neuron.photo]]), fontsize=9, pad=4)
        image = network_input(bundle, test, neuron.photo)
        gradient = guided_gradient(bundle.net, image, layer=module, place=neuron.place)
        saliency.imshow(_as_picture(gradient), interpolation="bicubic")
        channel, y, x = neuron.place
        saliency.set_title(f"channel {channel} at ({y}, {x})", fontsize=9, pad=4)
    return figure


def network_input(bundle: Bundle, test: Split, row: int) -> Tensor:
    """Return one photo as the network takes it: (1, 3, H, W), normalised."""
    pixels = torch.from_numpy(test.images(np.array([row])))
    return bundle.preprocessing(to_unit(pixels))


def _as_picture(gradient: Tensor) -> npt.NDArray[np.float32]:
    """Scale a gradient to colours, with zero as middle grey: (3, H, W) -> (H, W, 3) in [0, 1]."""
    # The 99.5th percentile: a single bright pixel would leave the rest grey.
    peak = gradient.abs().flatten().quantile(0.995).clamp_min(1e-12)
    scaled = (gradient / peak).clamp(-1, 1) / 2 + 0.5
    return np.asarray(scaled.permute(1, 2, 0).numpy())
