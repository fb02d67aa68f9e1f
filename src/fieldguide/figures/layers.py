"""What the convolution layers are made of and how they respond."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from fieldguide.figures.canvas import EDGE, HEADING, SIDE, short, show_photo, tiles
from fieldguide.models.cnn import CNN

SHOWN = SIDE**2  # an 8 × 8 grid


def filter_figure(net: CNN, name: str) -> Figure:
    """Draw the first 64 filters of one convolution layer.

    Filters of the first layer see colours and are drawn so, each stretched to its full range.
    Those of later layers see many channels: drawn is the kernel on the one that weighs most (L2).
    """
    weight = net.blocks[name].conv.weight.detach()  # (F, C, h, w)
    count, size = len(weight), weight.shape[-1]
    first = weight[:SHOWN]
    shown = f"{len(first)} of {count}" if count > SHOWN else f"all {count}"
    title = f"Filters of {name}: {shown}, {size}×{size} pixels each"
    if name == next(iter(net.blocks)):
        low, high = first.amin((1, 2, 3), keepdim=True), first.amax((1, 2, 3), keepdim=True)
        colours = ((first - low) / (high - low).clamp_min(1e-12)).permute(0, 2, 3, 1)
        return tiles(
            list(colours.numpy()),
            title=title,
            subtitle="in the colours they look for; each stretched to its full range",
            limits=(0, 1),
        )
    strongest = first.flatten(2).norm(dim=2).argmax(dim=1)  # (F, C, h, w) -> (F,)
    kernels = first[torch.arange(len(first)), strongest]  # (F, h, w)
    kernels = kernels / kernels.abs().amax((1, 2), keepdim=True).clamp_min(1e-12)
    return tiles(
        list(kernels.numpy()),
        title=title,
        subtitle=f"each on the one of its {weight.shape[1]} input channels that weighs most; "
        "red adds, blue subtracts",
        limits=(-1, 1),
        colours="RdBu_r",
    )


def response_figure(
    name: str, response: Tensor, photo: npt.NDArray[np.uint8], label: str
) -> Figure:
    """Draw the first 64 channels of a layer's response (F, h, w) to one photo."""
    maps = response[:SHOWN]
    silent = int((maps.amax((1, 2)) <= 0).sum())
    peak = maps.amax((1, 2), keepdim=True).clamp_min(1e-12)
    count, height, width = response.shape
    shown = f"{len(maps)} of {count}" if count > SHOWN else f"all {count}"
    figure = tiles(
        list((maps / peak).numpy()),
        title=f"Response of {name} to a test photo of class {short(label)}",
        subtitle=f"{shown} channels, {height}×{width} after the activation, each scaled to its peak"
        + (f"; {silent} silent" if silent else ""),
        limits=(0, 1),
        colours="magma",
    )
    width, high = figure.get_size_inches()
    side = HEADING - 0.2  # inches
    corner = figure.add_axes((EDGE / width, 1 - (side + 0.1) / high, side / width, side / high))
    show_photo(corner, photo)
    return figure


@contextmanager
def recorded(modules: dict[str, nn.Module]) -> Iterator[dict[str, Tensor]]:
    """Collect the outputs of modules during forward passes; hooks are removed at the end."""
    outputs: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[[nn.Module, object, Tensor], None]:
        def hook(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            outputs[name] = output.detach()

        return hook

    handles = [module.register_forward_hook(keep(name)) for name, module in modules.items()]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def responses(net: CNN, image: Tensor) -> dict[str, Tensor]:
    """Each block's response after its activation, before pooling: (1, 3, H, W) -> (F, h, w)."""
    activations = {name: block.activation for name, block in net.blocks.items()}
    with recorded(activations) as outputs:
        net(image)
    return {name: output[0] for name, output in outputs.items()}
