"""All scores of the test set, compared with hand arithmetic or with a formula written out here."""

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, f1_score

from fieldguide.evaluation.calibration import bin_of, reliability
from fieldguide.evaluation.metrics import evaluate
from fieldguide.evaluation.predictions import Predictions


def predictions_of(labels, guesses, classes="abc", confidence=0.8):
    """Each photo's guess has `confidence`; the other classes share the rest."""
    count, size = len(labels), len(classes)
    confidence = np.broadcast_to(confidence, (count,))
    probabilities = np.repeat(((1 - confidence) / (size - 1))[:, None], size, axis=1)
    probabilities[np.arange(count), guesses] = confidence
    return Predictions(
        sources=[f"{k}.jpg" for k in range(count)],
        classes=list(classes),
        labels=np.array(labels, dtype=np.int64),
        probabilities=probabilities,
    )


def random_predictions(count, size, seed=0):
    rng = np.random.default_rng(seed)
    return Predictions(
        sources=[f"{k}.jpg" for k in range(count)],
        classes=[f"class {k}" for k in range(size)],
        labels=rng.integers(size, size=count),
        probabilities=rng.dirichlet(np.ones(size) / 2, size=count),
    )


def calibration_error(predictions, bins):
    """Guo et al. 2017, equation 3, one bin (low, high] after the other."""
    hits = predictions.probabilities.argmax(axis=1) == predictions.labels
    confidence = predictions.probabilities.max(axis=1)
    error = 0.0
    for k in range(bins):
        here = (confidence > k / bins) & (confidence <= (k + 1) / bins)
        if here.any():
            error += here.mean() * abs(hits[here].mean() - confidence[here].mean())
    return error


def test_accuracy_is_the_share_of_hits():
    result = evaluate(predictions_of([0] * 10, [0] * 7 + [1] * 3), bins=15)
    assert (result.photos, result.acc) == (10, 0.7)


#           predicted  a  b  c
# true a (4 photos)    2  1  1
# true b (3 photos)    0  3  0
# true c (1 photo)     1  0  0
TOY_LABELS = [0, 0, 0, 0, 1, 1, 1, 2]
TOY_GUESSES = [0, 0, 1, 2, 1, 1, 1, 0]


def test_precision_recall_and_macro_f1_of_three_classes_by_hand():
    result = evaluate(predictions_of(TOY_LABELS, TOY_GUESSES), bins=15)
    assert [c.name for c in result.per_class] == ["a", "b", "c"]
    assert [c.photos for c in result.per_class] == [4, 3, 1]
    assert [c.precision for c in result.per_class] == pytest.approx([2 / 3, 3 / 4, 0])
    assert [c.recall for c in result.per_class] == pytest.approx([2 / 4, 1, 0])
    # F1 = 2 hits / (predicted + true): 4/7, 6/7, 0
    assert result.macro_f1 == pytest.approx((4 / 7 + 6 / 7 + 0) / 3)
    assert result.acc == 5 / 8
    assert result.bal_acc == pytest.approx((2 / 4 + 1 + 0) / 3)


def test_a_class_without_photos_has_recall_0_and_no_effect_on_means():
    result = evaluate(predictions_of([0, 0, 1], [0, 0, 1]), bins=15)
    assert result.per_class[2] == ("c", 0.0, 0.0, 0)
    assert (result.macro_f1, result.bal_acc) == (1, 1)  # of the two classes that occur


def test_a_class_without_photos_that_was_predicted_counts_in_macro_f1():
    result = evaluate(predictions_of([0, 0, 1], [0, 2, 1]), bins=15)
    # F1: 2 * 1 / (1 + 2), 1 and 0
    assert result.macro_f1 == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert result.bal_acc == pytest.approx((1 / 2 + 1) / 2)  # of the classes that have photos
    assert result.per_class[2].precision == 0


def test_scores_per_class_are_those_of_scikit_learn():
    predictions = random_predictions(300, 7)
    result = evaluate(predictions, bins=15)
    pair = predictions.labels, predictions.predicted
    assert result.bal_acc == pytest.approx(balanced_accuracy_score(*pair))
    assert result.macro_f1 == pytest.approx(f1_score(*pair, average="macro"))


def test_top3_of_four_classes_by_hand():
    # True class 0 is ranked first, second, third and last.
    probabilities = np.array(
        [[0.7, 0.1, 0.15, 0.05], [0.3, 0.4, 0.2, 0.1], [0.2, 0.4, 0.3, 0.1], [0.1, 0.4, 0.3, 0.2]]
    )
    predictions = Predictions([*"wxyz"], [*"abcd"], np.zeros(4, dtype=np.int64), probabilities)
    result = evaluate(predictions, bins=15)
    assert result.top3_acc == 3 / 4
    assert result.acc == 1 / 4


@pytest.mark.parametrize("classes", ["ab", "abc"])
def test_top3_of_at_most_three_classes_is_always_right(classes):
    assert evaluate(predictions_of([0, 1], [1, 0], classes=classes), bins=15).top3_acc == 1


@pytest.mark.parametrize("size", [4, 10])
def test_top3_of_random_predictions(size):
    predictions = random_predictions(200, size)
    ranked = np.argsort(-predictions.probabilities, axis=1)[:, :3]
    expected = np.mean(
        [label in row for label, row in zip(predictions.labels, ranked, strict=True)]
    )
    assert evaluate(predictions, bins=15).top3_acc == pytest.approx(expected)


@pytest.mark.parametrize("bins", [2, 15, 100])
@pytest.mark.parametrize("size", [2, 3, 10])
def test_calibration_error_of_random_predictions(bins, size):
    predictions = random_predictions(500, size, seed=size)
    expected = calibration_error(predictions, bins)
    assert evaluate(predictions, bins=bins).ece == pytest.approx(expected, abs=1e-6)


def test_calibration_error_by_hand():
    # Confidence 0.9: 1 of 2 right, gap 0.4. Confidence 0.6: 2 of 2 right, gap 0.4.
    predictions = predictions_of([0, 0, 1, 1], [0, 1, 1, 1], confidence=[0.9, 0.9, 0.6, 0.6])
    result = evaluate(predictions, bins=10)
    assert result.ece == pytest.approx(2 / 4 * abs(0.5 - 0.9) + 2 / 4 * abs(1 - 0.6), abs=1e-6)
    points = reliability(predictions, bins=10)
    assert points == [pytest.approx((0.6, 1.0, 2)), pytest.approx((0.9, 0.5, 2))]


def test_an_edge_belongs_to_the_bin_below_it():
    confidence = np.array([0.0, 0.1, 0.25, 0.26, 0.5, 0.75, 0.76, 1.0])
    assert bin_of(confidence, 4).tolist() == [0, 0, 0, 1, 1, 2, 3, 3]
    assert bin_of(confidence, 1).tolist() == [0] * 8


def test_perfectly_calibrated_predictions_have_no_error():
    # Of ten photos at confidence 0.8 eight are right.
    predictions = predictions_of([0] * 10, [0] * 8 + [1] * 2, confidence=0.8)
    assert evaluate(predictions, bins=15).ece == pytest.approx(0, abs=1e-6)
    assert reliability(predictions, bins=15) == [pytest.approx((0.8, 0.8, 10))]


@pytest.mark.parametrize("bins", [2, 15])
def test_reliability_points_of_random_predictions(bins):
    predictions = random_predictions(500, 3, seed=7)
    hits = predictions.predicted == predictions.labels
    expected = []
    for k in range(bins):
        here = (predictions.confidence > k / bins) & (predictions.confidence <= (k + 1) / bins)
        if here.any():
            expected.append((predictions.confidence[here].mean(), hits[here].mean(), here.sum()))
    found = reliability(predictions, bins=bins)
    np.testing.assert_allclose(found, expected, atol=1e-9)


@pytest.mark.parametrize("guess", [0, 1])
def test_all_right_and_all_wrong(guess):
    predictions = predictions_of([0] * 5, [guess] * 5, confidence=1.0)
    result = evaluate(predictions, bins=15)
    assert result.acc == 1 - guess
    assert result.ece == pytest.approx(guess)
    assert reliability(predictions, bins=15) == [(1.0, 1.0 - guess, 5)]
