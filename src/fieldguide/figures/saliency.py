"""Guided backprop: which pixels excite a neuron, and the photo that excites it most.

Source: Springenberg et al. 2015, "Striving for Simplicity", section 3.4
(https://arxiv.org/abs/1412.6806).
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from captum.attr import NeuronGuidedBackprop
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn import functional as F

from fieldguide.data.batches import Batches, eval_batch
from fieldguide.data.store import Split
from fieldguide.data.transforms import normalize, to_unit
from fieldguide.figures.canvas import HEADING, grid_of, heading, short, show_photo
from fieldguide.figures.layers import recorded
from fieldguide.models.bundle import Bundle
from fieldguide.models.cnn import ACTIVATIONS, CNN

_PAIRS = 2  # neurons in a row


class Neuron(NamedTuple):
    """One place of one channel of a layer, and the test photo that excites it most."""

    channel: int
    row: int
    column: int
    photo: int  # row of the test split
    activation: float


def pick_neurons(
    bundle: Bundle, test: Split, *, block: str, count: int, rng: np.random.Generator
) -> list[Neuron]:
    """Draw neurons of a block's activation among those that some test photo excites, if any."""
    peak, photo = _strongest(bundle, test, block)
    alive = np.argwhere(peak > 0)  # (channel, row, column) each
    chosen = rng.choice(len(alive), min(count, len(alive)), replace=False)
    return [
        Neuron(c, row, column, int(photo[c, row, column]), float(peak[c, row, column]))
        for c, row, column in alive[np.sort(chosen)].tolist()
    ]


@torch.no_grad()
def _strongest(
    bundle: Bundle, test: Split, block: str
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Highest activation of each neuron over the split, and the photo's row: (F, h, w) each."""
    size, cpu = eval_batch(bundle.image_size), torch.device("cpu")
    batches = Batches(test, size, mean=bundle.mean, std=bundle.std, device=cpu)
    peak: Tensor | None = None
    best = torch.empty(0)
    start = 0
    with recorded({block: bundle.net.blocks[block].activation}) as outputs:
        for images, _ in batches:
            bundle.net(images)
            values, rows = outputs[block].max(dim=0)  # (B, F, h, w) -> (F, h, w)
            rows = rows + start
            if peak is None:
                peak, best = values, rows
            else:
                best = torch.where(values > peak, rows, best)
                peak = torch.maximum(values, peak)
            start += len(images)
    assert peak is not None
    return peak.numpy(), best.numpy()


def guided_gradient(net: CNN, image: Tensor, *, block: str, neuron: Neuron) -> Tensor:
    """Gradient of a neuron's activation, only what is positive passing each activation backwards.

    For ReLU this is Captum's `NeuronGuidedBackprop`. GELU, SiLU and Mish let small negative values
    through, so that ReLU's rule cannot be taken over as it stands; the rule here is the same in
    kind: the gradient through the activation by its own derivative, negative parts set to zero.
    With ReLU both rules are equal.

    Args:
        net: in eval mode.
        image: (1, 3, H, W), normalised.
        block: whose activation the neuron belongs to.
        neuron: which one.

    Returns:
        (3, H, W).
    """
    layer = net.blocks[block].activation
    place = (neuron.channel, neuron.row, neuron.column)
    if isinstance(layer, nn.ReLU):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # says that it sets hooks
            gradient: Tensor = NeuronGuidedBackprop(net, layer).attribute(image, place)
        return gradient[0].detach()
    return guided_by_rule(net, image, layer=layer, place=place)


def guided_by_rule(
    net: nn.Module, image: Tensor, *, layer: nn.Module, place: tuple[int, int, int]
) -> Tensor:
    """Guided backprop for any activation in ACTIVATIONS; see `guided_gradient`."""
    target: list[Tensor] = []

    def clip(_module: nn.Module, gradients: tuple[Tensor, ...], _outputs: object) -> object:
        return (F.relu(gradients[0]),)

    kinds = tuple(ACTIVATIONS.values())
    handles = [m.register_full_backward_hook(clip) for m in net.modules() if isinstance(m, kinds)]
    handles.append(layer.register_forward_hook(lambda _m, _i, output: target.append(output)))
    try:
        image = image.detach().clone().requires_grad_()
        net(image)
        (gradient,) = torch.autograd.grad(target[0][(0, *place)], image)
    finally:
        for handle in handles:
            handle.remove()
    return gradient[0]


def guided_figure(bundle: Bundle, test: Split, *, count: int, rng: np.random.Generator) -> Figure:
    """Draw random neurons of the last convolution layer, each beside the photo that excites it."""
    block = list(bundle.net.blocks)[-1]
    neurons = pick_neurons(bundle, test, block=block, count=count, rng=rng)
    rows = max(1, -(-len(neurons) // _PAIRS))
    figure = Figure(figsize=(4.4 * _PAIRS + 0.3, 2.5 * rows + HEADING + 0.5))
    heading(
        figure,
        f"Guided backprop of {len(neurons)} random neurons of {block}, the last convolution layer",
        "left: the test photo that excites the neuron most; right: the pixels that do it "
        "(grey: none)"
        if neurons
        else "no test photo excites any: the network is dead",
    )
    grid = grid_of(figure, rows, 2 * _PAIRS, hspace=0.16, wspace=0.05, lines=1)
    for (photo, saliency), neuron in zip(grid.reshape(-1, 2), neurons, strict=False):
        show_photo(photo, test.images(np.array([neuron.photo]))[0])
        label = bundle.classes[test.labels[neuron.photo]]
        photo.set_title(f"excited most by: {short(label)}", fontsize=9, pad=4)
        image = network_input(bundle, test, neuron.photo)
        gradient = guided_gradient(bundle.net, image, block=block, neuron=neuron)
        saliency.imshow(_as_picture(gradient), interpolation="bicubic")
        place = f"channel {neuron.channel} at ({neuron.row}, {neuron.column})"
        saliency.set_title(place, fontsize=9, pad=4)
    return figure


def network_input(bundle: Bundle, test: Split, row: int) -> Tensor:
    """One photo as the network takes it: (1, 3, H, W), normalised."""
    pixels = torch.from_numpy(test.images(np.array([row])))
    return normalize(to_unit(pixels), bundle.mean, bundle.std)


def _as_picture(gradient: Tensor) -> npt.NDArray[np.float32]:
    """(3, H, W) -> (H, W, 3) in [0, 1], zero being middle grey."""
    # The 99.5th percentile: a single bright pixel would leave the rest grey.
    peak = gradient.abs().flatten().quantile(0.995).clamp_min(1e-12)
    scaled = (gradient / peak).clamp(-1, 1) / 2 + 0.5
    return np.asarray(scaled.permute(1, 2, 0).numpy())
