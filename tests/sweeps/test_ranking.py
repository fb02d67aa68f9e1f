"""Ranking of configurations; the bound is calculated by hand."""

import math
from datetime import UTC, datetime

import pytest

from fieldguide.sweeps.experiments import Trial
from fieldguide.sweeps.ranking import bound, rank, varying_keys


def trial(number, score, seed=None, *, pruned=False, **params):
    return Trial(
        name=f"b-{number:04d}_x",
        ref="",
        rev="",
        number=number,
        seed=seed,
        created=datetime(2026, 1, 1, tzinfo=UTC),
        params=params,
        metrics={"best.val_acc": score, "best.val_loss": score, "pruned": int(pruned)},
    )


def ranked(*trials, metric="val/acc", goal="maximize"):
    return [one.number for one in rank(list(trials), metric=metric, goal=goal)]


def test_bound_by_hand():
    # Mean 0.6, standard deviation 0.1, of 3: t(0.95, 2) = 2.91999 from a printed table.
    margin = 2.91999 * 0.1 / math.sqrt(3)
    assert bound([0.5, 0.6, 0.7], "maximize") == pytest.approx(0.6 - margin, abs=1e-6)
    assert bound([0.5, 0.6, 0.7], "minimize") == pytest.approx(0.6 + margin, abs=1e-6)
    # Of 2, t(0.95, 1) = tan(0.45 pi): the distribution is Cauchy's; s = 0.2 / sqrt(2).
    margin = math.tan(0.45 * math.pi) * 0.2 / math.sqrt(2) / math.sqrt(2)
    assert bound([0.5, 0.7], "maximize") == pytest.approx(0.6 - margin)
    assert bound([0.5], "maximize") == bound([0.5], "minimize") == 0.5


def test_the_bound_decides_not_the_mean():
    steady = [trial(1, score, seed) for seed, score in enumerate([0.70, 0.71, 0.72])]
    lucky = [trial(2, score, seed) for seed, score in enumerate([0.60, 0.75, 0.90])]
    found = rank([*lucky, *steady], metric="val/acc", goal="maximize")
    assert [one.number for one in found] == [1, 2]
    assert found[0].mean == pytest.approx(0.71)
    assert found[0].spread == pytest.approx(0.01)
    assert found[1].mean == pytest.approx(0.75)


def test_less_is_better_where_the_goal_says_so():
    trials = trial(1, 0.3), trial(2, 0.1), trial(3, 0.2)
    assert ranked(*trials) == [1, 3, 2]
    assert ranked(*trials, metric="val/loss", goal="minimize") == [2, 3, 1]


def test_equal_scores_keep_their_order():
    assert ranked(trial(3, 0.5), trial(1, 0.5), trial(2, 0.5)) == [1, 2, 3]


def test_pruned_and_incomplete_come_last():
    trials = [
        trial(1, 0.9, 0, pruned=True),
        trial(2, 0.8, 0),
        trial(3, 0.5, 0),
        trial(3, 0.5, 1),
        trial(4, 0.4, 0),
        trial(4, 0.4, 1),
    ]
    assert ranked(*trials) == [3, 4, 2, 1]


@pytest.mark.parametrize("score", [None, math.nan, math.inf, "0.5"])
def test_a_trial_without_a_finite_score_is_left_out(score):
    assert ranked(trial(1, score), trial(2, 0.5)) == [2]
    assert ranked(trial(1, score)) == []


def test_seeds_are_sorted_and_have_no_spread_alone():
    (one,) = rank([trial(1, 0.2, 1), trial(1, 0.4, 0)], metric="val/acc", goal="maximize")
    assert one.scores == [0.4, 0.2]
    (one,) = rank([trial(1, 0.2)], metric="val/acc", goal="maximize")
    assert one.spread is None


def test_varying_keys():
    trials = [
        trial(1, 0.5, 0, a=1, b="x", **{"train.seed": 0}),
        trial(1, 0.5, 1, a=1, b="x", **{"train.seed": 1}),
        trial(2, 0.5, 0, a=1, b="y", c=[1], **{"train.seed": 0}),
    ]
    assert varying_keys(trials) == ["b"]
    alone = [trial(1, 0.5, **{"train.seed": 0}), trial(2, 0.5, **{"train.seed": 1})]
    assert varying_keys(alone) == ["train.seed"]
    assert varying_keys([]) == []
