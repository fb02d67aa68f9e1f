"""What can be left to the classifier: every number by hand."""

import math

import numpy as np
import pytest

from fieldguide.evaluation.predictions import Predictions
from fieldguide.evaluation.trust import (
    Point,
    Trust,
    accept,
    aurc,
    negative_log_likelihood,
    risk_coverage,
    risks,
)

TRUST = Trust(
    photos=200,
    temperature=1.25,
    nll=0.5,
    nll_before=0.75,
    ece=0.02,
    ece_before=0.0625,
    target_precision=0.95,
    min_confidence=0.834,
    accepted=124,
    right=120,
    aurc=0.05,
)


def predictions_of(confidence, right):
    """Photos of two classes that are predicted with these confidences, above one half."""
    rows = np.array([[value, 1 - value] for value in confidence])
    labels = np.array([0 if hit else 1 for hit in right])
    return Predictions([f"{k}.jpg" for k in range(len(labels))], ["a", "b"], labels, rows)


# From the most confident on: right, right, wrong, right, wrong.
FIVE = predictions_of([0.7, 0.95, 0.6, 0.8, 0.9], [True, True, False, False, True])


def test_risk_coverage_and_its_area_by_hand():
    expected = [0, 0, 1 / 3, 1 / 4, 2 / 5]
    assert risks(FIVE).tolist() == expected
    assert aurc(FIVE) == pytest.approx((1 / 3 + 1 / 4 + 2 / 5) / 5)
    shown = zip([0.2, 0.4, 0.6, 0.8, 1.0], expected, [0.95, 0.9, 0.8, 0.7, 0.6], strict=True)
    assert risk_coverage(FIVE) == [Point(*one) for one in shown]


def test_a_perfect_order_and_no_mistake():
    assert aurc(predictions_of([0.9, 0.8], [True, True])) == 0
    assert aurc(predictions_of([0.9, 0.8], [False, False])) == 1
    # Half of the photos are wrong: last, or first.
    assert aurc(predictions_of([0.9, 0.8, 0.7, 0.6], [1, 1, 0, 0])) == pytest.approx(
        (1 / 3 + 1 / 2) / 4
    )
    assert aurc(predictions_of([0.9, 0.8, 0.7, 0.6], [0, 0, 1, 1])) == pytest.approx(
        (1 + 1 + 2 / 3 + 1 / 2) / 4
    )


def test_of_equally_confident_photos_the_wrong_ones_come_first():
    for right in ([True, False], [False, True]):
        assert risks(predictions_of([0.8, 0.8], right)).tolist() == [1, 0.5]


def test_the_curve_has_a_point_for_each_percent():
    rng = np.random.default_rng(0)
    predictions = predictions_of(rng.uniform(0.5, 1, 250), rng.random(250) < 0.8)
    points = risk_coverage(predictions)
    assert [one.coverage for one in points[:3]] == [3 / 250, 5 / 250, 8 / 250]  # 2.5 is 3
    assert len(points) == 100
    assert points[-1].coverage == 1
    assert points[-1].risk == (predictions.labels == 1).mean()


@pytest.mark.parametrize(
    ("smallest", "expected"),
    [(None, (0, 0)), (0.8, (3, 2)), (0.801, (2, 2)), (0.0, (5, 3)), (0.96, (0, 0))],
)
def test_accepted_photos_and_right_ones_among_them(smallest, expected):
    assert accept(FIVE, smallest) == expected


def test_negative_log_likelihood_by_hand():
    true = [0.7, 0.95, 0.4, 0.2, 0.9]
    assert negative_log_likelihood(FIVE) == pytest.approx(-sum(map(math.log, true)) / 5)
    # A true class of probability 0 is a mistake that counts much, but not endlessly.
    assert negative_log_likelihood(predictions_of([1.0], [False])) == pytest.approx(690.8, abs=0.1)


def test_summary():
    # Wilson's interval for 120 of 124, by hand: centre 0.953686, half width 0.033947.
    assert TRUST.summary() == (
        "62.0% of photos can be taken as they come: 96.8% of them are right (95 % interval 92.0% "
        "to 98.7%; 95% were asked for). Answers with a confidence below 83.4% are unsure"
    )
    assert TRUST._replace(min_confidence=None, accepted=0, right=0).summary() == (
        "No photo can be taken as it comes: at no confidence are 95% of the answers for "
        "validation photos right, beyond chance"
    )
    assert (
        TRUST._replace(min_confidence=0.0)
        .summary()
        .endswith("95% were asked for). No answer is unsure")
    )
    assert TRUST._replace(accepted=0, right=0).summary() == (
        "No test photo has a confidence of 83.4% or more"
    )
    assert TRUST._replace(temperature=None, target_precision=None).summary() == (
        "Not calibrated, because the validation photos were trained on"
    )
