"""How far the classifier's confidence can be trusted: what can be taken without a look.

Readers import this module without scikit-learn, which takes a second. docs/trust.md explains the
numbers.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fieldguide.evaluation.intervals import Interval, wilson
from fieldguide.evaluation.predictions import Predictions

_POINTS = 100  # of the risk-coverage curve, at most
_TINY = 1e-300  # in place of a probability of 0, whose logarithm is infinite


class Trust(NamedTuple):
    """What metrics/trust.json holds: numbers of the test set beside those in test.json."""

    photos: int
    temperature: float | None  # None: not calibrated, because validation photos were trained on
    nll: float  # negative log-likelihood: mean of -ln(probability of the true class)
    nll_before: float  # before calibration
    ece: float  # expected calibration error
    ece_before: float
    target_precision: float | None  # None: not calibrated
    min_confidence: float | None  # None: no confidence reaches the target on the validation photos
    accepted: int  # photos with at least that confidence
    right: int  # of the accepted ones
    aurc: float  # area under the risk-coverage curve; lower is better

    @property
    def coverage(self) -> float:
        """Share of photos that can be left to the classifier."""
        return self.accepted / self.photos

    @property
    def precision_interval(self) -> Interval | None:
        """95 % interval (Wilson) of the share of right answers among the accepted photos."""
        return wilson(self.right, self.accepted)

    def losses(self) -> str:
        """Say what calibration did to the probabilities."""
        if self.temperature is None:
            return f"NLL {self.nll:.3f}, ECE {self.ece:.3f}, AURC {self.aurc:.4f}"
        return (
            f"before calibration NLL {self.nll_before:.3f} and ECE {self.ece_before:.3f}, after it "
            f"NLL {self.nll:.3f} and ECE {self.ece:.3f}; AURC {self.aurc:.4f}"
        )

    def summary(self) -> str:
        """Say in one or two sentences what can be left to the classifier."""
        if self.target_precision is None:
            return "Not calibrated, because the validation photos were trained on"
        asked = f"{100 * self.target_precision:.4g}%"
        if self.min_confidence is None:
            return (
                f"No photo can be taken as it comes: at no confidence are {asked} of the answers "
                "for validation photos right, beyond chance"
            )
        interval = self.precision_interval
        if interval is None:
            return f"No test photo has a confidence of {self.min_confidence:.1%} or more"
        rest = (
            f"{self.right / self.accepted:.1%} of them are right (95 % interval "
            f"{interval.low:.1%} to {interval.high:.1%}; {asked} were asked for)"
        )
        if self.min_confidence == 0:
            return f"All photos can be taken as they come: {rest}. No answer is unsure"
        return (
            f"{self.coverage:.1%} of photos can be taken as they come: {rest}. Answers with a "
            f"confidence below {self.min_confidence:.1%} are unsure"
        )


class Point(NamedTuple):
    """A point of the risk-coverage curve."""

    coverage: float  # share of photos that are accepted, the most confident first
    risk: float  # share of wrong answers among them
    confidence: float  # lowest among them


def accept(predictions: Predictions, min_confidence: float | None) -> tuple[int, int]:
    """Return how many photos have at least a confidence, and how many of them are right."""
    if min_confidence is None:
        return 0, 0
    accepted = predictions.confidence >= min_confidence
    right = accepted & (predictions.labels == predictions.predicted)
    return int(accepted.sum()), int(right.sum())


def negative_log_likelihood(predictions: Predictions) -> float:
    """Return the mean over photos of -ln(probability of the true class)."""
    rows = np.arange(len(predictions.labels))
    true = predictions.probabilities[rows, predictions.labels]
    return float(-np.log(np.maximum(true, _TINY)).mean())


def risks(predictions: Predictions) -> npt.NDArray[np.float64]:
    """Return the share of wrong answers among the k most confident photos, for k from 1 to N: (N,).

    Of equally confident photos, the wrong ones come first. So the order of the photos has no
    influence.
    """
    wrong = _most_confident_first(predictions)[1]
    return np.asarray(wrong.cumsum() / np.arange(1, len(wrong) + 1))


def aurc(predictions: Predictions) -> float:
    """Return the area under the risk-coverage curve: the mean of `risks`.

    Source: Geifman & El-Yaniv 2017, https://arxiv.org/abs/1705.08500.
    """
    return float(risks(predictions).mean())


def risk_coverage(predictions: Predictions) -> list[Point]:
    """Return the risk-coverage curve, at each percent of the photos, or at each photo if fewer."""
    confidence, risk = _most_confident_first(predictions)[0], risks(predictions)
    count = len(risk)
    points = min(_POINTS, count)
    shown = [-(-k * count // points) for k in range(1, points + 1)]  # accepted photos, rounded up
    return [Point(k / count, float(risk[k - 1]), float(confidence[k - 1])) for k in shown]


def _most_confident_first(
    predictions: Predictions,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Return the confidence of each photo and whether it is wrong: (N,) each."""
    right = predictions.labels == predictions.predicted
    order = np.lexsort((right, -predictions.confidence))
    return predictions.confidence[order], ~right[order]
