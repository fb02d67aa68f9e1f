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
# Directions of less variance, such as the colours of grey photos, show nothing: they are left out.
# Rounding to 8 bits alone gives normalised photos, whose deviation is 1/4 of white, 2e-5.
_LEAST_VARIANCE = 3e-5
_PATCHES = 32  # in a row of an image; more hardly change the filters
# Last digits of eigenvectors differ between processors and numbers of threads.
_DECIMALS = 4


class Whitening(nn.Sequential):
    """conv -> ReLU: whitened patches of 2×2 pixels and their negatives.

    (B, 3, H, W) -> (B, 24, H, W). Colours and neighbouring pixels of a photo are nearly the same;
    the convolution's outputs for the training photos are uncorrelated and have one variance. Its
    filters are a buffer and not a parameter, so that no optimizer changes them.

    Source: Jordan 2024, section 3.2 (https://arxiv.org/abs/2404.00498).
    """

    conv: nn.Conv2d
    activation: nn.Module

    def __init__(self) -> None:
        """Make random filters; `fit` or a state dict replaces them."""
        conv = nn.Conv2d(
            3, 2 * _VALUES, _SIDE, padding="same", padding_mode="replicate", bias=False
        )
        weight = conv.weight.detach()
        del conv.weight
        conv.register_buffer("weight", weight)
        super().__init__(OrderedDict(conv=conv, activation=nn.ReLU()))

    def forward(self, images: Tensor) -> Tensor:
        """Whiten in single precision: small differences of large values are lost in 16 bits."""
        kind = images.device.type
        if torch.is_autocast_enabled(kind):
            with torch.autocast(kind, enabled=False):
                return self.forward(images.float())
        whitened: Tensor = self.activation(self.conv(images))
        return whitened

    def fit(self, batches: Iterable[Tensor]) -> None:
        """Set the filters to the principal components of patches, each divided by its deviation.

        Filters of directions in which the photos do not differ are zero.

        Args:
            batches: normalised images, (B, 3, H, W) each.
        """
        moments = torch.zeros(_VALUES, _VALUES, dtype=torch.float64)
        patches = 0
        for images in batches:
            step = max(1, images.shape[-1] // _PATCHES)  # between patches, in pixels
            found = F.unfold(images, _SIDE, stride=step).double()  # (B, 12, patches of an image)
            moments += (found @ found.mT).sum(0)
            patches += found.shape[0] * found.shape[2]
        variances, vectors = torch.linalg.eigh(moments / patches)  # components are columns
        largest = vectors.abs().argmax(dim=0, keepdim=True)
        vectors = vectors * vectors.gather(0, largest).sign()  # eigh may return either sign
        gains = (variances > _LEAST_VARIANCE) / (variances + _EPSILON).sqrt()
        filters = (vectors * gains).T.flip(0)  # largest variance first
        filters = filters.round(decimals=_DECIMALS).float().view(_VALUES, 3, _SIDE, _SIDE)
        self.conv.weight.copy_(torch.cat([filters, -filters]))
