"""Which parts of a network are drawn: of the CNN every block, of timm's networks what is alike."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from fieldguide.network.cnn import ACTIVATIONS, CNN
from fieldguide.network.interface import Network

_STAGES = 5  # responses drawn of a network with more blocks


class Layer(NamedTuple):
    """A module, by its name in the network."""

    name: str
    module: nn.Module


def filters_of(net: Network) -> list[tuple[str, nn.Conv2d]]:
    """Return convolutions whose filters are worth a look: every block's, or the one that sees."""
    if isinstance(net, CNN):
        return [(name, block.conv) for name, block in net.blocks.items()]
    for name, module in net.named_modules():
        if isinstance(module, nn.Conv2d) and module.in_channels == 3:  # noqa: PLR2004 - colours
            return [(name, module)]
    return []


def stages_of(net: Network) -> list[Layer]:
    """Return layers whose responses are drawn, first to last: timm's `feature_info`, or blocks."""
    if isinstance(net, CNN):
        return [Layer(name, block.activation) for name, block in net.blocks.items()]
    named = [info["module"] for info in getattr(net, "feature_info", [])]
    step = max(1, -(-len(named) // _STAGES))
    chosen = named[::-1][::step][::-1]  # with the last one
    modules = dict(net.named_modules())
    return [Layer(name, modules[name]) for name in chosen if name in modules]


def as_maps(net: Network, output: Tensor) -> Tensor | None:
    """Bring a layer's output for one image to (F, h, w); None if it has no places.

    Convolutional networks give (1, F, h, w), some (1, h, w, F), transformers (1, T, F): a token a
    place, behind some that stand for none.
    """
    if output.ndim == 4:  # noqa: PLR2004
        last = getattr(net, "output_fmt", "NCHW") == "NHWC"
        return output[0].permute(2, 0, 1) if last else output[0]
    if output.ndim != 3:  # noqa: PLR2004
        return None
    tokens = output[0, getattr(net, "num_prefix_tokens", 0) :]  # (T, F)
    side = round(len(tokens) ** 0.5)
    if side * side != len(tokens):
        return None
    return tokens.T.reshape(-1, side, side)


def guided_layer(net: Network) -> Layer | None:
    """Return the last activation, if guided backprop has a rule for all of them, or None.

    The rule is that of ReLU: what does not pass forwards or is negative backwards is cut. ReLU6 is
    like it, and for the CNN's other activations `saliency.guided_by_rule` says how it is meant. A
    network with any other, such as the sigmoid of a gate or the softmax of attention, has none.
    """
    if isinstance(net, CNN):
        return stages_of(net)[-1]
    layers = [Layer(name, module) for name, module in net.named_modules() if _is_activation(module)]
    if not layers or not all(isinstance(layer.module, (nn.ReLU, nn.ReLU6)) for layer in layers):
        return None
    return layers[-1]


def _is_activation(module: nn.Module) -> bool:
    """Whether timm or PyTorch made it as an activation; attention counts, its softmax being one."""
    kind = type(module)
    here = kind.__module__ in (
        "torch.nn.modules.activation",
        "timm.layers.activations",
        "timm.layers.activations_me",
        "timm.layers.squeeze_excite",
    )
    return here or "attention" in kind.__name__.lower()


def activations(net: nn.Module) -> list[nn.Module]:
    """Return the modules that guided backprop's rule applies to."""
    kinds = (*ACTIVATIONS.values(), nn.ReLU6)
    return [module for module in net.modules() if isinstance(module, kinds)]
