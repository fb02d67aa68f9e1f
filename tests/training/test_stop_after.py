"""`train.stop_after` pauses a training, and a later stop continues it with the same bytes."""

import json

import pytest
from curves import curves_of


def kept_values(curves, place):
    return {name: values[place] for name, values in curves.items() if name.startswith("val_")}


def epochs_of(files):
    return len(curves_of(files["curves.csv"])["val_acc"])


def test_a_training_in_rungs_equals_one_without_a_stop(run_training, checkpoints, capsys):
    whole = run_training("whole")
    for stop in (1, 3):
        paused = run_training(f"rung-{stop}", stop_after=stop)
        assert epochs_of(paused) == stop
        assert len(checkpoints()) == 1
        assert f"Paused by train.stop_after: {stop}" in capsys.readouterr().out
    last = run_training("last")
    assert "Going on after epoch 3 of 5." in capsys.readouterr().out
    assert last == whole
    assert checkpoints() == []


def test_a_paused_training_has_its_best_epoch_so_far(run_training):
    files = run_training(stop_after=3)
    curves = curves_of(files["curves.csv"])
    acc = curves["val_acc"]
    best = json.loads(files["metrics/metrics.json"])["best"]
    assert best == kept_values(curves, acc.index(max(acc)))
    assert json.loads(files["classifier/model.json"])["val_acc"] == max(acc)


def test_an_earlier_stop_does_not_use_a_later_checkpoint(run_training):
    first = run_training("first", stop_after=1)
    run_training("later", stop_after=3)
    assert run_training("again", stop_after=1) == first


def test_a_paused_training_without_a_checkpoint_gives_the_same_bytes(run_training, checkpoints):
    run_training("one", stop_after=1)
    in_rungs = run_training("two", stop_after=3)
    for checkpoint in checkpoints():
        checkpoint.unlink()
    assert run_training("alone", stop_after=3) == in_rungs


def test_interrupted_between_two_stops(run_training, interrupt):
    whole = run_training("whole")
    run_training("paused", stop_after=2)
    interrupt(4, "interrupted")
    assert run_training("last") == whole


def test_patience_before_the_stop_finishes_the_training(run_training, checkpoints):
    ended = run_training("ended", patience=1, epochs=30, learning_rate=1e-9)
    assert epochs_of(ended) < 29
    stopped = run_training("stopped", patience=1, epochs=30, learning_rate=1e-9, stop_after=29)
    assert stopped == ended
    assert checkpoints() == []


def test_a_stop_at_the_last_epoch_is_a_whole_training(run_training, checkpoints):
    assert run_training("stopped", stop_after=5) == run_training("whole")
    assert checkpoints() == []


def test_scores_of_the_kept_epoch_are_logged(run_training):
    files = run_training()
    best = json.loads(files["metrics/metrics.json"])["best"]
    curves = curves_of(files["curves.csv"])
    acc = curves["val_acc"]
    assert best == kept_values(curves, acc.index(max(acc)))


def test_a_stop_after_the_last_epoch_is_refused(tiny_params):
    with pytest.raises(ValueError, match=r"train.stop_after: found 6; allowed: at most.* 5"):
        tiny_params(stop_after=6)
