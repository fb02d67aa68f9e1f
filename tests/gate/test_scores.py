"""The gate's scores, computed as sums, equal those of `evaluate`."""

import numpy as np
import pytest

from fieldguide.evaluation.metrics import evaluate
from fieldguide.evaluation.predictions import Predictions
from fieldguide.gate.scores import (
    balanced_accuracy,
    calibration_error,
    macro_f1,
    right,
    right_in_top3,
)


def table(labels, probabilities):
    photos, classes = probabilities.shape
    sources, names = (
        [f"{letter}{k}" for k in range(n)] for letter, n in (("s", photos), ("c", classes))
    )
    return Predictions(sources, names, labels, probabilities)


@pytest.fixture(params=[2, 3, 7])
def predictions(request):
    """Predictions of 400 photos; of many classes, one has no photo."""
    rng = np.random.default_rng(request.param)
    size = request.param
    probabilities = rng.dirichlet(np.full(size, 0.5), 400)
    return table(rng.integers(0, max(2, size - 1), 400), probabilities)


@pytest.mark.parametrize("bins", [1, 2, 15, 100])
def test_each_score_equals_that_of_evaluate(predictions, bins):
    expected = evaluate(predictions, bins=bins)
    assert right(predictions).mean() == pytest.approx(expected.acc)
    assert right_in_top3(predictions).mean() == pytest.approx(expected.top3_acc)
    assert balanced_accuracy(predictions).value == pytest.approx(expected.bal_acc)
    assert macro_f1(predictions).value == pytest.approx(expected.macro_f1)
    assert calibration_error(predictions, bins=bins).value == pytest.approx(expected.ece)


@pytest.mark.parametrize("bins", [2, 4, 10, 15])
def test_confidences_on_the_edges_of_bins_count_as_in_evaluate(bins):
    # Each edge from 0.5 to 1, the doubles beside it, and a little more than 1, as float32 may give.
    edges = np.linspace(0, 1, bins + 1)
    near = np.concatenate([edges, np.nextafter(edges, 0), np.nextafter(edges, 2), [1 + 1e-7]])
    confidence = near[near >= 0.5]
    rng = np.random.default_rng(bins)
    labels = rng.integers(0, 2, len(confidence))
    predictions = table(labels, np.stack([confidence, 1 - confidence], axis=1))
    expected = evaluate(predictions, bins=bins).ece
    assert calibration_error(predictions, bins=bins).value == pytest.approx(expected, abs=1e-12)


def test_bins_exclude_their_lower_edge_and_the_last_one_includes_1():
    # By hand: 0.5 lies in (0, 0.5], 0.6 and 1 in (0.5, 1]; all three photos are wrong.
    wrong = table(np.array([1, 1, 1]), np.array([[0.5, 0.5], [0.6, 0.4], [1.0, 0.0]]))
    hits = table(np.array([1, 0, 0]), wrong.probabilities)
    assert calibration_error(wrong, bins=2).value == pytest.approx((0.5 + 1.6) / 3)
    assert calibration_error(hits, bins=2).value == pytest.approx((0.5 + abs(2 - 1.6)) / 3)


def test_equal_probabilities_are_ranked_as_in_evaluate():
    predictions = table(np.arange(5), np.full((5, 5), 0.2))
    assert right_in_top3(predictions).mean() == evaluate(predictions, bins=2).top3_acc == 0.6
