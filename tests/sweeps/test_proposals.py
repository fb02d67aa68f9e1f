import random

from optuna.distributions import FloatDistribution
from optuna.trial import TrialState, create_trial

from fieldguide.sweeps import proposals

SPACE = {"x": FloatDistribution(0, 1)}


def trial(state, **result):
    return create_trial(state=state, params={"x": 0.5}, distributions=SPACE, **result)


def test_the_sampler_sees_the_best_the_latest_and_those_that_run(monkeypatch):
    monkeypatch.setattr(proposals, "_BEST", 5)
    monkeypatch.setattr(proposals, "_LATEST", 10)
    monkeypatch.setattr(proposals, "_RUNNING", 3)
    trials = {k: trial(TrialState.COMPLETE, value=-k) for k in range(60)}
    trials |= {k: trial(TrialState.RUNNING) for k in range(60, 70)}
    order = list(trials)
    random.Random(0).shuffle(order)
    trials = {k: trials[k] for k in sorted(order)}
    seen = proposals._in_view(trials, maximize=True)
    expected = [*range(5), *range(50, 60), *range(67, 70)]
    assert seen == [trials[k] for k in expected]


def test_whole_trainings_are_better_than_paused_ones_and_those_by_how_far_they_came(monkeypatch):
    monkeypatch.setattr(proposals, "_LATEST", 1)
    trials = {
        0: trial(TrialState.PRUNED, intermediate_values={1: 0.9}),
        1: trial(TrialState.PRUNED, intermediate_values={3: 0.3}),
        2: trial(TrialState.PRUNED, intermediate_values={3: 0.4}),
        3: trial(TrialState.COMPLETE, value=0.1),
        4: trial(TrialState.PRUNED, intermediate_values={1: 0.2}),
    }
    for most, best in ((1, {3}), (2, {2, 3}), (3, {1, 2, 3}), (4, {0, 1, 2, 3})):
        monkeypatch.setattr(proposals, "_BEST", most)
        seen = proposals._in_view(trials, maximize=True)
        assert seen == [trials[k] for k in sorted(best | {4})]
