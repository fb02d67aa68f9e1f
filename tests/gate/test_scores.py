"""Scores as sums are the scores of evaluate."""

import numpy as np
import pytest

from fieldguide.evaluation.metrics import evaluate
from fieldguide.evaluation.predictions import Predictions
from fieldguide.gate.scores import calibration_error, macro_f1, right, right_in_top3


@pytest.fixture(params=[2, 3, 7])
def predictions(request):
    """Of 400 photos; one class of many has no photo."""
    rng = np.random.default_rng(request.param)
    size = request.param
    probabilities = rng.dirichlet(np.full(size, 0.5), 400)
    probabilities[0] = np.eye(size)[0]  # a confidence of exactly 1 has a bin too
    return Predictions(
        sources=[str(k) for k in range(400)],
        classes=[f"c{k}" for k in range(size)],
        labels=rng.integers(0, max(2, size - 1), 400),
        probabilities=probabilities,
    )


@pytest.mark.parametrize("bins", [2, 15, 100])
def test_each_score_is_that_of_evaluate(predictions, bins):
    expected = evaluate(predictions, bins=bins)
    assert right(predictions).mean() == pytest.approx(expected.acc)
    assert right_in_top3(predictions).mean() == pytest.approx(expected.top3_acc)
    assert macro_f1(predictions).value == pytest.approx(expected.macro_f1)
    ours = calibration_error(predictions, bins=bins).value
    assert ours == pytest.approx(expected.ece, abs=1e-6)  # theirs is computed in float32


def test_equal_probabilities_go_as_in_evaluate():
    probabilities = np.full((5, 5), 0.2)
    predictions = Predictions(list("abcde"), list("vwxyz"), np.arange(5), probabilities)
    assert right_in_top3(predictions).mean() == evaluate(predictions, bins=2).top3_acc == 0.6
