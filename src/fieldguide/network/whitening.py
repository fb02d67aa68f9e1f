"""A fixed first layer that whitens small patches of photos."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_SIDE = 2  # pixels of a patch
_VALUES = 3 * _SIDE**2  # of a patch
# Added to each variance, so that directions of noise are not enlarged without limit.
_EPSILON = 5e-4
# Processors compute eigenvectors with other last digits, which would be other bytes.
_DECIMALS = 4


class Whitening(nn.Sequential):
    """conv -> ReLU: whitened patches of 2×2 pixels and their negatives.

    (B, 3, H, W) -> (B, 24, H, W). Colours and neighbouring pixels of a photo are nearly the same;
    the convolution's outputs for the training photos are uncorrelated and have one variance. Its
    filters are a buffer and not a parameter, so that no optimizer changes them.

    Source: Jordan 2024, section 3.2 (https://arxiv.org/abs/2404.00498).
    """

    conv: nn.Conv2d

    def __init__(self) -> None:
        """Make filters of zeros; `fit` or a state dict fills them."""
        conv = nn.Conv2d(
            3, 2 * _VALUES, _SIDE, padding="same", padding_mode="replicate", bias=False
        )
        zeros = torch.zeros_like(conv.weight.detach())
        del conv.weight
        conv.register_buffer("weight", zeros)
        super().__init__(OrderedDict(conv=conv, activation=nn.ReLU()))

    def fit(self, batches: Iterable[Tensor]) -> None:
        """Set the filters to the principal components of patches, each divided by its deviation.

        Args:
            batches: normalised images, (B, 3, H, W) each.
        """
        moments = torch.zeros(_VALUES, _VALUES, dtype=torch.float64)
        patches = 0
        for images in batches:
            found = F.unfold(images, _SIDE).double()  # (B, 12, patches of an image)
            moments += torch.einsum("bip,bjp->ij", found, found)
            patches += found.shape[0] * found.shape[2]
        variances, vectors = torch.linalg.eigh(moments / patches)  # components are columns
        largest = vectors.abs().argmax(dim=0, keepdim=True)
        vectors = vectors * vectors.gather(0, largest).sign()  # eigh may return either sign
        filters = (vectors / (variances + _EPSILON).sqrt()).T.flip(0)  # largest variance first
        filters = filters.round(decimals=_DECIMALS).float().view(_VALUES, 3, _SIDE, _SIDE)
        self.conv.weight.copy_(torch.cat([filters, -filters]))
