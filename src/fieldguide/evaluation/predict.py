"""Probabilities that a classifier gives to the photos of a split."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from fieldguide.core.store import Split
from fieldguide.network.batches import in_order
from fieldguide.network.bundle import Bundle


@torch.inference_mode()
def predict_split(
    bundle: Bundle, split: Split, *, mirrored: bool = False, portable: bool = False
) -> npt.NDArray[np.float64]:
    """Compute the probability of each class for each photo, on the GPU if there is one.

    Args:
        bundle: the classifier.
        split: photos of the size that the classifier takes.
        mirrored: show the classifier the mirror image of each photo.
        portable: use the CPU, whose bytes are the same on every machine.

    Returns:
        (N, K), in the order of the split; each row sums to 1.
    """
    device = torch.device("cuda" if torch.cuda.is_available() and not portable else "cpu")
    net = bundle.net.eval().to(device)
    batches = in_order(split, bundle.preprocessing, device)
    shown = (images.flip(-1) if mirrored else images for images, _ in batches)
    probabilities = [net(images).double().softmax(dim=1).cpu() for images in shown]  # (B, K) each
    net.to("cpu")
    return np.asarray(torch.cat(probabilities).numpy())
