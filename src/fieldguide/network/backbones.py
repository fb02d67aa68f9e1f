"""Networks by their architecture: the CNN, or one of timm's."""

from __future__ import annotations

from typing import Any, cast

from fieldguide.core.params import CNNParams
from fieldguide.network.cnn import CNN
from fieldguide.network.interface import Network


def build(
    architecture: CNNParams | str,
    *,
    input_size: int,
    num_classes: int,
    dropout: float = 0.0,
    **timm_options: Any,
) -> Network:
    """Build a network with random weights.

    Args:
        architecture: that of the CNN, or the name of a model of timm.
        input_size: height and width of the input, in pixels.
        num_classes: K, the length of the output.
        dropout: before the output layer of a model of timm; the CNN's is part of its architecture.
        timm_options: for `timm.create_model`, as where weights come from.
    """
    if isinstance(architecture, CNNParams):
        return CNN(architecture, image_size=input_size, num_classes=num_classes)
    import timm  # noqa: PLC0415 - two seconds that the cnn need not wait

    # Networks such as ViT are built for one size, and timm adapts their weights to another.
    config = timm.get_pretrained_cfg(architecture)
    if config is not None and config.fixed_input_size:
        timm_options["img_size"] = input_size
    net = timm.create_model(
        architecture, num_classes=num_classes, drop_rate=dropout, **timm_options
    )
    return cast("Network", net)
