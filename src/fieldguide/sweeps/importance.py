"""How much each parameter matters for the score, and in which direction.

Of configurations, by their mean over seeds. Those pruned count too, with their best score so far,
although it is of an early epoch: those that survive are alike, and say nothing of what the others
lack.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import spearmanr
from sklearn.ensemble import RandomForestRegressor

from fieldguide.sweeps.ranking import Configuration
from fieldguide.sweeps.scales import Parameter, show_value

FEWEST = 5  # below which a forest says nothing
_PAIRS = 3  # below which a correlation is always 1 or -1
_TREES, _REPEATS = 100, 5
_Vector = npt.NDArray[np.float64]  # (configurations,)
_Table = npt.NDArray[np.float64]  # (configurations, parameters)


@dataclass(frozen=True)
class Influence:
    """What one parameter does to the score."""

    parameter: Parameter
    importance: float | None  # share of the sum, [0, 1]; None: cannot be told
    # Spearman's, [-1, 1], None where either does not vary; of a category one for each level.
    correlations: list[tuple[str | None, float | None]]


@dataclass(frozen=True)
class Influences:
    """All parameters, the most important first, and what they were found from."""

    rows: list[Influence]
    configurations: int
    with_pruned: bool
    explained: float | None  # out-of-bag R² of the forest; None: there is none


def influences(
    ranked: Sequence[Configuration], parameters: Sequence[Parameter], *, seed: int = 0
) -> Influences:
    """Return each parameter's importance for the score and its correlation with it.

    Importance: how much worse a random forest explains the scores when the parameter's values are
    shuffled (Breiman 2001, https://doi.org/10.1023/A:1010933404324), as a share of the sum over
    parameters. Correlation: Spearman's, which neither a logarithmic range nor one training that
    diverged can dominate; a boolean counts as 0 and 1, and so does each level of a category.

    Args:
        ranked: configurations.
        parameters: those that vary; their values are of `ranked`, in its order.
        seed: of the forest and of shuffling.
    """
    scores = np.array([one.mean for one in ranked])
    shares, explained = _importances(parameters, scores, seed=seed)
    rows = [
        Influence(parameter, share, _correlations(parameter, scores))
        for parameter, share in zip(parameters, shares, strict=True)
    ]
    return Influences(
        rows=sorted(rows, key=lambda row: -(row.importance or 0)),
        configurations=len(ranked),
        with_pruned=any(one.pruned for one in ranked),
        explained=explained,
    )


def _importances(
    parameters: Sequence[Parameter], scores: _Vector, *, seed: int
) -> tuple[list[float | None], float | None]:
    """Shares, and the forest's out-of-bag R²."""
    nothing: list[float | None] = [None] * len(parameters)
    if len(scores) < FEWEST or not parameters or np.ptp(scores) == 0:
        return nothing, None
    # One column each, so that a category is shuffled as a whole; trees split it wherever they like.
    table = np.array([parameter.positions() for parameter in parameters]).T
    forest = RandomForestRegressor(
        n_estimators=_TREES, min_samples_leaf=2, oob_score=True, random_state=seed, n_jobs=1
    ).fit(table, scores)
    gains = np.clip(_gains(forest, table, scores, seed=seed), 0, None)
    if gains.sum() == 0:
        return nothing, float(forest.oob_score_)
    return [float(gain) for gain in gains / gains.sum()], float(forest.oob_score_)


def _gains(forest: RandomForestRegressor, table: _Table, scores: _Vector, *, seed: int) -> _Vector:
    """By how much the squared error grows with each column shuffled.

    As scikit-learn's permutation_importance, but a column's repeats are predicted at once, which is
    three times as fast.
    """
    rng = np.random.default_rng(seed)
    whole = np.mean((forest.predict(table) - scores) ** 2)
    gains = []
    for column in range(table.shape[1]):
        shuffled = np.tile(table, (_REPEATS, 1))  # (configurations × repeats, parameters)
        shuffled[:, column] = np.concatenate(
            [rng.permutation(table[:, column]) for _ in range(_REPEATS)]
        )
        errors = (forest.predict(shuffled) - np.tile(scores, _REPEATS)) ** 2
        gains.append(float(np.mean(errors) - whole))
    return np.array(gains)


def _correlations(parameter: Parameter, scores: _Vector) -> list[tuple[str | None, float | None]]:
    if parameter.kind == "category":
        texts = np.array([show_value(value) for value in parameter.values])
        return [(level, _spearman(texts == level, scores)) for level in parameter.levels]
    known = np.array([value is not None for value in parameter.values])
    numbers = np.array([float(value or 0) for value in parameter.values])
    return [(None, _spearman(numbers[known], scores[known]))]


def _spearman(values: npt.NDArray[np.generic], scores: _Vector) -> float | None:
    numbers = values.astype(float)
    if len(numbers) < _PAIRS or np.ptp(numbers) == 0 or np.ptp(scores) == 0:
        return None
    return float(spearmanr(numbers, scores).statistic)
