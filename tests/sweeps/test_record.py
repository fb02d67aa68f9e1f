import json
import math
import os
import random
import re
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from fieldguide.core.errors import SweepError
from fieldguide.core.params import load_params
from fieldguide.sweeps.record import DONE, FAILED, PRUNED, Record, record_path
from fieldguide.sweeps.space import trial_name
from fieldguide.sweeps.sweep_file import load_sweep

BASE = load_params(Path(__file__).resolve().parents[2] / "params.yaml")
SPACE = {
    "learning_rate": {"distribution": "log_uniform_values", "min": 1e-4, "max": 1e-2},
    "activation": {"values": ["relu", "gelu"]},
}


def record(tmp_path, method="random", base=BASE, **changes):
    definition = {
        "method": method,
        "metric": {"name": "val/acc"},
        "parameters": SPACE,
        "run_cap": 5,
        **changes,
    }
    path = tmp_path / "search.yaml"
    path.write_text(json.dumps(definition))
    return Record(load_sweep(path, base), base)


def propose_all(found):
    trials = []
    while trial := found.propose():
        trials.append(trial)
    return trials


def test_random_proposals_differ_and_come_again_with_the_same_seed(tmp_path):
    first, other, third = (tmp_path / name for name in "abc")
    for folder in (first, other, third):
        folder.mkdir()
    trials = propose_all(record(first))
    assert [trial.number for trial in trials] == [0, 1, 2, 3, 4]
    assert len({json.dumps(trial.overrides) for trial in trials}) == 5
    assert propose_all(record(other)) == trials
    assert propose_all(record(third, seed=1)) != trials


@pytest.mark.parametrize("method", ["random", "bayes"])
def test_a_restart_goes_on_and_repeats_no_proposal(tmp_path, method):
    at_once = tmp_path / "at_once"
    at_once.mkdir()
    expected = propose_all(record(at_once, method))
    found = [record(tmp_path, method).propose() for _ in range(5)]  # as in a process each
    assert found == expected
    assert record(tmp_path, method).propose() is None
    names = [trial.name for trial in found]
    assert [trial.name for trial in record(tmp_path, method).waiting()] == names


def test_a_grid_is_tried_in_order_once_each(tmp_path):
    parameters = {"activation": {"values": ["relu", "gelu"]}, "conv_layers": {"min": 3, "max": 5}}
    found = record(tmp_path, "grid", parameters=parameters, run_cap=None)
    values = [tuple(trial.overrides.values()) for trial in propose_all(found)]
    assert values == [(a, layers) for a in ("relu", "gelu") for layers in (3, 4, 5)]


@pytest.mark.parametrize("method", ["random", "bayes"])
def test_a_small_space_is_tried_out_and_then_ends(tmp_path, method):
    parameters = {"activation": {"values": ["relu", "gelu"]}, "conv_layers": {"min": 3, "max": 5}}
    found = record(tmp_path, method, parameters=parameters, run_cap=100)
    assert found.planned == 6
    trials = propose_all(found)
    assert len({json.dumps(trial.overrides) for trial in trials}) == 6


def test_a_range_of_billions_is_drawn_from(tmp_path):
    found = record(tmp_path, parameters={"train.seed": {"min": 0, "max": 2**32 - 1}}, run_cap=3)
    assert len(propose_all(found)) == 3


def test_contradictions_between_values_are_never_proposed(tmp_path):
    parameters = {"image_size": {"values": [16, 32, 64]}, "conv_layers": {"min": 3, "max": 6}}
    found = record(tmp_path, "grid", parameters=parameters, run_cap=None)
    values = [tuple(trial.overrides.values()) for trial in propose_all(found)]
    # n blocks need 2^n pixels.
    expected = [(size, n) for size in (16, 32, 64) for n in (3, 4, 5, 6) if 2**n <= size]
    assert values == expected


def test_overrides_hold_fixed_values_and_the_seed(tmp_path):
    found = record(tmp_path, parameters={**SPACE, "epochs": {"value": 7}}, seeds=2)
    trial = found.propose()
    assert trial.overrides["train.epochs"] == 7
    assert trial.overrides["train.seed"] == BASE.train.seed
    found.end(trial, DONE, score=0.5, seconds=1)
    (second,) = found.waiting()
    assert second.number == trial.number
    assert second.overrides == {**trial.overrides, "train.seed": BASE.train.seed + 1}
    assert second.name == trial.name.removesuffix("_s0") + "_s1"
    assert found.scores(trial) == []
    found.end(second, DONE, score=0.7, seconds=1)
    assert found.scores(trial) == [0.5, 0.7]
    assert found.study.best_trial.value == pytest.approx(0.6)


@pytest.mark.parametrize("state", [PRUNED, FAILED])
def test_a_first_seed_that_does_not_finish_ends_its_configuration(tmp_path, state):
    found = record(tmp_path, seeds=3)
    trial = found.propose()
    found.end(trial, state, score=0.1, seconds=1, reason="x", log="y")
    assert found.waiting() == []
    assert found.left() == 4 * 3


def test_a_later_seed_that_fails_does_not_stop_the_others(tmp_path):
    found = record(tmp_path, seeds=3)
    trial = found.propose()
    found.end(trial, DONE, score=0.5, seconds=1)
    second, third = found.waiting()
    found.end(second, FAILED, reason="x", log="y")
    assert found.waiting() == [third]
    found.end(third, DONE, score=0.5, seconds=1)
    assert found.waiting() == found.scores(trial) == []


def test_bayes_learns_from_scores_and_avoids_running_trials(tmp_path):
    # The score is the closeness of the learning rate to 1e-3 on a log scale.
    parameters = {"learning_rate": SPACE["learning_rate"]}
    found = record(tmp_path, "bayes", parameters=parameters, run_cap=40)
    distances = []
    while trial := found.propose():
        distances.append(abs(math.log10(trial.overrides["train.learning_rate"]) + 3))
        found.end(trial, DONE, score=-distances[-1], seconds=1)
    # Of random values from 1e-4 to 1e-2, a quarter are that near.
    assert sum(distance < 0.25 for distance in distances[20:]) > 10


def test_successive_halving_by_hand(tmp_path):
    early = {"type": "hyperband", "min_iter": 1, "eta": 2}
    found = record(tmp_path, early_terminate=early, run_cap=4)
    assert found.rungs == [1, 2, 4, 8, 16]
    a, b, c, d = propose_all(found)
    assert found.may_go_on(a, 1, 0.5)  # the first is the best so far
    assert not found.may_go_on(b, 1, 0.4)  # not in the better half of 0.5, 0.4
    assert found.may_go_on(c, 1, 0.6)
    assert found.may_go_on(d, 1, 0.55)  # in the better two of 0.4, 0.5, 0.55, 0.6
    assert found.may_go_on(a, 2, 0.7)
    assert not found.may_go_on(c, 2, 0.6)
    # Asked again, as after a kill and in a new process, the answers are the same.
    again = record(tmp_path, early_terminate=early, run_cap=4)
    assert not again.may_go_on(b, 1, 0.4)
    assert again.may_go_on(d, 1, 0.55)
    assert not again.may_go_on(c, 2, 0.6)


def test_run_cap_may_grow_and_nothing_else_may_change(tmp_path):
    propose_all(record(tmp_path))
    assert [trial.number for trial in propose_all(record(tmp_path, run_cap=7))] == [5, 6]
    with pytest.raises(SweepError, match=r"search\.yaml: changed since .*search\.yaml\.study"):
        record(tmp_path, "bayes")
    other = BASE.model_copy(update={"train": BASE.train.model_copy(update={"epochs": 9})})
    with pytest.raises(SweepError, match=r"params\.yaml: changed since"):
        record(tmp_path, base=other)


def test_swept_keys_may_change_in_params_yaml(tmp_path):
    # They change when the best trial is applied.
    propose_all(record(tmp_path))
    other = BASE.model_copy(update={"train": BASE.train.model_copy(update={"learning_rate": 0.5})})
    assert len(propose_all(record(tmp_path, base=other, run_cap=6))) == 1


def test_half_an_entry_is_removed(tmp_path):
    found = record(tmp_path)
    trial = found.propose()
    path = record_path(tmp_path / "search.yaml")
    path.write_bytes(path.read_bytes() + b'{"op_code": 5, "worker')
    again = record(tmp_path)
    assert again.waiting() == [trial]
    assert [other.number for other in propose_all(again)] == [1, 2, 3, 4]


def test_a_recorded_end_that_the_sampler_does_not_know_is_told_to_it(tmp_path):
    found = record(tmp_path)
    trial = found.propose()
    end = {"state": DONE, "score": 0.25, "seconds": 1}
    found._storage.set_trial_user_attr(found._ids[trial.number], "seed-0", end)
    again = record(tmp_path)
    assert again.waiting() == []
    assert again.study.best_value == 0.25


EARLY = {"type": "hyperband", "min_iter": 1, "eta": 2}


def score_of(trial, epoch):
    rate = trial.overrides["train.learning_rate"]
    return round(0.9 - abs(math.log10(rate) + 3) - 0.1 / epoch, 6)


def go_on(found, proposals):
    """Propose so many configurations and run their trials, one at a time, as the driver would."""
    waiting = found.waiting()
    while waiting or len(found.proposed()) < proposals * found.sweep.seeds:
        trial = waiting.pop(0) if waiting else found.propose()
        end = DONE
        for epoch in found.rungs if trial.prunable else []:
            if not found.may_go_on(trial, epoch, score_of(trial, epoch)):
                end = PRUNED
                break
        if trial.number == 11:
            end = FAILED
        waiting += found.end(trial, end, score=score_of(trial, 24), seconds=1, reason="x", log="y")


def story(found):
    """Return everything that the record says: proposals, rungs and ends."""
    return [
        (trial, found.ended(trial), found._configuration(trial.number).user_attrs)
        for trial in found.proposed()
    ]


def test_a_kill_at_any_entry_or_byte_changes_no_proposal(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda file: None)  # two hundred sweeps follow
    sweep = {"method": "bayes", "run_cap": 13, "early_terminate": EARLY, "seeds": 2}
    whole = record(tmp_path, **sweep)
    go_on(whole, 13)
    expected = story(whole)
    path = record_path(tmp_path / "search.yaml")
    text = path.read_bytes()
    lines = [at + 1 for at, byte in enumerate(text) if byte == ord("\n")]
    draw = random.Random(0)
    cuts = [*draw.sample(range(len(text)), 20), *lines]
    for cut in cuts:
        path.write_bytes(text[:cut])
        again = record(tmp_path, **sweep)
        go_on(again, 13)
        assert story(again) == expected, cut
        assert again.waiting() == []
        assert again.left() == 0


def test_a_record_that_is_opened_again_answers_as_before(tmp_path):
    """Several trials run at a time and end in any order."""
    sweep = {"method": "bayes", "run_cap": 60, "early_terminate": EARLY, "seeds": 2}
    found = record(tmp_path, **sweep)
    draw = random.Random(3)
    running = []
    for step in range(60):
        if len(running) < 6 and (trial := found.propose()):
            running.append(trial)
        trial = running.pop(draw.randrange(len(running)))
        if trial.prunable and not found.may_go_on(trial, 1, draw.randrange(5) / 5):
            end = PRUNED
        else:
            end = draw.choice([DONE, DONE, FAILED])
        running += found.end(trial, end, score=draw.random(), seconds=1, reason="x", log="y")
        if step % 20 == 19:
            again = record(tmp_path, **sweep)
            assert story(again) == story(found)
            assert again.waiting() == sorted(running, key=lambda one: (one.number, one.index))
            assert again.left() == found.left()
            # By hand: all seeds of what is not proposed, and the running trials with their seeds.
            seconds_to_come = sum(trial.prunable for trial in running)
            unproposed = 60 - len(found.proposed()) // 2
            assert found.left() == 2 * unproposed + len(running) + seconds_to_come
            assert again._rungs._scores == found._rungs._scores
            assert again._view._best == found._view._best
            assert again._view._latest == found._view._latest
            assert again._view.rows == found._view.rows


def test_each_operation_is_one_write_and_proposals_and_last_ends_are_synced(tmp_path, monkeypatch):
    found = record(tmp_path, early_terminate=EARLY, run_cap=2)
    path = record_path(tmp_path / "search.yaml")
    synced, fsync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (fsync(file), synced.append(size())))
    writes, write = [], found._journal._write
    found._journal._write = lambda sync: (write(sync=sync), writes.append(size()))

    def size():
        return path.stat().st_size

    trial = found.propose()
    assert synced == writes == [size()]
    found.may_go_on(trial, 1, 0.5)
    assert writes[1:] == [size()]  # a kill of the driver takes nothing back
    found.may_go_on(trial, 1, 0.5)  # asked again, nothing is written
    assert writes[1:] == [size()]
    found.end(trial, DONE, score=0.5, seconds=1)
    assert writes[2:] == [size()]
    assert len(synced) == 1
    last = found.propose()
    assert synced[1:] == writes[3:] == [size()]
    found.end(last, DONE, score=0.5, seconds=1)  # no proposal will follow
    assert synced[2:] == writes[4:] == [size()]
    record(tmp_path, early_terminate=EARLY, run_cap=2)  # opened, it writes nothing
    assert len(synced) == 3
    assert writes == sorted(set(writes))


def test_optuna_reads_the_record(tmp_path):
    found = record(tmp_path, "bayes", early_terminate=EARLY)
    go_on(found, 3)
    path = record_path(tmp_path / "search.yaml")
    storage = JournalStorage(JournalFileBackend(str(path)))
    study = optuna.load_study(study_name="search", storage=storage)
    assert [trial.params for trial in study.trials] == [
        found._configuration(number).params for number in range(3)
    ]
    assert study.best_value == max(found.ended(trial)["score"] for trial in found.proposed())


def test_a_file_that_is_no_record_is_refused(tmp_path):
    record_path(tmp_path / "search.yaml").write_text("my notes\n" * 3)
    with pytest.raises(SweepError, match=r"search\.yaml\.study: is not the record of a sweep"):
        record(tmp_path)


def test_names_say_the_settings_and_are_good_refs():
    values = {
        "model.activation": "gelu",
        "model.batch_norm": True,
        "train.batch_size": 64,
        "train.learning_rate": 0.00031234,
        "data.archive": "data/my photos..lock",
    }
    name = trial_name("original", 7, values, 2)
    assert name == "original-0007_a=gelu_bn=true_bs=64_lr=0.000312_a2=data-my-photos--lock_s2"
    for bad in ("..", "@{", "~", "^", ":", "?", "*", "[", "\\", " "):
        assert bad not in name
    assert not re.search(r"\.lock$|\.$", trial_name("s", 0, {"data.archive": "a.lock"}, None))
    long = trial_name("s", 0, {f"model.key_{k}": k for k in range(200)}, None)
    assert len(long) < 200
