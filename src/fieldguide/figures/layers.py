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
from fieldguide.figures.drawn_layers import as_maps, stages_of
from fieldguide.network.interface import Network

SHOWN = SIDE**2  # an 8 × 8 grid


def filter_figure(name: str, conv: nn.Conv2d, *, first: bool) -> Figure:
    """Draw the first 64 filters of one convolution layer.

    Filters of the first layer see colours and are drawn so, each stretched to its full range.
    Those of later layers see many channels: drawn is the kernel on the one that weighs most (L2).
    """
    weight = conv.weight.detach()  # (F, C, h, w)
    count, size = len(weight), weight.shape[-1]
    drawn = weight[:SHOWN]
    shown = f"{len(drawn)} of {count}" if count > SHOWN else f"all {count}"
    title = f"Filters of {name}: {shown}, {size}×{size} pixels each"
    if first:
        low, high = drawn.amin((1, 2, 3), keepdim=True), drawn.amax((1, 2, 3), keepdim=True)
        colours = ((drawn - low) / (high - low).clamp_min(1e-12)).permute(0, 2, 3, 1)
        return tiles(
            list(colours.numpy()),
            title=title,
            subtitle="in the colours they look for; each stretched to its full range",
            limits=(0, 1),
        )
    strongest = drawn.flatten(2).norm(dim=2).argmax(dim=1)  # (F, C, h, w) -> (F,)
    kernels = drawn[torch.arange(len(drawn)), strongest]  # (F, h, w)
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
        subtitle=f"{shown} channels, {height}×{width}, each scaled to its peak"
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
def recorded(modules: dict[str, nn.Module], *, inputs: bool = False) -> Iterator[dict[str, Tensor]]:
    """Collect what modules give, or take, during forward passes; hooks are removed at the end.

    Where a module gives several outputs in a list there is none to show.
    """
    outputs: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], object], None]:
        def hook(_module: nn.Module, taken: tuple[Tensor, ...], output: object) -> None:
            if inputs:
                outputs[name] = taken[0].detach()
            elif isinstance(output, Tensor):
                outputs[name] = output.detach()

        return hook

    handles = [module.register_forward_hook(keep(name)) for name, module in modules.items()]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def responses(net: Network, image: Tensor) -> dict[str, Tensor]:
    """Each stage's response, of the CNN after activation: (1, 3, H, W) -> (F, h, w) each."""
    with recorded(dict(stages_of(net))) as outputs:
        net(image)
    maps = {name: as_maps(net, output) for name, output in outputs.items()}
    return {name: one for name, one in maps.items() if one is not None}
