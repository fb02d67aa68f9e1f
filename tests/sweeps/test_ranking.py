"""Ranking of configurations; the bound is calculated by hand."""

import math
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from optuna.distributions import CategoricalDistribution

from fieldguide.sweeps.ranking import bound, rank
from fieldguide.sweeps.space import EndedRun, Run, Sweep

START = datetime(2026, 1, 1, tzinfo=UTC)


def sweep(metric="val/acc", seeds=1):
    return Sweep(
        path=Path("sweeps/b.yaml"),
        name="b",
        method="random",
        metric=metric,
        space={"model.activation": CategoricalDistribution(["relu", "gelu"])},
        fixed={},
        lists=frozenset(),
        configurations=9,
        early_terminate=None,
        seeds=seeds,
        seed=0,
    )


def ended(number, score, index=0, *, stop_after=0, epochs=None, seconds=1.0, minute=0):
    overrides = {"model.activation": "gelu", "train.seed": index, "train.stop_after": stop_after}
    run = Run(number, index, stop_after, f"b-{number:04d}_x_s{index}", overrides)
    trained = epochs or stop_after or 20
    return EndedRun(run, score, trained, seconds, START + timedelta(minutes=minute))


def ranked(*runs, metric="val/acc", seeds=1):
    return [one.number for one in rank(runs, sweep(metric, seeds))]


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
    steady = [ended(1, score, index) for index, score in enumerate([0.70, 0.71, 0.72])]
    lucky = [ended(2, score, index) for index, score in enumerate([0.60, 0.75, 0.90])]
    first, second = rank([*lucky, *steady], sweep(seeds=3))
    assert (first.number, second.number) == (1, 2)
    assert first.mean == pytest.approx(0.71)
    assert first.spread == pytest.approx(0.01)
    assert second.mean == pytest.approx(0.75)


def test_less_is_better_for_a_loss():
    runs = ended(1, 0.3), ended(2, 0.1), ended(3, 0.2)
    assert ranked(*runs) == [1, 3, 2]
    assert ranked(*runs, metric="val/loss") == [2, 3, 1]


def test_equal_scores_are_ordered_by_number():
    assert ranked(ended(3, 0.5), ended(1, 0.5), ended(2, 0.5)) == [1, 2, 3]


def test_complete_comes_before_incomplete_before_paused():
    runs = [
        ended(1, 0.9, stop_after=3),
        ended(2, 0.5, stop_after=9),
        ended(3, 0.6, stop_after=9),
        ended(4, 0.8),
        ended(5, 0.4, 0),
        ended(5, 0.4, 1),
    ]
    # Of the paused ones, that which was trained further is better, whatever its score.
    assert ranked(*runs, seeds=2) == [5, 4, 3, 2, 1]
    states = [one.state for one in rank(runs, sweep(seeds=2))]
    assert states == ["complete", "incomplete", "paused", "paused", "paused"]


def test_a_training_that_early_stopping_ended_is_whole():
    stopped, paused = ended(1, 0.5, stop_after=9, epochs=7), ended(2, 0.6, stop_after=9)
    assert [one.state for one in rank([paused, stopped], sweep())] == ["complete", "paused"]


def test_all_runs_of_a_configuration_count():
    # In no order; the second rung repeats no epoch of the first.
    runs = [
        ended(1, 0.30, 1, epochs=15, seconds=40, minute=9),
        ended(1, 0.40, 0, epochs=20, seconds=30, minute=5),
        ended(1, 0.10, 0, stop_after=3, seconds=5, minute=1),
        ended(1, 0.20, 0, stop_after=9, seconds=10, minute=3),
    ]
    (one,) = rank(runs, sweep(seeds=2))
    assert one.name == "b-0001_x_s0"
    assert one.values == {"model.activation": "gelu"}
    assert one.scores == [0.40, 0.30]
    assert one.epochs == 20 + 15
    assert one.seconds == 85
    assert one.ended == START + timedelta(minutes=9)


def test_one_seed_has_no_spread():
    (one,) = rank([ended(1, 0.2)], sweep())
    assert one.spread is None
