"""Confident learning: which labels are probably wrong.

Source: Northcutt, Jiang and Chuang, Confident Learning: Estimating Uncertainty in Dataset Labels,
2021, https://arxiv.org/abs/1911.00068.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Probabilities = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]


class LabelDoubts(NamedTuple):
    """What confident learning says of N photos of K classes."""

    suggested: Labels  # (N,), the most probable class other than the label
    suggested_probability: Probabilities  # (N,)
    own_probability: Probabilities  # (N,), of the label
    score: Probabilities  # (N,), in [0, 1]: 1 if the suggestion is certain, 0 if the label is
    doubtful: npt.NDArray[np.bool_]  # (N,), whether the label is probably wrong


def doubt_labels(probabilities: Probabilities, labels: Labels) -> LabelDoubts:
    """Find labels that are probably wrong.

    The confident joint estimates how many photos with one label are of each other class. As many
    labels are doubtful: those with the largest margins ("prune by noise rate", section 3.2), if
    the other class is more probable than the label.

    Args:
        probabilities: (N, K), out of fold.
        labels: (N,), in [0, K).
    """
    rows = np.arange(len(labels))
    own = probabilities[rows, labels]
    others = probabilities.copy()
    others[rows, labels] = -1
    suggested = others.argmax(axis=1)
    best = probabilities[rows, suggested]
    margin = best - own  # in [-1, 1], "normalized margin" (section 3.2)
    joint = confident_joint(probabilities, labels)
    doubtful = _largest_margins(probabilities, labels, joint) & (margin > 0)
    return LabelDoubts(suggested, best, own, (margin + 1) / 2, doubtful)


def confident_joint(probabilities: Probabilities, labels: Labels) -> npt.NDArray[np.float64]:
    """Estimate the number of photos by label (row) and true class (column).

    A photo is confidently of a class if its probability reaches the class's threshold, which is
    the mean probability of the class among the photos with its label; of several such classes the
    most probable one counts. So a class that the model is seldom sure of has a low threshold
    (section 3.1).

    Args:
        probabilities: (N, K), out of fold.
        labels: (N,), in [0, K).

    Returns:
        (K, K); each row sums to the number of photos with this label.
    """
    rows, classes = np.arange(len(labels)), probabilities.shape[1]
    counts = np.bincount(labels, minlength=classes)
    sums = np.bincount(labels, probabilities[rows, labels], classes)
    thresholds = sums / np.maximum(counts, 1)
    thresholds[counts == 0] = np.inf  # no photo is confidently of a class without photos
    reached = probabilities >= thresholds
    confident = np.where(reached, probabilities, -1).argmax(axis=1)
    joint = np.zeros((classes, classes))
    np.add.at(joint, (labels[reached.any(axis=1)], confident[reached.any(axis=1)]), 1)
    # Calibrate: rows get the sums of the labels, which are known (equation 3).
    totals = joint.sum(axis=1, keepdims=True)
    joint = np.where(totals > 0, joint / np.maximum(totals, 1), np.eye(classes))
    return np.asarray(joint * counts[:, None])


def _largest_margins(
    probabilities: Probabilities, labels: Labels, joint: npt.NDArray[np.float64]
) -> npt.NDArray[np.bool_]:
    """Choose, of each label and other class, as many photos as `joint` says: (N,)."""
    chosen = np.zeros(len(labels), dtype=bool)
    wanted = np.rint(joint).astype(np.int64)
    for label in range(len(joint)):
        rows = (labels == label).nonzero()[0]
        for other in wanted[label].nonzero()[0]:
            if other != label:
                margins = probabilities[rows, other] - probabilities[rows, label]
                chosen[rows[np.argsort(-margins, kind="stable")[: wanted[label, other]]]] = True
    return chosen
