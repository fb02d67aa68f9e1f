"""Intervals and counts against other formulas."""

import math

import numpy as np
import pytest
from results import BEE, CLASSES, PAIRS
from sklearn.calibration import calibration_curve
from sklearn.metrics import f1_score

from fieldguide.evaluation.predictions import Predictions
from fieldguide.report.calibration import bins_of
from fieldguide.results.classes import (
    Mistake,
    class_scores,
    confusion_of,
    macro_f1_interval,
    wilson,
)


def wilson_by_formula(hits, count, z=1.959964):
    """Wilson 1927."""
    share = hits / count
    middle = share + z * z / (2 * count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count**2))
    return (middle - half) / (1 + z * z / count), (middle + half) / (1 + z * z / count)


@pytest.mark.parametrize(("hits", "count"), [(14, 20), (0, 4), (4, 4), (1, 1)])
def test_wilson(hits, count):
    assert wilson(hits, count) == pytest.approx(wilson_by_formula(hits, count), abs=1e-6)


def test_nothing_has_no_interval():
    assert wilson(0, 0) is None
    assert macro_f1_interval(confusion_of([])) is None


def test_mistakes_by_hand():
    confusion = confusion_of(PAIRS)
    assert confusion.names == [BEE, "ant", "crab"]
    assert confusion.counts.tolist() == [[4, 3, 1], [2, 6, 0], [0, 0, 4]]
    assert confusion.mistakes() == [
        Mistake(BEE, "ant", 3, 0.375),
        Mistake("ant", BEE, 2, 0.25),
        Mistake(BEE, "crab", 1, 0.125),
    ]


def test_class_scores_by_hand():
    found = {"ant": {"recall": 0.75, "precision": 6 / 9, "photos": 8}}
    (row,) = class_scores(found, confusion_of(PAIRS))
    assert row.recall_interval == pytest.approx(wilson_by_formula(6, 8), abs=1e-6)
    assert row.precision_interval == pytest.approx(wilson_by_formula(6, 9), abs=1e-6)
    assert row.mistaken == (BEE, 2)
    assert row.f1 == pytest.approx(12 / 17)  # 2 · 6 / (8 + 9)
    (bare,) = class_scores({"ant": {"recall": 0, "precision": 0, "photos": 0}}, None)
    assert (bare.recall_interval, bare.precision_interval, bare.mistaken) == (None, None, None)
    assert bare.f1 == 0


def test_bootstrap_of_macro_f1_agrees_with_scikit_learn_s_scores():
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 4, 300)
    called = np.where(rng.random(300) < 0.7, truth, rng.integers(0, 4, 300))
    low, high = macro_f1_interval(
        confusion_of([(str(a), str(b)) for a, b in zip(truth, called, strict=True)])
    )
    scores = []
    for _ in range(300):
        rows = rng.integers(0, 300, 300)
        scores.append(f1_score(truth[rows], called[rows], average="macro"))
    expected = np.quantile(scores, [0.025, 0.975])
    # Both are draws: an end's own spread is about 0.004 with 300 of them.
    assert [low, high] == pytest.approx(expected, abs=0.02)
    assert low < f1_score(truth, called, average="macro") < high


def test_a_class_that_is_never_drawn_is_left_out_of_the_mean():
    # Of one photo of b among 2 the resample has it or not; always right, hence always 1.
    assert macro_f1_interval(confusion_of([("a", "a"), ("b", "b")])) == (1.0, 1.0)


def test_bins_are_those_of_the_plot():
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet([0.5] * 3, 200)
    probabilities[0] = [0.4, 0.3, 0.3]  # on an edge of five bins
    labels = rng.integers(0, 3, 200)
    predictions = Predictions([""] * 200, CLASSES, labels, probabilities)
    hits = predictions.predicted == labels
    accuracy, mean = calibration_curve(hits, predictions.confidence, n_bins=5)
    found = bins_of(predictions, bins=5)
    assert [one.confidence for one in found] == pytest.approx(mean)
    assert [one.accuracy for one in found] == pytest.approx(accuracy)
    assert sum(one.photos for one in found) == 200
    first = found[0]
    expected = wilson_by_formula(round(first.accuracy * first.photos), first.photos)
    assert first.interval == pytest.approx(expected, abs=1e-6)
