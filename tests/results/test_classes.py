"""Scores of classes and their intervals, against other formulas."""

import math
from functools import partial

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, f1_score

from fieldguide.evaluation.intervals import wilson
from fieldguide.results.classes import (
    ClassScores,
    Mistake,
    bootstrap_intervals,
    class_scores,
    confusion_of,
)

# 14 of 20 photos are right.
PAIRS = (
    [("ant", "ant")] * 6
    + [("ant", "bee")] * 2
    + [("bee", "bee")] * 4
    + [("bee", "ant")] * 3
    + [("bee", "crab")]
    + [("crab", "crab")] * 4
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


def test_without_photos_there_is_no_interval():
    assert wilson(0, 0) is None
    assert bootstrap_intervals(confusion_of([])) == {}


def test_mistakes_by_hand():
    confusion = confusion_of(PAIRS)
    assert confusion.names == ["ant", "bee", "crab"]
    assert confusion.photos == 20
    assert confusion.counts.tolist() == [[6, 2, 0], [3, 4, 1], [0, 0, 4]]
    assert confusion.shares[1].tolist() == [0.375, 0.5, 0.125]
    assert confusion.mistakes() == [
        Mistake("bee", "ant", 3, 0.375),
        Mistake("ant", "bee", 2, 0.25),
        Mistake("bee", "crab", 1, 0.125),
    ]


def test_class_scores_by_hand():
    row, none, called = class_scores(
        ["ant", "dove", "emu"], confusion_of([*PAIRS, ("crab", "emu")])
    )
    assert (row.name, row.photos, row.recall, row.precision) == ("ant", 8, 0.75, 6 / 9)
    assert row.recall_interval == pytest.approx(wilson_by_formula(6, 8), abs=1e-6)
    assert row.precision_interval == pytest.approx(wilson_by_formula(6, 9), abs=1e-6)
    assert row.mistaken == ("bee", 2)
    assert row.f1 == pytest.approx(12 / 17)  # 2 · 6 / (8 + 9)
    assert none == ClassScores("dove", 0, 0.0, None, 0.0, None, None)  # neither shown nor predicted
    assert none.f1 == 0
    assert (called.photos, called.recall_interval, called.precision) == (0, None, 0.0)
    assert called.precision_interval == pytest.approx(wilson_by_formula(0, 1), abs=1e-6)


@pytest.mark.parametrize(
    ("name", "score"),
    [("bal_acc", balanced_accuracy_score), ("macro_f1", partial(f1_score, average="macro"))],
)
def test_bootstrap_agrees_with_scikit_learn(name, score):
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 4, 300)
    called = np.where(rng.random(300) < 0.7, truth, rng.integers(0, 4, 300))
    low, high = bootstrap_intervals(
        confusion_of([(str(a), str(b)) for a, b in zip(truth, called, strict=True)])
    )[name]
    scores = []
    for _ in range(300):
        rows = rng.integers(0, 300, 300)
        scores.append(score(truth[rows], called[rows]))
    expected = np.quantile(scores, [0.025, 0.975])
    # Both are random: an end's standard deviation is about 0.004 with 300 resamples.
    assert [low, high] == pytest.approx(expected, abs=0.02)
    assert low < score(truth, called) < high


def test_a_class_that_is_never_drawn_is_left_out_of_the_mean():
    # A resample of the two photos may hold only one class; all are right, so that both are 1.
    found = bootstrap_intervals(confusion_of([("a", "a"), ("b", "b")]))
    assert found == {"bal_acc": (1.0, 1.0), "macro_f1": (1.0, 1.0)}
