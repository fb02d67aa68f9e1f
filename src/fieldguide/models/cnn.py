"""The course work's network: convolution blocks that halve the image, then a dense layer."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from fieldguide.params import ModelParams

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

    def __init__(self, channels: int, filters: int, params: ModelParams) -> None:
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


class CNN(nn.Module):
    """`conv_layers` blocks, then flatten -> dense -> activation -> dropout -> output.

    Blocks are named conv1, conv2, ... in `features`.
    """

    def __init__(self, params: ModelParams, *, image_size: int, num_classes: int) -> None:
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
        scores: Tensor = self.classifier(self.features(images))
        return scores

    @property
    def blocks(self) -> dict[str, ConvBlock]:
        """The convolution blocks by name, first to last."""
        return {
            name: block
            for name, block in self.features.named_children()
            if isinstance(block, ConvBlock)
        }
