import random
from pathlib import Path

import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState, create_trial

from fieldguide.core.params import load_params
from fieldguide.sweeps import proposals
from fieldguide.sweeps.sweep_file import load_sweep

SPACE = {"x": FloatDistribution(0, 1)}


def trial(state, **result):
    return create_trial(state=state, params={"x": 0.5}, distributions=SPACE, **result)


@pytest.fixture
def found(tmp_path):
    base = load_params(Path(__file__).resolve().parents[2] / "params.yaml")
    path = tmp_path / "search.yaml"
    path.write_text(
        "{method: bayes, metric: {name: val/acc}, run_cap: 9,"
        " parameters: {dropout: {min: 0.0, max: 0.5}}}"
    )
    return proposals.Proposals(load_sweep(path, base), base)


def test_the_sampler_sees_the_best_the_latest_and_those_that_run(found, monkeypatch):
    monkeypatch.setattr(proposals, "_BEST", 5)
    monkeypatch.setattr(proposals, "_LATEST", 10)
    monkeypatch.setattr(proposals, "_RUNNING", 3)
    trials = {k: trial(TrialState.COMPLETE, value=-k) for k in range(60)}
    trials |= {k: trial(TrialState.RUNNING) for k in range(60, 70)}
    order = list(trials)
    random.Random(0).shuffle(order)
    for number in order:
        found.learn(number, trials[number])
    expected = [*range(5), *range(50, 60), *range(67, 70)]
    assert found.in_view() == [trials[k] for k in expected]
    found.learn(2, None)  # failed with another seed
    assert trials[2] not in found.in_view()
    assert trials[5] in found.in_view()


def test_whole_trainings_are_better_than_paused_ones_and_those_by_how_far_they_came(
    found, monkeypatch
):
    monkeypatch.setattr(proposals, "_LATEST", 1)
    trials = {
        0: trial(TrialState.PRUNED, intermediate_values={1: 0.9}),
        1: trial(TrialState.PRUNED, intermediate_values={3: 0.3}),
        2: trial(TrialState.PRUNED, intermediate_values={3: 0.4}),
        3: trial(TrialState.COMPLETE, value=0.1),
        4: trial(TrialState.PRUNED, intermediate_values={1: 0.2}),
    }
    for number, one in trials.items():
        found.learn(number, one)
    for most, best in ((1, {3}), (2, {2, 3}), (3, {1, 2, 3}), (4, {0, 1, 2, 3})):
        monkeypatch.setattr(proposals, "_BEST", most)
        assert found.in_view() == [trials[k] for k in sorted(best | {4})]
