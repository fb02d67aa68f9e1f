"""Compare how soon Optuna's samplers find good configurations.

    python benchmarks/bayes_against_random.py --seeds 0 1 2 --out facts.json
    python benchmarks/samplers.py facts.json

A random forest predicts the score of a configuration instead of a training, so that many searches
can be compared; it is fitted to the real trainings of the random searches in facts.json. Each
sampler searches 40 configurations, two at a time like `fieldguide sweep run -j 2`, with 20 seeds.
Prints the best score found after 10, 20 and 40 configurations: mean over seeds and its standard
error.
"""

from __future__ import annotations

import argparse
import json
import statistics
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from sklearn.ensemble import RandomForestRegressor
from sklearn.model_selection import cross_val_score

TRIALS, WORKERS, AFTER = 40, 2, (10, 20, 40)


def main() -> None:
    """Fit the forest and compare the samplers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("facts", type=Path, help="file that bayes_against_random.py --out wrote")
    parser.add_argument("--seeds", type=int, default=20)
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    trials = [
        trial
        for search in json.loads(options.facts.read_text(encoding="utf-8"))
        for trial in search["random"]
    ]
    space, score = fit_forest(trials)
    samplers: dict[str, Callable[[int], Any]] = {
        "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
        "TPE": lambda seed: optuna.samplers.TPESampler(seed=seed, multivariate=False),
        "TPE, multivariate": lambda seed: optuna.samplers.TPESampler(seed=seed, multivariate=True),
        "Gaussian process": lambda seed: optuna.samplers.GPSampler(seed=seed),
    }
    print(f"{'sampler':<18}" + "".join(f"{f'best of {count}':>20}" for count in AFTER))
    for name, make in samplers.items():
        bests = [search(make(seed), space, score) for seed in range(options.seeds)]
        cells = []
        for column in zip(*bests, strict=True):
            error = statistics.stdev(column) / len(column) ** 0.5
            cells.append(f"{statistics.fmean(column):.4f} ± {error:.4f}")
        print(f"{name:<18}" + "".join(f"{cell:>20}" for cell in cells), flush=True)


def fit_forest(trials: list[dict[str, Any]]) -> tuple[dict[str, Any], Callable[[Any], float]]:
    """Return the search space of the trials, and a function that predicts a score."""
    keys = [key for key in trials[0]["values"] if len({str(t["values"][key]) for t in trials}) > 1]
    levels = {key: sorted({trial["values"][key] for trial in trials}, key=str) for key in keys}
    space: dict[str, Any] = {}
    for key in keys:
        if len(levels[key]) > len(trials) // 2:  # a continuous range: here the learning rate
            values = [trial["values"][key] for trial in trials]
            space[key] = optuna.distributions.FloatDistribution(min(values), max(values), log=True)
        else:
            space[key] = optuna.distributions.CategoricalDistribution(levels[key])

    def encode(values: dict[str, Any]) -> list[float]:
        row = []
        for key in keys:
            continuous = isinstance(space[key], optuna.distributions.FloatDistribution)
            row.append(np.log(values[key]) if continuous else levels[key].index(values[key]))
        return row

    x = np.array([encode(trial["values"]) for trial in trials])
    y = np.array([trial["score"] for trial in trials])
    forest = RandomForestRegressor(200, random_state=0, min_samples_leaf=2)
    r2 = cross_val_score(forest, x, y, cv=5).mean()
    forest.fit(x, y)
    print(f"{len(trials)} real trainings, cross-validated R² of the forest {r2:.2f}")
    return space, lambda values: float(forest.predict([encode(values)])[0])


def search(sampler: Any, space: dict[str, Any], score: Callable[[Any], float]) -> list[float]:
    """Return the best score after each count of AFTER, with WORKERS trials running at a time."""
    study = optuna.create_study(direction="maximize", sampler=sampler)
    running: list[Any] = []
    scores: list[float] = []
    while len(scores) < TRIALS:
        running.append(study.ask(space))
        if len(running) == WORKERS:
            trial = running.pop(0)
            scores.append(score(trial.params))
            study.tell(trial, scores[-1])
    return [max(scores[:count]) for count in AFTER]


if __name__ == "__main__":
    main()
