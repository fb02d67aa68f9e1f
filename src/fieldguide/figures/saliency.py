"""Guided backprop: which pixels excite a neuron, and the photo that excites it most.

Source: Springenberg et al. 2015, "Striving for Simplicity", section 3.4
(https://arxiv.org/abs/1412.6806).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from captum.attr import NeuronGuidedBackprop
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn import functional as F

from fieldguide.core.store import Split
from fieldguide.figures.canvas import pairs, short, show_photo
from fieldguide.figures.drawn_layers import activations, guided_layer
from fieldguide.figures.layers import recorded
from fieldguide.network.batches import in_order
from fieldguide.network.bundle import Bundle
from fieldguide.network.preprocessing import to_unit


class Neuron(NamedTuple):
    """One place of one channel of a layer, and the test photo that excites it most."""

    channel: int
    row: int
    column: int
    photo: int  # row of the test split
    activation: float


def pick_neurons(
    bundle: Bundle, test: Split, *, layer: nn.Module, count: int, rng: np.random.Generator
) -> list[Neuron]:
    """Draw neurons of an activation among those that some test photo excites, if any."""
    peak, photo = _strongest(bundle, test, layer)
    alive = np.argwhere(peak > 0)  # (channel, row, column) each
    chosen = rng.choice(len(alive), min(count, len(alive)), replace=False)
    return [
        Neuron(c, row, column, int(photo[c, row, column]), float(peak[c, row, column]))
        for c, row, column in alive[np.sort(chosen)].tolist()
    ]


@torch.no_grad()
def _strongest(
    bundle: Bundle, test: Split, layer: nn.Module
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Highest activation of each neuron over the split, and the photo's row: (F, h, w) each."""
    batches = in_order(test, bundle.preprocessing, torch.device("cpu"))
    peak: Tensor | None = None
    best = torch.empty(0)
    start = 0
    # Of ReLU6 what it takes: above 6 all photos would excite a neuron alike.
    bounded = isinstance(layer, nn.ReLU6)
    with recorded({"layer": layer}, inputs=bounded) as outputs, out_of_place(bundle.net):
        for images, _ in batches:
            bundle.net(images)
            values, rows = outputs["layer"].max(dim=0)  # (B, F, h, w) -> (F, h, w)
            rows = rows + start
            if peak is None:
                peak, best = values, rows
            else:
                best = torch.where(values > peak, rows, best)
                peak = torch.maximum(values, peak)
            start += len(images)
    assert peak is not None
    return peak.numpy(), best.numpy()


def guided_gradient(
    net: nn.Module, image: Tensor, *, layer: nn.Module, place: tuple[int, ...]
) -> Tensor:
    """Gradient of a neuron's activation, only what is positive passing each activation backwards.

    For ReLU this is Captum's `NeuronGuidedBackprop`. GELU, SiLU and Mish let small negative values
    through, so that ReLU's rule cannot be taken over as it stands; the rule here is the same in
    kind: the gradient through the activation by its own derivative, negative parts set to zero.
    With ReLU both rules are equal. Of ReLU6 the upper bound is left out: a value above it says that
    there is enough, and not that there is nothing.

    Args:
        net: in eval mode.
        image: (1, 3, H, W), normalised.
        layer: whose output the neuron belongs to.
        place: which one, of the output without its first axis.

    Returns:
        (3, H, W).
    """
    if all(isinstance(module, nn.ReLU) for module in activations(net)):
        with out_of_place(net), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # says that it sets hooks
            gradient: Tensor = NeuronGuidedBackprop(net, layer).attribute(image, place)
        return gradient[0].detach()
    return guided_by_rule(net, image, layer=layer, place=place)


def guided_by_rule(
    net: nn.Module, image: Tensor, *, layer: nn.Module, place: tuple[int, ...]
) -> Tensor:
    """Guided backprop for any of `activations`; see `guided_gradient`."""
    target: list[Tensor] = []

    def unbound(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        unbounded = F.relu(inputs[0])
        return unbounded + (output - unbounded).detach()  # ReLU6's value with ReLU's slope

    def clip(_module: nn.Module, gradients: tuple[Tensor, ...], _outputs: object) -> object:
        return (F.relu(gradients[0]),)

    handles = [module.register_full_backward_hook(clip) for module in activations(net)]
    bounded = [module for module in activations(net) if isinstance(module, nn.ReLU6)]
    handles += [module.register_forward_hook(unbound) for module in bounded]
    handles.append(layer.register_forward_hook(lambda _m, _i, output: target.append(output)))
    try:
        image = image.detach().clone().requires_grad_()
        with out_of_place(net):
            net(image)
        (gradient,) = torch.autograd.grad(target[0][(0, *place)], image)
    finally:
        for handle in handles:
            handle.remove()
    return gradient[0]


@contextmanager
def out_of_place(net: nn.Module) -> Iterator[None]:
    """Let activations keep their input, which PyTorch's backward hooks need."""
    changed: list[Any] = [one for one in activations(net) if getattr(one, "inplace", False)]
    for module in changed:
        module.inplace = False
    try:
        yield
    finally:
        for module in changed:
            module.inplace = True


def guided_figure(bundle: Bundle, test: Split, *, count: int, rng: np.random.Generator) -> Figure:
    """Draw random neurons of the last convolution layer, each beside the photo that excites it."""
    found = guided_layer(bundle.net)
    assert found is not None
    name, layer = found
    neurons = pick_neurons(bundle, test, layer=layer, count=count, rng=rng)
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
        label = bundle.classes[test.labels[neuron.photo]]
        photo.set_title(f"excited most by: {short(label)}", fontsize=9, pad=4)
        image = network_input(bundle, test, neuron.photo)
        place = (neuron.channel, neuron.row, neuron.column)
        gradient = guided_gradient(bundle.net, image, layer=layer, place=place)
        saliency.imshow(_as_picture(gradient), interpolation="bicubic")
        where = f"channel {neuron.channel} at ({neuron.row}, {neuron.column})"
        saliency.set_title(where, fontsize=9, pad=4)
    return figure


def network_input(bundle: Bundle, test: Split, row: int) -> Tensor:
    """One photo as the network takes it: (1, 3, H, W), normalised."""
    pixels = torch.from_numpy(test.images(np.array([row])))
    return bundle.preprocessing(to_unit(pixels))


def _as_picture(gradient: Tensor) -> npt.NDArray[np.float32]:
    """(3, H, W) -> (H, W, 3) in [0, 1], zero being middle grey."""
    # The 99.5th percentile: a single bright pixel would leave the rest grey.
    peak = gradient.abs().flatten().quantile(0.995).clamp_min(1e-12)
    scaled = (gradient / peak).clamp(-1, 1) / 2 + 0.5
    return np.asarray(scaled.permute(1, 2, 0).numpy())
