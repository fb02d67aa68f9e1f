"""Figures of the filters of convolution layers, and of the responses of layers to a photo."""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from fieldguide.figures.canvas import EDGE, HEADING, SIDE, short, show_photo, tiles
from fieldguide.figures.drawn_layers import as_maps, stages_of
from fieldguide.network.interface import Network

SHOWN = SIDE**2  # largest number of filters or channels in a figure: an 8 × 8 grid


def filter_figure(name: str, conv: nn.Conv2d, *, first: bool) -> Figure:
    """Draw the first 64 filters of one convolution layer.

    The filters of the first layer see colours and are drawn in colours, each stretched to its full
    range. The filters of later layers see many channels; for each filter, the kernel of the channel
    with the largest weights (L2 norm) is drawn.
    """
    weight = conv.weight.detach()  # (F, C, h, w)
    drawn = weight[:SHOWN]
    size = weight.shape[-1]
    title = f"Filters of {name}: {_shown(len(weight))}, {size}×{size} pixels each"
    if first:
        low, high = drawn.amin((1, 2, 3), keepdim=True), drawn.amax((1, 2, 3), keepdim=True)
        colours = ((drawn - low) / (high - low).clamp_min(1e-12)).permute(0, 2, 3, 1)
        return tiles(
            list(colours.numpy()),
            title=title,
            subtitle="in the colours they look for; each stretched to its full range",
        )
    strongest = drawn.flatten(2).norm(dim=2).argmax(dim=1)  # (F, C, h, w) -> (F,)
    kernels = drawn[torch.arange(len(drawn)), strongest]  # (F, h, w)
    kernels = kernels / kernels.abs().amax((1, 2), keepdim=True).clamp_min(1e-12)
    return tiles(
        list(kernels.numpy()),
        title=title,
        subtitle=f"each for the one of its {weight.shape[1]} input channels that weighs most; "
        "red adds, blue subtracts",
        colours="RdBu_r",
        lowest=-1,
    )


def response_figure(
    name: str, response: Tensor, photo: npt.NDArray[np.uint8], label: str
) -> Figure:
    """Draw the first 64 channels of a layer's response to one photo.

    Args:
        name: of the layer.
        response: (F, h, w).
        photo: (H, W, 3), drawn in the corner.
        label: class of the photo.
    """
    maps = response[:SHOWN]
    peak = maps.amax((1, 2), keepdim=True)
    count, height, width = response.shape
    silent = int((peak <= 0).sum())
    figure = tiles(
        list((maps / peak.clamp_min(1e-12)).numpy()),
        title=f"Response of {name} to a test photo of class {short(label, 19)}",
        subtitle=f"{_shown(count)} channels, {height}×{width}, each scaled to its peak"
        + (f"; {silent} silent" if silent else ""),
        colours="magma",
    )
    width, high = figure.get_size_inches()
    side = HEADING - 0.2  # inches
    corner = figure.add_axes((EDGE / width, 1 - (side + 0.1) / high, side / width, side / high))
    show_photo(corner, photo)
    return figure


def _shown(count: int) -> str:
    return f"{SHOWN} of {count}" if count > SHOWN else f"all {count}"


@torch.no_grad()
def responses(net: Network, image: Tensor) -> dict[str, Tensor]:
    """Compute the response of each drawn layer by its name: (1, 3, H, W) -> (F, h, w) each."""
    outputs: dict[str, object] = {}
    with ExitStack() as hooks:
        for name, module in stages_of(net):
            hooks.enter_context(
                module.register_forward_hook(
                    lambda _module, _inputs, output, name=name: outputs.update({name: output})
                )
            )
        net(image)
    # A layer that returns several tensors has no response to draw.
    tensors = {name: output for name, output in outputs.items() if isinstance(output, Tensor)}
    maps = {name: as_maps(net, output) for name, output in tensors.items()}
    return {name: channels for name, channels in maps.items() if channels is not None}
