"""How much each parameter matters for the score, and in which direction.

Scores are means over seeds. Pruned configurations count too, with their best score so far, although
it is from an early epoch: the configurations that survive are alike and do not show what the others
lack.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import spearmanr
from sklearn.ensemble import RandomForestRegressor
from sklearn.inspection import permutation_importance

from fieldguide.sweeps.ranking import Configuration
from fieldguide.sweeps.scales import Parameter, show_value

FEWEST = 5  # configurations; a forest of fewer says nothing
_PAIRS = 3  # configurations; a correlation of fewer is always 1 or -1
_TREES, _REPEATS = 100, 5
_Vector = npt.NDArray[np.float64]  # (configurations,)


@dataclass(frozen=True)
class Influence:
    """The effect of one parameter on the score."""

    parameter: Parameter
    importance: float | None  # share of the sum, in [0, 1]; None if it cannot be estimated
    # Spearman's, in [-1, 1], None if either side does not vary; for each level of a category.
    correlations: list[tuple[str | None, float | None]]


def influences(
    ranked: Sequence[Configuration], parameters: Sequence[Parameter], *, seed: int = 0
) -> tuple[list[Influence], float | None]:
    """Return each parameter's importance for the score and its correlation with the score.

    Importance: how much worse a random forest predicts the scores when the parameter's values are
    shuffled (Breiman 2001, https://doi.org/10.1023/A:1010933404324), as a share of the sum over
    parameters. Correlation: Spearman's, because neither a logarithmic range nor one training that
    diverged can dominate it; booleans count as 0 and 1, and so does each level of a category.

    Args:
        ranked: configurations.
        parameters: those that vary; their values are in the order of `ranked`.
        seed: of the forest and of the shuffling.

    Returns:
        The most important parameter first; and the forest's out-of-bag R², None without a forest.
    """
    scores = np.array([one.mean for one in ranked])
    shares, explained = _importances(parameters, scores, seed=seed)
    rows = [
        Influence(parameter, share, _correlations(parameter, scores))
        for parameter, share in zip(parameters, shares, strict=True)
    ]
    return sorted(rows, key=lambda row: -(row.importance or 0)), explained


def _importances(
    parameters: Sequence[Parameter], scores: _Vector, *, seed: int
) -> tuple[list[float | None], float | None]:
    """Return the shares of the parameters and the forest's out-of-bag R²."""
    nothing: list[float | None] = [None] * len(parameters)
    if len(scores) < FEWEST or not parameters or np.ptp(scores) == 0:
        return nothing, None
    # One column for a category, so that it is shuffled as a whole; trees split it anywhere.
    table = np.array([parameter.positions() for parameter in parameters]).T
    forest = RandomForestRegressor(
        n_estimators=_TREES, min_samples_leaf=2, oob_score=True, random_state=seed, n_jobs=1
    ).fit(table, scores)
    found = permutation_importance(
        *(forest, table, scores),
        scoring="neg_mean_squared_error",
        n_repeats=_REPEATS,
        random_state=seed,
    )
    gains = np.clip(found.importances_mean, 0, None)
    if gains.sum() == 0:
        return nothing, float(forest.oob_score_)
    return [float(gain) for gain in gains / gains.sum()], float(forest.oob_score_)


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
