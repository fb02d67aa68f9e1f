import math
import random

import optuna
import pytest
from optuna.pruners import SuccessiveHalvingPruner

from fieldguide.sweeps.rungs import Rungs


def test_the_better_third_goes_on_by_hand():
    rungs = Rungs([2], eta=3, goal="minimize")
    assert rungs.enter(2, 0.5)  # the first is the best so far
    assert not rungs.enter(2, 0.6)
    assert rungs.enter(2, 0.4)  # the best of three
    assert not rungs.enter(2, 0.45)
    assert rungs.enter(2, 0.4)  # as good as the best of five
    assert rungs.enter(2, 0.4)  # the better two of six: 0.4, 0.4
    assert not rungs.enter(2, 0.41)
    assert not rungs.enter(2, math.nan)  # and it does not count: two of seven still
    assert not rungs.enter(2, 0.41)
    assert not rungs.enter(2, 0.41)  # the better three of nine: 0.4, 0.4, 0.4
    assert rungs.enter(2, 0.39)


@pytest.mark.parametrize("goal", ["maximize", "minimize"])
@pytest.mark.parametrize(("epochs", "eta"), [([1, 2, 4, 8], 2), ([3, 9], 3), ([2, 8, 32], 4)])
def test_it_decides_as_optunas_pruner(goal, epochs, eta):
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    draw = random.Random(len(epochs) + eta)
    for _ in range(3):
        pruner = SuccessiveHalvingPruner(min_resource=epochs[0], reduction_factor=eta)
        study = optuna.create_study(direction=goal, pruner=pruner)
        rungs = Rungs(epochs, eta, goal)
        running, left, answers = {}, 60, []
        while running or left:
            if left and (not running or draw.random() < 0.4):  # in any order, many at a time
                trial = study.ask()
                running[trial.number] = (trial, 0)
                left -= 1
                continue
            trial, at = running.pop(draw.choice(list(running)))
            # Of ten values, so that many are equal; now and then none.
            score = math.nan if draw.random() < 0.05 else draw.randrange(10) / 10
            trial.report(score, epochs[at])
            answers.append(rungs.enter(epochs[at], score))
            assert answers[-1] == (not trial.should_prune())
            if answers[-1] and at + 1 < len(epochs):
                running[trial.number] = (trial, at + 1)
        assert 0.2 < sum(answers) / len(answers) < 0.8
