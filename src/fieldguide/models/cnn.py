"""The course work's network: convolution blocks that halve the image, then a dense layer."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from torch import Tensor, nn

from fieldguide.models.network import Network
from fieldguide.params import CNNParams

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "mish": nn.Mish,
}


class ConvBlock(nn.Sequential):
    """conv -> [batch norm] -> activation -> max-pool: (B, C, H, W) -> (B, F, H/2, W/2)."""

    conv: nn.Conv2d
    activation: nn.Module

    def __init__(self, channels: int, filters: int, params: CNNParams) -> None:
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        layers["conv"] = nn.Conv2d(
            channels,
            filters,
            params.kernel_size,
            padding="same",
            bias=not params.batch_norm,  # batch norm has its own
        )
        if params.batch_norm:
            layers["norm"] = nn.BatchNorm2d(filters)
        layers["activation"] = ACTIVATIONS[params.activation]()
        layers["pool"] = nn.MaxPool2d(2)
        super().__init__(layers)


class CNN(Network):
    """`conv_layers` blocks, then flatten -> dense -> activation -> dropout -> output.

    Blocks are named conv1, conv2, ... in `features`. Where the methods have names of timm's models
    they mean the same, so that fine-tuning treats both alike (`Network`).
    """

    def __init__(self, params: CNNParams, *, image_size: int, num_classes: int) -> None:
        """Build the layers with PyTorch's default initialisation.

        Args:
            params: the architecture.
            image_size: height and width of the input, in pixels.
            num_classes: K, the length of the output.
        """
        super().__init__()
        self.features = nn.Sequential()
        channels = 3
        for k, filters in enumerate(params.filters, start=1):
            self.features.add_module(f"conv{k}", ConvBlock(channels, filters, params))
            channels = filters
        side = image_size // 2**params.conv_layers
        self.classifier = nn.Sequential(
            OrderedDict(
                flatten=nn.Flatten(),
                dense=nn.Linear(channels * side * side, params.num_neurons_dense),
                activation=ACTIVATIONS[params.activation](),
                dropout=nn.Dropout(params.dropout),
                output=nn.Linear(params.num_neurons_dense, num_classes),
            )
        )

    def forward(self, images: Tensor) -> Tensor:
        """Unnormalised scores: (B, 3, H, W) -> (B, K)."""
        return self.forward_head(self.forward_features(images))

    def forward_features(self, images: Tensor) -> Tensor:
        """Output of the last block: (B, 3, H, W) -> (B, F, h, w)."""
        features: Tensor = self.features(images)
        return features

    def forward_head(self, features: Tensor) -> Tensor:
        """Scores of the last block's output: (B, F, h, w) -> (B, K)."""
        scores: Tensor = self.classifier(features)
        return scores

    def get_classifier(self) -> nn.Linear:
        """Return the output layer."""
        output = self.classifier.output
        assert isinstance(output, nn.Linear)
        return output

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the output layer by a new one of `num_classes`."""
        self.classifier.output = nn.Linear(self.get_classifier().in_features, num_classes)

    @staticmethod
    def group_matcher(coarse: bool = False) -> dict[str, Any]:  # noqa: ARG004, FBT001, FBT002 - timm's
        """Blocks by the names of their modules, first to last: convolutions, then the dense layer.

        Source: https://huggingface.co/docs/timm (`group_with_matcher`).
        """
        last = (10_000,)
        return {"blocks": [(r"^features\.conv(\d+)", None), (r"^classifier\.dense", last)]}

    @property
    def blocks(self) -> dict[str, ConvBlock]:
        """The convolution blocks by name, first to last."""
        return {
            name: block
            for name, block in self.features.named_children()
            if isinstance(block, ConvBlock)
        }
