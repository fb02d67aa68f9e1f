"""Build a network by the name of its architecture: our CNN or a model of timm."""

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
        architecture: settings of the CNN, or the name of a model of timm.
        input_size: height and width of the input, in pixels.
        num_classes: K, the length of the output.
        dropout: before the output layer of a model of timm; the CNN has its own in `architecture`.
        timm_options: passed on to `timm.create_model`, for example where to find weights.
    """
    if isinstance(architecture, CNNParams):
        return CNN(architecture, image_size=input_size, num_classes=num_classes)
    import timm  # noqa: PLC0415 - takes two seconds, which the CNN does not need

    # A network such as ViT is built for one size; timm adapts pretrained weights to another one.
    config = timm.get_pretrained_cfg(architecture)
    if config is not None and config.fixed_input_size:
        timm_options["img_size"] = input_size
    net = timm.create_model(
        architecture, num_classes=num_classes, drop_rate=dropout, **timm_options
    )
    return cast("Network", net)
