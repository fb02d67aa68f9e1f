"""What matters for the score, where the answer is known beforehand."""

from datetime import UTC, datetime

import numpy as np
import pytest

from fieldguide.sweeps.experiments import Trial
from fieldguide.sweeps.importance import FEWEST, influences
from fieldguide.sweeps.ranking import Configuration
from fieldguide.sweeps.scales import MISSING, describe


def study(columns, scores, pruned=()):
    """Configurations with these scores, and their parameters."""
    ranked = []
    for number, score in enumerate(scores):
        trial = Trial(
            name=f"b-{number:04d}_x",
            ref="",
            rev="",
            number=number,
            seed=None,
            created=datetime(2026, 1, 1, tzinfo=UTC),
            params={},
            metrics={"pruned": int(number in pruned)},
        )
        ranked.append(Configuration(number, [trial], [score], {}, score))
    return ranked, describe(columns)


def by_label(rows):
    return {row.parameter.label: row for row in rows}


def test_what_decides_comes_first_and_shares_sum_to_one():
    rng = np.random.default_rng(0)
    columns = {
        "model.noise": rng.uniform(0, 1, 80).tolist(),
        "train.learning_rate": (10 ** rng.uniform(-5, -1, 80)).tolist(),
        "model.activation": rng.choice(["relu", "mish"], 80).tolist(),
        "model.flag": rng.choice([True, False], 80).tolist(),
    }
    scores = [
        -((np.log10(rate) + 3) ** 2) / 10 + 0.2 * (activation == "mish")
        for rate, activation in zip(
            columns["train.learning_rate"], columns["model.activation"], strict=True
        )
    ]
    rows, explained = influences(*study(columns, scores))
    assert [row.parameter.label for row in rows[:2]] == ["learning_rate", "activation"]
    assert sum(row.importance for row in rows) == pytest.approx(1)
    assert by_label(rows)["noise"].importance < 0.05
    assert by_label(rows)["flag"].importance < 0.05
    assert explained > 0.7
    again, _ = influences(*study(columns, scores))
    assert [row.importance for row in again] == [row.importance for row in rows]


def test_correlations_by_hand():
    # Spearman's rho = 1 - 6 sum(d^2) / (n (n^2 - 1)), where no ranks are equal.
    columns = {
        "a": [1e-5, 1e-4, 1e-3, 1e-2, 1e-1],  # ranks 1 2 3 4 5; scores' 2 1 3 5 4: d^2 = 4
        "flag": [False, False, True, True, True],
        "name": ["x", "x", "y", "z", "z"],
    }
    scores = [0.2, 0.1, 0.3, 0.9, 0.4]
    rows = by_label(influences(*study(columns, scores))[0])
    assert rows["a"].correlations == [(None, pytest.approx(1 - 6 * 4 / (5 * 24)))]
    # Equal ranks: Pearson's of ranks. 1.5 1.5 4 4 4 (mean 3) with 2 1 3 5 4 (mean 3):
    # covariance 1.5 + 3 + 0 + 2 + 1 = 7.5, squares 2 * 2.25 + 3 * 1 = 7.5 and 10.
    by_ranks = 7.5 / (7.5 * 10) ** 0.5
    assert rows["flag"].correlations == [(None, pytest.approx(by_ranks))]
    levels = dict(rows["name"].correlations)
    assert levels["x"] == pytest.approx(-by_ranks)
    # y: 1 of 5, whose score is the median.
    assert levels["y"] == pytest.approx(0)
    assert levels["z"] == pytest.approx(by_ranks)


def test_pruned_count_with_their_score_so_far():
    # Those trained to the end have all one value; only the others tell that it is the better one.
    columns = {"model.batch_norm": [True] * 10 + [False] * 10}
    scores = [0.6 + k / 100 for k in range(10)] + [0.2 + k / 100 for k in range(10)]
    rows, _ = influences(*study(columns, scores, pruned=range(10, 20)))
    ((_, correlation),) = rows[0].correlations
    # Pearson's of ranks: 5.5 and 15.5 with 1 to 20: covariance 5 * 100, squares 20 * 25 and 665.
    assert correlation == pytest.approx(500 / (500 * 665) ** 0.5)


@pytest.mark.parametrize("count", range(1, FEWEST))
def test_too_few_to_tell(count):
    columns = {"a": list(range(count)), "b": ["x"] * count}
    rows, explained = influences(*study(columns, [0.1 * k for k in range(count)]))
    assert [row.importance for row in rows] == [None, None]
    assert explained is None
    value = by_label(rows)["a"].correlations[0][1]
    assert value == (None if count < 3 else pytest.approx(1))


def test_equal_scores_tell_nothing():
    rows, _ = influences(*study({"a": list(range(20))}, [0.5] * 20))
    assert rows[0].importance is None
    assert rows[0].correlations == [(None, None)]


def test_a_parameter_that_a_trial_does_not_have():
    columns = {
        "a": [1, 2, None, 4, 5, float("nan")],
        "name": ["x", None, "x", "y", "y", "y"],
    }
    rows = by_label(influences(*study(columns, [0.1, 0.2, 0.9, 0.4, 0.5, 0.0]))[0])
    assert rows["a"].correlations == [(None, pytest.approx(1))]
    assert [level for level, _ in rows["name"].correlations] == ["x", "y", MISSING]
    assert sum(row.importance for row in rows.values()) == pytest.approx(1)


def test_no_parameters():
    assert influences(*study({}, [0.1, 0.2])) == ([], None)
