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
from optuna.trial import TrialState

from fieldguide.core.errors import SweepError
from fieldguide.core.params import load_params
from fieldguide.sweeps.record import Record, record_path
from fieldguide.sweeps.space import trial_name, with_values
from fieldguide.sweeps.sweep_file import load_sweep

BASE = load_params(Path(__file__).resolve().parents[2] / "params.yaml")
SPACE = {
    "learning_rate": {"distribution": "log_uniform_values", "min": 1e-4, "max": 1e-2},
    "activation": {"values": ["relu", "gelu"]},
}

GRID = {
    "model.activation": {"values": ["relu", "gelu"]},
    "model.conv_layers": {"min": 3, "max": 5},
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


def begin_all(found):
    """Begin every configuration; none of them ends."""
    runs = []
    while run := found.next():
        runs.append(run)
    return runs


def finish(found, run, score, epochs=None):
    found.finish(run, score=score, epochs=epochs or run.stop_after or 24, seconds=1)


def test_random_proposals_differ_and_come_again_with_the_same_seed(tmp_path):
    first, other, third = (tmp_path / name for name in "abc")
    for folder in (first, other, third):
        folder.mkdir()
    runs = begin_all(record(first))
    assert [run.number for run in runs] == [0, 1, 2, 3, 4]
    assert len({json.dumps(run.overrides) for run in runs}) == 5
    assert begin_all(record(other)) == runs
    assert begin_all(record(third, seed=1)) != runs


@pytest.mark.parametrize("method", ["random", "bayes"])
def test_a_restart_goes_on_and_repeats_no_proposal(tmp_path, method):
    at_once = tmp_path / "at_once"
    at_once.mkdir()
    expected = begin_all(record(at_once, method))
    for number in range(5):  # a driver that is killed after each proposal
        again = record(tmp_path, method)
        assert [again.next() for _ in range(number + 1)] == expected[: number + 1]
    assert begin_all(record(tmp_path, method)) == expected


def test_a_grid_is_tried_in_order_once_each(tmp_path):
    found = record(tmp_path, "grid", parameters=GRID, run_cap=None)
    values = [tuple(run.overrides[key] for key in GRID) for run in begin_all(found)]
    assert values == [(a, layers) for a in ("relu", "gelu") for layers in (3, 4, 5)]


@pytest.mark.parametrize("method", ["random", "bayes"])
def test_a_small_space_is_tried_out_and_then_ends(tmp_path, method):
    found = record(tmp_path, method, parameters=GRID, run_cap=100)
    assert found.planned == 6
    runs = begin_all(found)
    assert len({json.dumps(run.overrides) for run in runs}) == 6


def test_a_range_of_billions_is_drawn_from(tmp_path):
    found = record(tmp_path, parameters={"train.seed": {"min": 0, "max": 2**32 - 1}}, run_cap=3)
    assert len(begin_all(found)) == 3


def test_contradictions_between_values_are_never_proposed(tmp_path):
    parameters = {
        "data.image_size": {"values": [16, 32, 64]},
        "model.conv_layers": {"min": 3, "max": 6},
    }
    found = record(tmp_path, "grid", parameters=parameters, run_cap=None)
    values = [tuple(run.overrides[key] for key in parameters) for run in begin_all(found)]
    # n blocks need 2^n pixels.
    expected = [(size, n) for size in (16, 32, 64) for n in (3, 4, 5, 6) if 2**n <= size]
    assert values == expected


def test_overrides_hold_fixed_values_and_the_seed(tmp_path):
    found = record(tmp_path, parameters={**SPACE, "epochs": {"value": 7}}, seeds=2, run_cap=1)
    run = found.next()
    assert run.overrides["train.epochs"] == 7
    assert run.overrides["train.seed"] == BASE.train.seed
    assert run.overrides["train.stop_after"] == 0
    assert run.overrides["train.monitor"] == "val/acc"  # the sweep's metric
    assert found.next() is None  # the first seed decides whether the others are worth it
    finish(found, run, 0.5)
    second = found.next()
    assert second.number == run.number
    assert second.overrides == {**run.overrides, "train.seed": BASE.train.seed + 1}
    assert second.name == run.name.removesuffix("_s0") + "_s1"
    finish(found, second, 0.7)
    assert [one.score for one in found.results_of(0)] == [0.5, 0.7]
    assert found.next() is None


def test_a_first_seed_that_fails_ends_its_configuration(tmp_path):
    found = record(tmp_path, seeds=3, run_cap=1)
    run = found.next()
    found.fail(run, "why", "where")
    assert found.next() is None
    assert record(tmp_path, seeds=3, run_cap=1).failed == {
        run.name: {"reason": "why", "log": "where"}
    }


def test_a_later_seed_that_fails_does_not_stop_the_others(tmp_path):
    found = record(tmp_path, seeds=3, run_cap=1)
    finish(found, found.next(), 0.5)
    second, third = found.next(), found.next()
    found.fail(second, "x", "y")
    assert record(tmp_path, seeds=3, run_cap=1).next() == third
    finish(found, third, 0.5)
    assert found.next() is None
    assert len(found.results_of(0)) == 2


def test_bayes_learns_from_scores_and_avoids_running_trials(tmp_path):
    # The score is the closeness of the learning rate to 1e-3 on a log scale.
    parameters = {"learning_rate": SPACE["learning_rate"]}
    found = record(tmp_path, "bayes", parameters=parameters, run_cap=40)
    distances = []
    while run := found.next():
        distances.append(abs(math.log10(run.overrides["train.learning_rate"]) + 3))
        finish(found, run, -distances[-1])
    # Of random values from 1e-4 to 1e-2, a quarter are that near.
    assert sum(distance < 0.25 for distance in distances[20:]) > 10


EARLY = {"type": "hyperband", "min_iter": 2, "eta": 2, "s": 2}  # rungs 2, 4 and the end


def test_promotion_by_hand(tmp_path):
    found = record(tmp_path, early_terminate=EARLY, run_cap=4)

    def end(score):
        run = found.next()
        finish(found, run, score)
        return run.number, run.stop_after, run.overrides["train.stop_after"]

    assert end(0.5) == (0, 2, 2)
    assert end(0.4) == (1, 2, 2)
    assert end(0.6) == (0, 4, 4)  # the better one of two
    assert end(0.7) == (2, 2, 2)  # no other is in the better half of two, or of one
    assert end(0.8) == (2, 4, 4)  # the best one of three
    assert end(0.9) == (2, 0, 0)  # the better one of 0.8 and 0.6
    assert end(0.3) == (3, 2, 2)
    # 0.7 and 0.5, the better two of four, have gone on, and so has the best of every rung.
    assert found.next() is None


def test_early_stopping_below_a_rung_counts_as_finished_there(tmp_path):
    found = record(tmp_path, early_terminate=EARLY, run_cap=2, seeds=2)
    first, second = found.next(), found.next()
    finish(found, first, 0.9, epochs=1)  # patience ended it before the rung of epoch 2
    finish(found, second, 0.1)
    # It is promoted to the end without a run, so that its other seed is next.
    run = found.next()
    assert run.key == (0, 1, 0)
    finish(found, run, 0.8)
    assert found.next() is None
    assert record(tmp_path, early_terminate=EARLY, run_cap=2, seeds=2).next() is None


def test_a_rung_behind_the_last_epoch_is_the_whole_training(tmp_path):
    parameters = {**SPACE, "epochs": {"values": [3, 20]}}
    found = record(tmp_path, early_terminate=EARLY, run_cap=8, parameters=parameters)
    seen = set()
    while run := found.next():
        epochs, stop = run.overrides["train.epochs"], run.overrides["train.stop_after"]
        assert stop == (run.stop_after if run.stop_after < epochs else 0)
        seen.add((epochs, run.stop_after))
        finish(found, run, 0.5, epochs=stop or epochs)
    assert {(3, 4), (3, 2), (20, 2)} & seen


def test_what_may_be_promoted_keeps_its_checkpoint(tmp_path):
    early = {"type": "hyperband", "min_iter": 2, "eta": 2, "s": 1}
    found = record(tmp_path, early_terminate=early, run_cap=6)
    for score in (0.3, 0.2):
        finish(found, found.next(), score)
    run = found.next()
    assert (run.number, run.stop_after) == (0, 0)
    # Of six configurations, three may be promoted: 1 still waits, and 0 runs.
    assert found.may_be_promoted() == {0, 1}
    finish(found, run, 0.4)
    finish(found, found.next(), 0.1)
    assert found.may_be_promoted() == {1, 2}
    assert found.may_be_promoted(1) == {1}
    finish(found, found.next(), 0.15)  # the fourth: 0.2, the second best, is promoted now
    assert found.next().key == (1, 0, 0)
    assert found.may_be_promoted() == {1, 3}


def test_run_cap_may_grow_and_nothing_else_may_change(tmp_path):
    begin_all(record(tmp_path))
    assert [run.number for run in begin_all(record(tmp_path, run_cap=7))] == [*range(7)]
    with pytest.raises(SweepError, match=r"search\.yaml: changed since .*search\.yaml\.study"):
        record(tmp_path, "bayes")
    # Also what auto is for this network may be another value for the network of a trial.
    for epochs in (9, BASE.train.epochs):
        other = with_values(BASE, {"train.epochs": epochs})
        with pytest.raises(SweepError, match=r"params\.yaml: changed since"):
            record(tmp_path, base=other)


def test_a_run_cap_below_what_was_proposed_ends_the_sweep(tmp_path):
    for run in begin_all(found := record(tmp_path)):
        finish(found, run, 0.5)
    assert record(tmp_path, run_cap=3).next() is None


def test_swept_keys_may_change_in_params_yaml(tmp_path):
    # They change when the winner is applied.
    begin_all(record(tmp_path))
    other = with_values(BASE, {"train.learning_rate": 0.5})
    assert len(begin_all(record(tmp_path, base=other, run_cap=6))) == 6


def test_half_an_entry_is_removed(tmp_path):
    run = record(tmp_path).next()
    path = record_path(tmp_path / "search.yaml")
    path.write_bytes(path.read_bytes() + b'{"op_code": 5, "worker')
    assert [one.number for one in begin_all(record(tmp_path))] == [0, 1, 2, 3, 4]
    assert record(tmp_path).next() == run


def score_of(run):
    rate = run.overrides["train.learning_rate"]
    return round(0.9 - abs(math.log10(rate) + 3) - 0.1 / (run.stop_after or 24), 6)


def go_on(found):
    """Run the trials to the end, one at a time, as the driver would; configuration 11 fails."""
    while run := found.next():
        if run.number == 11:
            found.fail(run, "x", "y")
        else:
            finish(found, run, score_of(run))


def story(found):
    """Return everything that the record says: proposals, rungs and ends."""
    return [(one.run, one.score, one.epochs) for one in found.ended], found.failed


def test_a_kill_at_any_entry_or_byte_changes_no_proposal(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda file: None)  # two hundred sweeps follow
    sweep = {"method": "bayes", "run_cap": 13, "early_terminate": EARLY, "seeds": 2}
    whole = record(tmp_path, **sweep)
    go_on(whole)
    expected = story(whole)
    assert {one.run.stop_after for one in whole.ended} == {2, 4, 0}
    path = record_path(tmp_path / "search.yaml")
    text = path.read_bytes()
    lines = [at + 1 for at, byte in enumerate(text) if byte == ord("\n")]
    for cut in [*random.Random(0).sample(range(len(text)), 20), *lines]:
        path.write_bytes(text[:cut])
        again = record(tmp_path, **sweep)
        go_on(again)
        assert story(again) == expected, cut


def test_a_record_that_is_opened_again_goes_on_alike(tmp_path):
    """Several runs at a time, which end in any order: what waits and what is known stays."""
    sweep = {"method": "bayes", "run_cap": 40, "early_terminate": EARLY, "seeds": 2}
    found, draw, running = record(tmp_path, **sweep), random.Random(3), []
    while True:
        while len(running) < 6 and (run := found.next()):
            running.append(run)
        if not running:
            break
        run = running.pop(draw.randrange(len(running)))
        if draw.random() < 0.1:
            found.fail(run, "x", "y")
        else:
            finish(found, run, draw.randrange(20) / 20)
        if len(found.ended) % 20 == 0:
            again = record(tmp_path, **sweep)
            begun = [again.next() for _ in running]
            assert sorted(one.key for one in begun) == sorted(one.key for one in running)
            assert again.may_be_promoted() == found.may_be_promoted()
            assert again.results.keys() == found.results.keys()
    assert len({one.run.key for one in found.ended}) == len(found.ended)
    assert record(tmp_path, **sweep).next() is None


def test_runs_whose_experiments_are_missing_are_run_again_and_recorded_once(tmp_path):
    found = record(tmp_path, run_cap=2)
    for run in (found.next(), found.next()):
        finish(found, run, 0.5)
    again = record(tmp_path, run_cap=2)
    again.again(run)
    assert again.next() == run
    finish(again, run, 0.5)
    assert again.next() is None
    assert len(record(tmp_path, run_cap=2).ended) == 2


def test_reading_writes_nothing(tmp_path):
    found = record(tmp_path)
    finish(found, found.next(), 0.5)
    path = record_path(tmp_path / "search.yaml")
    path.write_bytes(path.read_bytes() + b'{"op_code": 5, "half of')  # the driver is writing
    before = path.read_bytes()
    sweep = load_sweep(tmp_path / "search.yaml", BASE)
    assert len(Record(sweep, BASE, writes=False).ended) == 1
    assert path.read_bytes() == before
    path.unlink()
    with pytest.raises(
        SweepError, match=r"search.yaml: no trial has finished; fieldguide sweep run"
    ):
        Record(sweep, BASE, writes=False)
    assert not path.exists()


def test_optuna_reads_the_record(tmp_path):
    found = record(tmp_path, "bayes", early_terminate=EARLY)
    go_on(found)
    path = record_path(tmp_path / "search.yaml")
    storage = JournalStorage(JournalFileBackend(str(path)))
    study = optuna.load_study(study_name="search", storage=storage)
    whole = [one for one in found.ended if one.run.stop_after == 0]
    assert study.best_value == max(one.score for one in whole)
    states = [trial.state for trial in study.trials]
    assert states.count(TrialState.COMPLETE) == len(whole)
    assert states.count(TrialState.PRUNED) == len(found.ended) - len(whole)


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
