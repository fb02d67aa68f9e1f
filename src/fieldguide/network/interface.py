"""What the project asks of a network, whoever built it."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class Network(nn.Module):
    """What is asked of every network, named as in timm (https://huggingface.co/docs/timm).

    Never instantiated: timm's models have these methods without a class in common.
    """

    def forward_features(self, images: Tensor) -> Tensor:
        """Features before pooling: (B, 3, H, W) -> (B, F, h, w), (B, h, w, F) or (B, T, F)."""
        raise NotImplementedError

    def forward_head(self, features: Tensor) -> Tensor:
        """Scores of those features: -> (B, K)."""
        raise NotImplementedError

    def get_classifier(self) -> nn.Module | tuple[nn.Module, ...]:
        """Return the output layer; distilled networks have two, whose scores are averaged."""
        raise NotImplementedError

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the output layer by a new one of `num_classes`."""
        raise NotImplementedError

    def group_matcher(self, coarse: bool = False) -> Any:  # noqa: FBT001, FBT002 - timm's
        """Describe blocks by the names of their modules, for `group_with_matcher`."""
        raise NotImplementedError


def output_layers(net: Network) -> list[nn.Module]:
    """Return the output layer, or all of them."""
    layers = net.get_classifier()
    return list(layers) if isinstance(layers, tuple) else [layers]
