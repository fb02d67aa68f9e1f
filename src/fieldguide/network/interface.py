"""The methods that the project needs from every network."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class Network(nn.Module):
    """Type of every network; methods are named as in timm (https://huggingface.co/docs/timm).

    Only for annotations: models of timm have these methods, but no common base class.
    """

    def forward_features(self, images: Tensor) -> Tensor:
        """Features before pooling: (B, 3, H, W) -> (B, F, h, w), (B, h, w, F) or (B, T, F)."""
        raise NotImplementedError

    def forward_head(self, features: Tensor) -> Tensor:
        """Scores from the output of `forward_features`: -> (B, K)."""
        raise NotImplementedError

    def get_classifier(self) -> nn.Module | tuple[nn.Module, ...]:
        """Return the output layer; distilled networks have two and average their scores."""
        raise NotImplementedError

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the output layer by a new one with `num_classes` outputs."""
        raise NotImplementedError

    def group_matcher(self, coarse: bool = False) -> Any:  # noqa: FBT001, FBT002 - timm's
        """Describe the blocks by names of parameters, for `timm.models.group_parameters`."""
        raise NotImplementedError


def output_layers(net: Network) -> list[nn.Module]:
    """Return the output layers: one, or two of a distilled network."""
    layers = net.get_classifier()
    return list(layers) if isinstance(layers, tuple) else [layers]
