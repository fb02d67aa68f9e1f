"""Makes a tiny classifier."""

import torch

from fieldguide.core.params import CNNParams
from fieldguide.network.bundle import Bundle
from fieldguide.network.cnn import CNN
from fieldguide.network.preprocessing import Preprocessing

SETTINGS = {
    "conv_layers": 2,
    "first_layer_filters": 4,
    "filter_org": 2.0,
    "max_filters": 8192,
    "filters": "auto",
    "kernel_size": 3,
    "residual_units": 0,
    "whitening": False,
    "activation": "relu",
    "batch_norm": True,
    "norm_after_activation": False,
    "pooling": "flatten",
    "num_neurons_dense": 8,
    "dropout": 0.0,
}


def bundle_of(classes):
    """Return a CNN for 16 × 16 pixels with random weights."""
    architecture = CNNParams(**SETTINGS)
    torch.manual_seed(0)
    net = CNN(architecture, image_size=16, num_classes=len(classes))
    with torch.no_grad():
        net.get_classifier().weight.mul_(20)  # so that scores differ between photos
    return Bundle(
        net=net.eval(),
        architecture=architecture,
        classes=classes,
        image_size=16,
        resize="crop",
        preprocessing=Preprocessing(16, "bilinear", mean=[0.4, 0.5, 0.6], std=[0.1, 0.2, 0.3]),
        val_acc=0.625,
        started_from="none",
    )
