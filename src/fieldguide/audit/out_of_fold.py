"""Probabilities of each photo from a linear model that has not seen it or its group."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

# Variance that the prior of the weights gives to a score, with any number of features: small, so
# that wrong labels are not learnt (benchmarks/audit.py).
_SCORE_VARIANCE = 1.0
_TOLERANCE = 1e-3  # of the gradient; smaller values hardly change the order of photos


class OutOfFold(NamedTuple):
    """What the linear models say of each photo."""

    probabilities: npt.NDArray[np.float64]  # (N, K); each row sums to 1
    # (N,), whether every fold has photos of the photo's class. The models learn too little of a
    # smaller class.
    known: npt.NDArray[np.bool_]


def draw_folds(
    labels: npt.NDArray[np.int64], groups: Sequence[str], *, folds: int, seed: int
) -> npt.NDArray[np.int64]:
    """Assign groups to folds so that the groups of each class are spread over all folds.

    The groups of a class, the largest first, go to the folds in turn. A group with photos of
    several classes counts as one of its first photo's class. scikit-learn's StratifiedGroupKFold
    does the same in a loop over the groups, which takes 0.14 ms for each of them.

    Args:
        labels: (N,), class index of each photo.
        groups: name of each photo's group.
        folds: number of folds.
        seed: of the order of groups of equal size.

    Returns:
        (N,), fold of each photo, in [0, folds).
    """
    _, first, group_of, sizes = np.unique(
        np.asarray(groups), return_index=True, return_inverse=True, return_counts=True
    )
    random = np.random.default_rng(seed).permutation(len(sizes))
    order = np.lexsort((random, -sizes, labels[first]))  # by class, then size, then at random
    fold_of_group = np.empty(len(sizes), dtype=np.int64)
    fold_of_group[order] = np.arange(len(sizes)) % folds
    return np.asarray(fold_of_group[group_of])


def out_of_fold(
    features: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int64],
    folds: npt.NDArray[np.int64],
    *,
    classes: int,
) -> OutOfFold:
    """Predict the photos of each fold by a logistic regression that is fitted without the fold.

    Args:
        features: (N, F).
        labels: (N,), in [0, classes).
        folds: (N,), fold of each photo.
        classes: K.
    """
    probabilities = np.zeros((len(labels), classes))
    numbers = np.unique(folds)
    places = np.array([np.bincount(labels[folds == fold], minlength=classes) for fold in numbers])
    known = np.isin(labels, np.flatnonzero(places.all(axis=0)))
    for fold in tqdm(numbers, "folds", leave=False, disable=None):
        held_out = folds == fold
        seen = np.unique(labels[~held_out])
        if len(seen) == 1:
            probabilities[held_out, seen[0]] = 1
            continue
        model = make_pipeline(
            StandardScaler(),
            LogisticRegression(C=_SCORE_VARIANCE / features.shape[1], tol=_TOLERANCE, max_iter=200),
        )
        model.fit(features[~held_out], labels[~held_out])
        probabilities[np.ix_(held_out, seen)] = model.predict_proba(features[held_out])
    return OutOfFold(probabilities, known)
