"""A table of a network's layers."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fieldguide.network.cnn import CNN
from fieldguide.network.interface import Network

DEPTH = 2  # levels of blocks of a model of timm; it may have hundreds of layers


def summarize(net: Network, *, size: int) -> str:
    """Return a line for each layer of the CNN, or each of the larger blocks of a model of timm.

    It has the name, type, output shape, number of parameters and operations.

    Operations are the multiplications and additions of convolutions and linear layers for one
    photo; those of all other layers are few in comparison, and are not counted.

    Args:
        net: network; its modules' modes stay as they are.
        size: height and width of its input, in pixels.
    """
    shapes: dict[str, str] = {}
    operations: dict[str, int] = {}

    def look(name: str, module: nn.Module, _inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            shapes[name] = "×".join(map(str, output.shape[1:]))
            if isinstance(module, nn.Conv2d | nn.Linear):
                places = output.numel() // module.weight.shape[0]
                operations[name] = operations.get(name, 0) + 2 * module.weight.numel() * places

    named = dict(net.named_modules())
    modes = {name: module.training for name, module in named.items()}
    hooks = [one.register_forward_hook(partial(look, name)) for name, one in named.items()]
    try:
        net.eval()
        with torch.no_grad():
            net(next(net.parameters()).new_zeros(1, 3, size, size))
    finally:
        for hook in hooks:
            hook.remove()
        for name, module in named.items():
            module.training = modes[name]
    table = [("layer", "type", "output", "parameters", "operations")]
    for name, module in named.items():
        if isinstance(net, CNN) or name.count(".") < DEPTH:
            inside = f"{name}." if name else ""
            done = sum(n for key, n in operations.items() if f"{key}.".startswith(inside))
            weights = sum(p.numel() for p in module.parameters())
            kind = type(module).__name__
            table.append((name or "all", kind, shapes.get(name, ""), f"{weights:,}", f"{done:,}"))
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if k > 2 else cell.ljust(width)  # noqa: PLR2004 - numbers
            for k, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in table
    )
