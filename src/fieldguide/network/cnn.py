"""The CNN of the course work: convolution blocks that halve the image, then dense layers."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from torch import Tensor, nn

from fieldguide.core.params import CNNParams
from fieldguide.network.interface import Network
from fieldguide.network.whitening import Whitening

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "mish": nn.Mish,
}


class ConvBlock(nn.Sequential):
    """conv -> [norm] -> activation -> max-pool [-> norm] -> residual units.

    (B, C, H, W) -> (B, F, H/2, W/2).
    """

    conv: nn.Conv2d
    activation: nn.Module
    pool: nn.Module

    def __init__(self, channels: int, filters: int, kernel: int, params: CNNParams) -> None:
        norm: dict[str, nn.Module] = {"norm": nn.BatchNorm2d(filters)} if params.batch_norm else {}
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        # No bias if batch norm, which has its own, follows directly.
        bias = not params.batch_norm or params.norm_after_activation
        layers["conv"] = nn.Conv2d(channels, filters, kernel, padding="same", bias=bias)
        layers |= {} if params.norm_after_activation else norm
        layers["activation"] = ACTIVATIONS[params.activation]()
        layers["pool"] = nn.MaxPool2d(2)
        layers |= norm if params.norm_after_activation else {}
        for k in range(1, params.residual_units + 1):
            layers[f"residual{k}"] = ResidualUnit(filters, kernel, params)
        super().__init__(layers)

    def forward(self, images: Tensor) -> Tensor:
        """Apply the layers; in training with ReLU, pool first, so that ReLU has a quarter to do.

        The order does not change the result, because ReLU is monotonic. In eval mode the order
        stays as written, because figures show the activation before pooling.
        """
        layers = list(self)
        if self.training and isinstance(self.activation, nn.ReLU):
            k = layers.index(self.activation)
            layers[k : k + 2] = [self.pool, self.activation]
        for layer in layers:
            images = layer(images)
        return images


class ResidualUnit(nn.Module):
    """conv -> [norm] -> activation -> conv -> [norm], plus a shortcut, then an activation.

    (B, F, H, W) in and out. Source: He et al. 2016, figure 2 (https://arxiv.org/abs/1512.03385).
    """

    def __init__(self, filters: int, kernel: int, params: CNNParams) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(2):
            bias = not params.batch_norm
            layers.append(nn.Conv2d(filters, filters, kernel, padding="same", bias=bias))
            layers += [nn.BatchNorm2d(filters)] if params.batch_norm else []
            layers.append(ACTIVATIONS[params.activation]())
        self.activation = layers.pop()
        self.layers = nn.Sequential(*layers)

    def forward(self, features: Tensor) -> Tensor:
        """Add the output of the convolutions to their input, then activate."""
        added: Tensor = self.activation(features + self.layers(features))
        return added


class CNN(Network):
    """[whitening ->] `conv_layers` blocks -> flatten or average -> [dense ->] dropout -> output.

    An activation follows the dense layer. Blocks are named conv1, conv2, ... in `features`. Methods
    have the names that timm's models use, so that fine-tuning treats both alike (`Network`).
    """

    def __init__(self, params: CNNParams, *, image_size: int, num_classes: int) -> None:
        """Build the layers with PyTorch's default initialisation.

        Args:
            params: settings of the architecture.
            image_size: height and width of the input, in pixels.
            num_classes: K, the length of the output.
        """
        super().__init__()
        channels = 3
        self.whitening = Whitening() if params.whitening else None
        if self.whitening is not None:
            channels = self.whitening.conv.out_channels
        self.features = nn.Sequential()
        sizes = zip(params.widths, params.kernels, strict=True)
        for k, (filters, kernel) in enumerate(sizes, start=1):
            self.features.add_module(f"conv{k}", ConvBlock(channels, filters, kernel, params))
            channels = filters
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        if params.pooling == "average":
            layers["average"] = nn.AdaptiveAvgPool2d(1)
        else:
            channels *= (image_size // 2**params.conv_layers) ** 2
        layers["flatten"] = nn.Flatten()
        if params.num_neurons_dense > 0:
            layers["dense"] = nn.Linear(channels, params.num_neurons_dense)
            layers["activation"] = ACTIVATIONS[params.activation]()
            channels = params.num_neurons_dense
        layers["dropout"] = nn.Dropout(params.dropout)
        layers["output"] = nn.Linear(channels, num_classes)
        self.classifier = nn.Sequential(layers)

    def forward(self, images: Tensor) -> Tensor:
        """Unnormalised scores: (B, 3, H, W) -> (B, K)."""
        return self.forward_head(self.forward_features(images))

    def forward_features(self, images: Tensor) -> Tensor:
        """Output of the last block: (B, 3, H, W) -> (B, F, h, w)."""
        if self.whitening is not None:
            images = self.whitening(images)
        features: Tensor = self.features(images)
        return features

    def forward_head(self, features: Tensor) -> Tensor:
        """Scores from the output of the last block: (B, F, h, w) -> (B, K)."""
        scores: Tensor = self.classifier(features)
        return scores

    def get_classifier(self) -> nn.Linear:
        """Return the output layer."""
        output = self.classifier.output
        assert isinstance(output, nn.Linear)
        return output

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the output layer by a new one with `num_classes` outputs."""
        self.classifier.output = nn.Linear(self.get_classifier().in_features, num_classes)

    @staticmethod
    def group_matcher(coarse: bool = False) -> dict[str, Any]:  # noqa: ARG004, FBT001, FBT002 - timm's
        """Describe the blocks by names of parameters: convolution blocks, then the dense layer.

        Source: https://huggingface.co/docs/timm (`group_parameters`).
        """
        last = (10_000,)
        return {"blocks": [(r"^features\.conv(\d+)", None), (r"^classifier\.dense", last)]}

    @property
    def blocks(self) -> dict[str, ConvBlock]:
        """The convolution blocks by name, first to last."""
        children = self.features.named_children()
        return {name: block for name, block in children if isinstance(block, ConvBlock)}
