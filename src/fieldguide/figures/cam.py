"""Grad-CAM: where the network looked; for networks that guided backprop has no rule for.

Source: Selvaraju et al. 2017, section 3 (https://arxiv.org/abs/1610.02391).
"""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn import functional as F

from fieldguide.core.store import Split
from fieldguide.evaluation.predictions import Predictions
from fieldguide.figures.canvas import pairs, short, show_heat, show_photo
from fieldguide.figures.drawn_layers import as_maps
from fieldguide.figures.saliency import network_input
from fieldguide.network.bundle import Bundle
from fieldguide.network.interface import Network


def grad_cam(net: Network, image: Tensor, label: int) -> Tensor:
    """Weight the last feature maps by the mean gradient of a class's score.

    Args:
        net: in eval mode.
        image: (1, 3, H, W), normalised.
        label: index of the class.

    Returns:
        (H, W), 0 or more; all 0 if nothing supports the class, or if the features have no places.
    """
    features: list[Tensor] = []
    layer = _last_token_layer(net)
    image = image.detach().requires_grad_()  # so that a frozen network has gradients too
    if layer is None:
        features.append(net.forward_features(image))
        score = net.forward_head(features[0])[0, label]
    else:
        with layer.register_forward_hook(lambda _module, _inputs, out: features.append(out)):
            score = net(image)[0, label]
    (gradient,) = torch.autograd.grad(score, features[0])
    maps, slopes = as_maps(net, features[0].detach()), as_maps(net, gradient)  # (F, h, w) each
    if maps is None or slopes is None:
        return torch.zeros(image.shape[-2:])
    weights = slopes.mean(dim=(1, 2), keepdim=True)  # (F, 1, 1)
    heat = F.relu((weights * maps).sum(dim=0))  # -> (h, w)
    size = tuple(image.shape[-2:])
    return F.interpolate(heat[None, None], size, mode="bilinear", align_corners=False)[0, 0]


def _last_token_layer(net: Network) -> nn.Module | None:
    """Return the first layer of a transformer's last block, or None for other networks.

    After that block, only the class token has a gradient.
    """
    blocks = getattr(net, "blocks", None)
    if not hasattr(net, "num_prefix_tokens") or not isinstance(
        blocks, nn.Sequential | nn.ModuleList
    ):
        return None
    norm = getattr(blocks[-1], "norm1", None)
    return norm if isinstance(norm, nn.Module) else None


def cam_figure(
    bundle: Bundle, predictions: Predictions, test: Split, *, count: int, rng: np.random.Generator
) -> Figure:
    """Draw random test photos, each beside what the network looked at for its predicted class."""
    rows = np.sort(rng.choice(len(test), min(count, len(test)), replace=False))
    figure, grid = pairs(
        len(rows),
        title=f"Grad-CAM of {len(rows)} random test photos",
        subtitle="left: the photo and its true class; "
        "right: where the network looked for the predicted class (bright: most)",
    )
    for (photo, explained), row in zip(grid, rows, strict=False):
        pixels = test.images(np.array([row]))[0]
        label = int(predictions.predicted[row])
        show_photo(photo, pixels)
        photo.set_title(short(bundle.classes[test.labels[row]]), fontsize=9, pad=4)
        heat = grad_cam(bundle.net, network_input(bundle, test, int(row)), label)
        show_heat(explained, pixels, (heat / heat.max().clamp_min(1e-12)).numpy())
        explained.set_title(f"→ {short(bundle.classes[label])}", fontsize=9, pad=4)
    return figure
