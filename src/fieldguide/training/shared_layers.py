"""Layers that see a whole step's batch although each process has only a part of it.

With them several processes train what one would with all the photos, up to rounding.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from fieldguide.network.batches import Order


@dataclass
class Part:
    """Which photos of a step's batch this process has; set anew for every step."""

    rows: slice = field(default_factory=lambda: slice(0))
    whole: int = 0  # photos of the step, over all processes

    def of_step(self, order: Order, step: int) -> None:
        """Look up a step of an epoch, counted from 0."""
        self.rows, self.whole = order.part(step), order.step_size(step)

    @property
    def weight(self) -> float:
        """Of this process's mean loss: the mean over processes becomes the mean over photos."""
        own = self.rows.stop - self.rows.start
        return float(own * distributed.get_world_size() / self.whole)


def share_layers(net: nn.Module, part: Part) -> None:
    """Let batch norm and dropout act on the batch of all processes.

    In place and by instance: names of weights, and references to modules, stay as they are.
    PyTorch's SyncBatchNorm replaces modules and refuses a CPU; timm's own layers with batch norm
    inside derive from `_BatchNorm`.
    """
    for module in net.modules():
        if isinstance(module, _BatchNorm):
            module.forward = partial(_batch_norm, module)  # type: ignore[method-assign]
        elif type(module) is nn.Dropout:
            module.forward = partial(_dropout, module, part)  # type: ignore[method-assign]


def _dropout(dropout: nn.Dropout, part: Part, features: Tensor) -> Tensor:
    """Draw for the whole batch, as every process does from the same seed, and use the own rows."""
    if not dropout.training or dropout.p == 0:
        return features
    ones = features.new_ones((part.whole, *features.shape[1:]))
    return features * F.dropout(ones, dropout.p)[part.rows]


# TorchDynamo cannot follow collectives in an autograd function.
@torch.compiler.disable  # type: ignore[untyped-decorator]
def _batch_norm(norm: _BatchNorm, images: Tensor) -> Tensor:
    """Normalise (B, C, ...) by the mean and variance of all processes' images.

    Source: Ioffe & Szegedy 2015, algorithm 1 (https://arxiv.org/abs/1502.03167).
    """
    if not norm.training:  # frozen: nothing to share
        return type(norm).forward(norm, images)
    norm._check_input_dim(images)  # type: ignore[no-untyped-call]  # noqa: SLF001
    count, mean, variance = _statistics(images.detach())
    if norm.track_running_stats:
        _track(norm, count, mean, variance)
    scores: Tensor = _Normalise.apply(
        images, norm.weight, norm.bias, count, mean, variance, norm.eps
    )
    for name in ("drop", "act"):  # of timm's BatchNormAct2d
        if hasattr(norm, name):
            scores = getattr(norm, name)(scores)
    return scores


def _statistics(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return how many values a channel has in all processes, their mean (C,) and variance (C,).

    More exact than `F.batch_norm`, which on a CPU adds up in single precision in channels-last:
    1e-5 of the variance over 512 photos of 32 pixels, 1 % of gradients below it.

    Source: Chan et al. 1979, of parts of any size, without the cancellation of sums of squares.
    """
    dims = [0, *range(2, images.ndim)]
    variance, mean = torch.var_mean(images.float(), dims, correction=0)  # (B, C, ...) -> (C,)
    count = mean.new_full((1,), images.numel() // images.shape[1])
    own = torch.cat([mean, variance, count])  # (2C + 1,)
    every = [torch.empty_like(own) for _ in range(distributed.get_world_size())]
    distributed.all_gather(every, own)
    table = torch.stack(every)  # (processes, 2C + 1)
    means, variances, counts = table[:, : len(mean)], table[:, len(mean) : -1], table[:, -1:]
    count = counts.sum()
    mean = (means * counts).sum(0) / count
    squares = ((variances + (means - mean) ** 2) * counts).sum(0)
    return count, mean, squares / count


def _track(norm: _BatchNorm, count: Tensor, mean: Tensor, variance: Tensor) -> None:
    """Move the running statistics as PyTorch does; that of the variance is unbiased.

    There are two values or more: each process has a photo.
    """
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked.add_(1)
    momentum = norm.momentum
    if momentum is None:
        momentum = 1 / float(norm.num_batches_tracked)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.lerp_(mean, momentum)
    norm.running_var.lerp_(variance * count / (count - 1), momentum)


class _Normalise(torch.autograd.Function):
    """(x - mean) / sqrt(variance + eps) × weight + bias, where mean and variance depend on x too.

    Its gradient by x therefore has sums over all processes; those by weight and bias are the own
    ones, which DDP averages.
    """

    @staticmethod
    def forward(ctx: Any, images: Tensor, *by: Any) -> Tensor:
        weight, bias, count, mean, variance, eps = by
        ctx.save_for_backward(images, weight, count, mean, (variance + eps).rsqrt())
        return F.batch_norm(images, mean, variance, weight, bias, training=False, eps=eps)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        images, weight, count, mean, scale = ctx.saved_tensors
        (gradient,) = gradients
        dims = [0, *range(2, images.ndim)]
        shape = (1, -1, *[1] * (images.ndim - 2))  # (C,) -> (1, C, ...)
        centred = images.float() - mean.view(shape)
        upper = gradient.float()
        by_bias = upper.sum(dims)
        by_weight = (upper * centred).sum(dims) * scale
        sums = torch.stack([by_bias, by_weight])  # (2, C)
        distributed.all_reduce(sums)
        shift, slope = sums / count
        by_images = upper - shift.view(shape) - centred * (slope * scale).view(shape)
        by_images *= (scale if weight is None else scale * weight).view(shape)
        own = (None, None) if weight is None else (by_weight, by_bias)
        return by_images.to(images.dtype), *own, None, None, None, None
