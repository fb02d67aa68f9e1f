"""Trials that the sweep stops, and trials that it lets continue."""

import json
import threading
import time

import pytest
from curves import curves_of

from fieldguide.training.trial import Channel


@pytest.fixture
def channel(tmp_path):
    found = Channel(tmp_path / "trial")
    found.open([2])
    return found


def scores(files):
    return curves_of(files["curves.csv"])["val_acc"]


def test_a_trial_that_continues_equals_any_training(run_training, channel):
    channel.answer(2, go_on=True)
    alone, trial = run_training("alone"), run_training("told", channel=channel)
    assert trial == alone
    reports = channel.reports()
    assert list(reports) == [1, 2, 3, 4, 5]
    assert [round(reports[k]["val/acc"], 6) for k in reports] == scores(alone)


def test_a_pruned_trial_ends_with_its_best_epoch_so_far(run_training, channel, capsys):
    channel.answer(2, go_on=False)
    files = run_training(channel=channel)
    assert "Stopped by the sweep after epoch 2" in capsys.readouterr().out
    metrics = json.loads(files["metrics/metrics.json"])
    acc = scores(files)
    assert len(acc) == 2
    assert metrics["pruned"] == 1
    assert metrics["best"]["val_acc"] == max(acc)
    assert json.loads(files["classifier/model.json"])["val_acc"] == max(acc)


def test_a_trial_waits_for_its_answer(run_training, channel):
    def answer_late():
        while 2 not in channel.reports():
            time.sleep(0.01)
        time.sleep(0.5)
        channel.answer(2, go_on=False)

    thread = threading.Thread(target=answer_late)
    thread.start()
    files = run_training(channel=channel)
    thread.join()
    assert len(scores(files)) == 2


def test_a_trial_continues_if_its_sweep_is_gone(run_training, channel, monkeypatch):
    monkeypatch.setattr("fieldguide.training.trial._PATIENCE", 0.1)
    files = run_training(channel=channel)
    assert "pruned" not in json.loads(files["metrics/metrics.json"])
    assert len(scores(files)) == 5


def test_scores_of_the_kept_epoch_are_logged(run_training):
    files = run_training(channel=None)
    best = json.loads(files["metrics/metrics.json"])["best"]
    losses, acc = curves_of(files["curves.csv"])["val_loss"], scores(files)
    assert best == {"val_acc": max(acc), "val_loss": losses[acc.index(max(acc))]}
