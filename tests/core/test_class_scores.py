"""Means over classes, by hand; tests/evaluation/test_metrics.py compares with scikit-learn."""

import numpy as np
import pytest

from fieldguide.core.scores import balanced_accuracy, macro_f1


def test_scores_of_several_resamples_by_hand():
    # Two resamples of three classes; the third class is neither shown nor predicted in the first.
    hits = np.array([[2, 3, 0], [1, 0, 0]])
    photos = np.array([[4, 3, 0], [2, 0, 1]])
    predicted = np.array([[2, 5, 0], [1, 2, 0]])
    # F1 = 2 hits / (photos + predicted): 4/6, 6/8; then 2/3, 0 and 0.
    assert macro_f1(hits, photos, predicted) == pytest.approx([(4 / 6 + 6 / 8) / 2, 2 / 9])
    # The second class has no photo in the second resample.
    assert balanced_accuracy(hits, photos) == pytest.approx([(2 / 4 + 3 / 3) / 2, (1 / 2 + 0) / 2])
