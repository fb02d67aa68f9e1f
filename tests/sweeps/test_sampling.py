import math
import random

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import RandomSampler, TPESampler
from optuna.trial import TrialState, create_trial

from fieldguide.sweeps.sampling import View, sample

SPACE = {
    "train.rate": FloatDistribution(1e-4, 1e-2, log=True),
    "model.layers": IntDistribution(3, 6),
    "model.activation": CategoricalDistribution(["relu", "gelu", "mish"]),
    "model.only": CategoricalDistribution([7]),
    "data.dropout": FloatDistribution(0, 0.5, step=0.1),
}


def value(params):
    return -abs(math.log10(params["train.rate"]) + 3) + 0.1 * params["model.layers"]


def trial(number, state=TrialState.RUNNING, score=None, steps=None, **values):
    params = {"x": 0.5, **values}
    found = create_trial(
        state=state,
        value=score,
        params=params,
        distributions={"x": FloatDistribution(0, 1)},
        intermediate_values=steps,
    )
    found.number = number
    return found


def numbers(view, *states):
    found = view._get_trials(deepcopy=False, states=states, use_cache=False)
    return [one.number for one in found]


@pytest.mark.parametrize("goal", ["maximize", "minimize"])
@pytest.mark.parametrize("method", ["bayes", "random"])
def test_proposals_are_optunas_while_all_trials_are_in_view(method, goal):
    """Trials of every state, which end in another order than they began."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study, view = optuna.create_study(direction=goal), View(goal, SPACE)
    draw, running = random.Random(0), []
    for number in range(120):
        if method == "bayes":
            study.sampler = TPESampler(seed=number, multivariate=True, constant_liar=True)
        else:
            study.sampler = RandomSampler(seed=number)
        proposed = sample(view, SPACE, method=method, seed=number)
        one = study.ask(SPACE)
        assert proposed == one.params
        assert list(proposed) == list(SPACE)
        view.started(study.trials[one.number])
        running.append(one)
        if len(running) > 7:
            ended = running.pop(draw.randrange(len(running)))
            end = draw.choice(["complete", "complete", "pruned", "nan", "fail"])
            if end == "complete":
                study.tell(ended, value(ended.params))
            elif end == "fail":
                study.tell(ended, state=TrialState.FAIL)
            else:
                ended.report(math.nan if end == "nan" else value(ended.params), draw.choice([1, 3]))
                study.tell(ended, state=TrialState.PRUNED)
            view.ended(study.trials[ended.number])


def test_the_best_and_the_latest_are_in_view():
    view = View("maximize", {"x": FloatDistribution(0, 1)}, finished=30, running=30)
    for number in range(100):
        view.started(trial(number))
    assert numbers(view, TrialState.RUNNING) == list(range(70, 100))
    order = random.Random(1).sample(range(90), 90)
    for number in order:  # the score falls, so the first are the best
        view.ended(trial(number, TrialState.COMPLETE, score=-number))
    finished = (TrialState.COMPLETE, TrialState.PRUNED)
    assert numbers(view, *finished) == [*range(25), *range(60, 90)]
    assert numbers(view, *finished, TrialState.RUNNING) == [*range(25), *range(60, 100)]
    assert len(view.rows) == 25 + 30 + 10


def test_complete_trials_are_better_than_pruned_ones_and_those_by_how_far_they_came():
    view = View("minimize", {"x": FloatDistribution(0, 1)}, finished=0)
    pruned = TrialState.PRUNED
    ends = [
        trial(0, pruned),
        trial(1, pruned, steps={1: math.nan}),
        trial(2, pruned, steps={1: 0.7}),
        trial(3, pruned, steps={1: 0.2, 3: 0.9}),
        trial(4, pruned, steps={1: 0.6}),
        *(trial(number, TrialState.COMPLETE, score=number) for number in range(5, 27)),
    ]
    for end in ends:
        view.started(trial(end.number))
        view.ended(end)
    # 22 complete ones, then the pruned one of epoch 3, then the better two of epoch 1.
    assert numbers(view, pruned) == [2, 3, 4]


def test_a_failed_trial_teaches_nothing():
    view = View("maximize", {"x": FloatDistribution(0, 1)})
    view.started(trial(0))
    view.ended(trial(0, TrialState.FAIL))
    assert numbers(view, TrialState.RUNNING, TrialState.COMPLETE, TrialState.FAIL) == []
    assert view.rows == {}
