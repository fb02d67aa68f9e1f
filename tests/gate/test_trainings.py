"""The gate on real trainings: seven seeds pass each other, three bad models fail.

`python benchmarks/gate.py ../gate-trainings --outcomes FILE` writes trainings.csv. Its docstring
says what was trained.
"""

import csv
import itertools
from pathlib import Path

import numpy as np
import pytest

from fieldguide.core.params import load_yaml
from fieldguide.evaluation.predictions import Predictions
from fieldguide.gate.checks import Checks
from fieldguide.gate.judge import judge

ROOT = Path(__file__).resolve().parents[2]
CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
SEEDS = [f"seed-{seed}" for seed in range(7)]


@pytest.fixture(scope="module")
def models(make_results):
    """Each model's predictions of the 1,000 test photos of the sample."""
    with Path(__file__).with_name("trainings.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    labels = np.array([int(row["true"]) for row in rows])

    def model(name):
        answers = np.array([int(row[f"{name} answer"]) for row in rows])
        confidence = np.array([float(row[f"{name} confidence"]) for row in rows])
        probabilities = np.repeat((1 - confidence)[:, None] / 9, 10, axis=1)
        probabilities[np.arange(len(rows)), answers] = confidence
        sources = [str(k) for k in range(len(rows))]
        return make_results(Predictions(sources, CLASSES, labels, probabilities), name)

    return {name: model(name) for name in [*SEEDS, "half", "swapped", "missing"]}


@pytest.fixture(scope="module")
def checks():
    """The project's own checks, with a tenth of the resamples."""
    return load_yaml(ROOT / "checks.yaml", Checks).model_copy(update={"resamples": 999})


def test_seeds_pass_each_other(models, checks):
    failed = [
        (old, new)
        for old, new in itertools.permutations(SEEDS, 2)
        if judge(checks, models[old], models[new]).exit_status != 0
    ]
    # Of 42 comparisons of equal models 2.1 may fail at the significance of 0.05.
    assert len(failed) <= checks.significance * 42


@pytest.mark.parametrize(
    ("bad", "check", "words"),
    [
        ("half", "test.acc", "test.acc fell from"),
        ("swapped", "test.acc", "dog −0."),
        ("missing", "recall.deer", "recall.deer fell from"),
    ],
)
def test_a_bad_model_fails_against_every_seed(models, checks, bad, check, words):
    for seed in SEEDS:
        outcome = judge(checks, models[seed], models[bad])
        assert outcome.exit_status == 1
        failed = {one.name: one.reason for one in outcome.checks if one.reason}
        assert words in failed[check]
