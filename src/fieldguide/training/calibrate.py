"""Calibrate a trained network on the validation photos; docs/trust.md says what it means."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from torch import Tensor

from fieldguide.network.bundle import softmax
from fieldguide.network.calibration import TEMPERATURES, Calibration

_STEPS = 40  # bisections of the temperature, far more than its digits need
_DIGITS = 4  # of the temperature: later ones differ between processors
_THRESHOLDS = 1000  # confidences that are tried: 0, 0.001, ..., 0.999
_CHANCE = 0.05  # 1 - confidence level of the interval of the precision
_FEWEST = 100  # photos for a temperature; that of fewer may do harm (docs/trust.md)


def calibrate(scores: Tensor, labels: Tensor, *, target_precision: float) -> Calibration:
    """Find the temperature of a network, and the confidence from which its answers can be trusted.

    Args:
        scores: (N, K), of the validation photos, N at least 1, in any order. With fewer than 100
            photos the temperature is 1.
        labels: (N,), their classes.
        target_precision: share of right answers that is asked for, in (0.5, 1).
    """
    scores = scores.double()
    temperature = find_temperature(scores, labels) if len(labels) >= _FEWEST else 1.0
    confidence, predicted = softmax(scores, temperature).max(dim=1)
    right = (predicted == labels).numpy()
    return Calibration(
        temperature=temperature,
        target_precision=target_precision,
        min_confidence=find_min_confidence(confidence.numpy(), right, target_precision),
    )


def find_temperature(scores: Tensor, labels: Tensor) -> float:
    """Return the temperature with the lowest negative log-likelihood (NLL); 1 if there is none.

    The NLL is convex in 1 / temperature. Its slope there is the mean over photos of the expected
    score minus the score of the true class. Bisection finds where it is 0, to more digits than a
    search for the lowest value.

    Args:
        scores: (N, K), float64.
        labels: (N,), true classes. If all photos are classified correctly, the NLL has no minimum.

    Source: Guo et al. 2017, section 4.2 (https://arxiv.org/abs/1706.04599).
    """
    if bool((scores.argmax(dim=1) == labels).all()):
        return 1.0
    true = scores.gather(1, labels[:, None])[:, 0]  # (N,)
    low, high = TEMPERATURES
    for _ in range(_STEPS):
        middle = math.sqrt(low * high)
        expected = (softmax(scores, middle) * scores).sum(dim=1)  # (N, K) -> (N,)
        # An exact sum does not depend on the order of the photos or the processor.
        if math.fsum((expected - true).tolist()) > 0:
            low = middle  # too confident
        else:
            high = middle
    return round(low, _DIGITS)


def find_min_confidence(
    confidence: npt.NDArray[np.float64], right: npt.NDArray[np.bool_], target: float
) -> float | None:
    """Return the lowest confidence whose answers reach a precision beyond chance.

    The answers are those with at least this confidence. The lower end of the one-sided 95 %
    Clopper-Pearson interval of their precision is at least the target. In other words: if their
    true precision were the target, so many right answers or more would have a probability of at
    most 5 %.

    Many confidences are tried, and the lowest that passes is taken. So the true precision is below
    the target more often than in 5 % of trainings where it stays just below the target over a wide
    range of confidences; then little is missing. docs/trust.md has the numbers, of simulations in
    tests/training/test_calibrate.py.

    Args:
        confidence: (N,), probability of the predicted class, in [0, 1].
        right: (N,), whether that is the true class.
        target: share of right answers, in (0.5, 1).

    Returns:
        A multiple of 0.001; None if no confidence reaches the target.

    Source: Clopper & Pearson 1934 (https://doi.org/10.1093/biomet/26.4.404).
    """
    from scipy.special import bdtrc  # noqa: PLC0415 - no need to wait for it at the start

    order = np.argsort(confidence)
    # Right answers among the k least confident photos, for k from 0 to N.
    below = np.concatenate([[0], right[order].cumsum()])
    thresholds = np.arange(_THRESHOLDS) / _THRESHOLDS
    first = np.searchsorted(confidence[order], thresholds)  # the first photo that is accepted
    accepted, hits = len(right) - first, below[-1] - below[first]
    # bdtrc(k, n, p): probability of more than k hits of n.
    chance = bdtrc(hits - 1, accepted, target)
    passed = np.flatnonzero(chance <= _CHANCE)
    return float(thresholds[passed[0]]) if len(passed) else None


def describe(calibration: Calibration | None, photos: int) -> str:
    """Return a line for the terminal.

    Args:
        calibration: of the classifier.
        photos: number of validation photos.
    """
    if calibration is None:
        return "Not calibrated: the validation photos were trained on"
    share = f"{100 * calibration.target_precision:.4g}%"
    found = f"Temperature {calibration.temperature:g}"
    found += f" (under {_FEWEST} validation photos); " if photos < _FEWEST else "; "
    smallest = calibration.min_confidence
    if smallest is None:
        # So many photos show the target if all are right.
        needed = math.ceil(math.log(_CHANCE) / math.log(calibration.target_precision))
        if photos < needed:
            return f"{found}{photos} validation photos cannot show {share}; {needed} are needed"
        return (
            f"{found}at no confidence are {share} of the answers right on the validation photos, "
            "beyond chance"
        )
    if smallest == 0:
        return (
            f"{found}no answer is unsure: at least {share} of all are right on the validation "
            "photos, beyond chance"
        )
    return (
        f"{found}answers with a confidence below {smallest:.1%} are unsure: at least {share} of "
        "the others are right on the validation photos, beyond chance"
    )
