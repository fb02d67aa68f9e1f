"""Choose the layers of a network that are drawn: the CNN's blocks, or what timm's networks have.

A layer is a module with its name in the network.
"""

from __future__ import annotations

from torch import Tensor, nn

from fieldguide.network.cnn import CNN
from fieldguide.network.interface import Network

_STAGES = 5  # largest number of layers of a timm network whose responses are drawn
# A timm network of these layers alone can be explained by guided backprop: its only activations are
# ReLU and ReLU6, and it has no gate (sigmoid) or attention (softmax), for which there is no rule.
# The CNN of this project can always be explained, also with another activation.
_GUIDED = (
    *(nn.Conv2d, nn.BatchNorm2d, nn.Linear, nn.Dropout, nn.ReLU, nn.ReLU6, nn.Identity, nn.Flatten),
    *(nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.Upsample, nn.ConstantPad2d),
)


def filters_of(net: Network) -> list[tuple[str, nn.Conv2d]]:
    """Return the convolutions to draw.

    Those of the CNN's whitening and blocks; of timm's networks the one that sees colours.
    """
    if isinstance(net, CNN):
        blocks = [(name, block.conv) for name, block in net.blocks.items()]
        return blocks if net.whitening is None else [("whitening", net.whitening.conv), *blocks]
    for name, module in net.named_modules():
        if isinstance(module, nn.Conv2d) and module.in_channels == 3:  # noqa: PLR2004 - colours
            return [(name, module)]
    return []


def stages_of(net: Network) -> list[tuple[str, nn.Module]]:
    """Return the layers whose responses are drawn, first to last.

    For the CNN these are the activations of its blocks; for timm's networks, up to five layers
    of `feature_info`, always with the last one.
    """
    if isinstance(net, CNN):
        return [(name, block.activation) for name, block in net.blocks.items()]
    named = [info["module"] for info in getattr(net, "feature_info", [])]
    step = max(1, -(-len(named) // _STAGES))
    modules = dict(net.named_modules())
    return [(name, modules[name]) for name in named[::-1][::step][::-1] if name in modules]


def as_maps(net: Network, output: Tensor) -> Tensor | None:
    """Turn a layer's output for one image into feature maps.

    Args:
        net: the network of the layer.
        output: (1, F, h, w), (1, h, w, F) if the network says so, or (1, T, F) from a transformer:
            a token per place, after prefix tokens that belong to no place.

    Returns:
        (F, h, w); None if the output has no places.
    """
    if output.ndim == 4:  # noqa: PLR2004
        last = getattr(net, "output_fmt", "NCHW") == "NHWC"
        return output[0].permute(2, 0, 1) if last else output[0]
    if output.ndim != 3:  # noqa: PLR2004
        return None
    tokens = output[0, getattr(net, "num_prefix_tokens", 0) :]  # (T, F)
    side = round(len(tokens) ** 0.5)
    return tokens.T.reshape(-1, side, side) if side * side == len(tokens) else None


def guided_layer(net: Network) -> tuple[str, nn.Module] | None:
    """Return the last activation, or None if guided backprop has no rule for some layer."""
    if isinstance(net, CNN):
        return stages_of(net)[-1]
    named = list(net.named_modules())
    kinds = " ".join(type(module).__name__.lower() for _, module in named)
    if "attention" in kinds or "attn" in kinds:  # its softmax may be no module
        return None
    layers = [(name, module) for name, module in named if next(module.children(), None) is None]
    if not all(isinstance(module, _GUIDED) for _, module in layers):
        return None
    activations = [layer for layer in layers if isinstance(layer[1], nn.ReLU | nn.ReLU6)]
    return activations[-1] if activations else None
