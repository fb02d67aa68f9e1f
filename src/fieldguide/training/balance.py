"""Training on classes of unequal size: weights of photos, or adjusted scores."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from fieldguide.core.errors import printable
from fieldguide.core.output import cut
from fieldguide.core.params import TrainParams

_IMBALANCED = 3  # photos of the largest class for each one of the smallest: a hint is printed above
_DIGITS = 6  # of weights and priors: the last digits of math.log differ between processors

# Takes scores (B, K), and labels (B,) or shares of labels (B, K) whose rows sum to 1; returns the
# mean over the batch.
Loss = Callable[[Tensor, Tensor], Tensor]


def make_loss(params: TrainParams, photos: list[int], device: torch.device) -> Loss:
    """Return the training loss: cross-entropy with label smoothing, balanced by `train.balance`.

    With `weights` it is the mean over photos of weight × cross-entropy. It does not divide by the
    weights of the batch, as PyTorch's own weighted mean does, so that a batch that several
    processes share has the same loss. A mixed photo counts as its photos, each by its share.

    With `logit_adjustment` the logarithm of each class's share of the photos is added to its score
    (Menon et al. 2020, equation 10 with tau 1, https://arxiv.org/abs/2007.07314). Validation and
    the saved network use the scores alone.

    Args:
        params: of the training.
        photos: training photos of each class.
        device: of the scores.
    """
    smoothing = params.label_smoothing
    if params.balance == "weights":
        weights = torch.tensor(class_weights(photos, params.balance_beta), device=device)

        def weighted(scores: Tensor, targets: Tensor) -> Tensor:
            if targets.ndim == 1:
                each, goals = weights[targets], targets
            else:
                shares = targets * weights  # (B, K)
                each = shares.sum(dim=1)
                goals = shares / each[:, None]
            losses = F.cross_entropy(scores, goals, reduction="none", label_smoothing=smoothing)
            return (each * losses).mean()

        return weighted
    if params.balance == "logit_adjustment":
        priors = torch.tensor(log_priors(photos), device=device)
        return lambda scores, targets: F.cross_entropy(
            scores + priors, targets, label_smoothing=smoothing
        )
    return lambda scores, targets: F.cross_entropy(scores, targets, label_smoothing=smoothing)


def class_weights(photos: list[int], beta: float) -> list[float]:
    """Return the weight of a photo of each class; their mean over all photos is 1.

    Args:
        photos: of each class; a class without photos has weight 0.
        beta: in [0, 1]. 1: the weight is proportional to 1 / n, for n photos of the class. Below 1:
            to (1 - beta) / (1 - beta^n), the inverse of the effective number of photos (Cui et al.
            2019, https://arxiv.org/abs/1901.05555). 0: all weights are equal.
    """
    parts = [(1 / n if beta == 1 else 1 / (1 - beta**n)) if n else 0.0 for n in photos]
    total = math.fsum(n * part for n, part in zip(photos, parts, strict=True))
    return [round(part * sum(photos) / total, _DIGITS) for part in parts]


def log_priors(photos: list[int]) -> list[float]:
    """Return the logarithm of each class's share of the photos; a class without any counts one."""
    return [round(math.log(max(n, 1) / sum(photos)), _DIGITS) for n in photos]


def imbalance_hint(photos: list[int], classes: list[str]) -> str | None:
    """Return a line about classes of very unequal size; None if they are not.

    Args:
        photos: training photos of each class.
        classes: their names.
    """
    most, least = max(photos), min(photos)
    if most <= _IMBALANCED * least:
        return None
    large, small = (cut(printable(classes[photos.index(n)])) for n in (most, least))
    return (
        f"Classes are imbalanced: {most:,} training photos of {large}, {least:,} of {small}; "
        "train.balance makes up for it (docs/recipe.md)"
    )
