"""Probabilities that a classifier gives to the photos of a split."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fieldguide.core.store import Split
from fieldguide.network.batches import in_order
from fieldguide.network.bundle import Bundle


def predict_split(
    bundle: Bundle, split: Split, *, mirrored: bool = False, portable: bool = False
) -> npt.NDArray[np.float64]:
    """Compute the calibrated probability of each class for each photo; arguments of `score_split`.

    Returns:
        (N, K), in the order of the split; each row sums to 1.
    """
    scores = score_split(bundle, split, mirrored=mirrored, portable=portable)
    return np.asarray(bundle.probabilities(scores).numpy())


@torch.inference_mode()
def score_split(
    bundle: Bundle, split: Split, *, mirrored: bool = False, portable: bool = False
) -> Tensor:
    """Compute the network's scores, on the GPU if there is one.

    Args:
        bundle: the classifier.
        split: photos of the size that the classifier takes.
        mirrored: show the classifier the mirror image of each photo.
        portable: use the CPU, whose bytes are the same on every machine.

    Returns:
        (N, K), float64, on the CPU, in the order of the split.
    """
    device = torch.device("cuda" if torch.cuda.is_available() and not portable else "cpu")
    net = bundle.net.eval().to(device)
    batches = in_order(split, bundle.preprocessing, device)
    shown = (images.flip(-1) if mirrored else images for images, _ in batches)
    scores = [net(images).double().cpu() for images in shown]  # (B, K) each
    net.to("cpu")
    return torch.cat(scores)
