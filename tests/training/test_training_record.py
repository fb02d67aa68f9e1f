"""What is printed and written after each epoch."""

import json
import math
import re
import subprocess
from pathlib import Path

import pytest
from curves import curves_of

from fieldguide.core.errors import TrainingError
from fieldguide.training.record import Record

EPOCH = re.compile(r"^ +(\d+)/(\d+) +" + r"([\d.e+-]+) *" * 8 + "$", re.MULTILINE)


def test_a_line_is_printed_for_each_epoch(run_training, capsys):
    files = run_training(epochs=3)
    printed = capsys.readouterr().out
    lines = EPOCH.findall(printed)
    start = printed.index("    epoch ")
    assert max(map(len, printed[start:].splitlines())) <= 100
    assert [line[:2] for line in lines] == [("1", "3"), ("2", "3"), ("3", "3")]
    logged = curves_of(files["curves.csv"])["val_acc"]
    assert [float(line[5]) for line in lines] == pytest.approx(logged, rel=1e-3)
    assert re.search(r"Kept epoch \d of 3: val/acc [01]\.\d{4}\n", printed)


# The best epoch is the second by accuracy, the third by macro F1, and the first by loss.
ROWS = [
    {"val/loss": 0.8, "val/acc": 0.5, "val/macro_f1": 0.4, "learning_rate": 0.1},
    {"val/loss": 0.9, "val/acc": 0.7, "val/macro_f1": 0.3, "learning_rate": 0.1},
    {"val/loss": 0.8, "val/acc": 0.7, "val/macro_f1": 0.5, "learning_rate": 0.1},
    {"val/loss": 1.0, "val/acc": 0.6, "val/macro_f1": 0.5, "learning_rate": 0.1},
]


@pytest.mark.parametrize(
    ("monitor", "best"), [("val/acc", 2), ("val/macro_f1", 3), ("val/loss", 1)]
)
def test_the_monitored_metric_decides_best_epoch_and_patience(monitor, best, tiny_params):
    params = tiny_params(monitor=monitor, patience=2, epochs=9).train
    record = Record(Path("metrics"), Path("curves.csv"), params, writes=False)
    for row in ROWS:
        record.add(row, seconds=1.0)
        if record.is_finished:
            break
    assert record.best_epoch == best
    assert record.best == ROWS[best - 1]
    assert len(record.rows) == min(best + 2, 4)


@pytest.mark.parametrize("monitor", ["val/macro_f1", "val/loss"])
def test_the_monitored_metric_decides_which_epoch_is_kept(monitor, run_training, capsys):
    files = run_training(monitor=monitor, learning_rate=0.05, schedule="constant")
    curves = curves_of(files["curves.csv"])
    values = curves[monitor.replace("/", "_")]
    score = min(values) if monitor == "val/loss" else max(values)
    kept = values.index(score)
    assert curves["kept"] == [int(k == kept) for k in range(len(values))]
    printed = capsys.readouterr().out
    assert f"Kept epoch {kept + 1} of {len(values)}: {monitor} {score:.4f}\n" in printed
    best = json.loads(files["metrics/metrics.json"])["best"]
    names = {"val_acc", "val_bal_acc", "val_loss", "val_macro_f1"}
    assert best == {name: curves[name][kept] for name in names}
    assert json.loads(files["classifier/model.json"])["val_acc"] == best["val_acc"]


def test_the_logged_rate_is_that_of_the_schedule_at_the_end_of_the_epoch(run_training):
    files = run_training(epochs=4, schedule="cosine", warmup=0.0, learning_rate=0.01)
    rates = curves_of(files["curves.csv"])["learning_rate"]
    expected = [0.005 * (1 + math.cos(math.pi * epoch / 4)) for epoch in (1, 2, 3, 4)]
    assert rates == pytest.approx(expected, abs=1e-12)


def test_metrics_of_an_earlier_training_are_replaced(run_training):
    run_training(epochs=4)
    files = run_training(epochs=2)
    assert len(curves_of(files["curves.csv"])["val_acc"]) == 2


def test_a_loss_that_is_not_finite_stops_the_training_and_leaves_no_outputs(run_training, capsys):
    with pytest.raises(
        TrainingError, match=r"^(train|val)/loss became (nan|inf) in epoch \d"
    ) as err:
        run_training(learning_rate=10.0, optimizer="sgd", model={"batch_norm": False}, epochs=9)
    for knob in ("train.learning_rate", "train.gradient_clipping", "train.precision"):
        assert knob in str(err.value)
    lines = EPOCH.findall(capsys.readouterr().out)
    assert len(lines) < 9
    assert not any("nan" in value or "inf" in value for line in lines for value in line)
    assert Path("run").is_dir()
    assert [file for file in Path("run").rglob("*") if file.is_file()] == []


def test_dvclive_writes_nothing_else(run_training):
    run_training(epochs=1)
    assert not list(Path().rglob("dvc.yaml"))
    assert not list(Path().rglob("*.md"))


def test_a_repository_without_a_commit_is_a_mistake(run_training):
    subprocess.run(["git", "init", "--quiet"], check=True)
    with pytest.raises(TrainingError, match=r"Git: .*commit the project first"):
        run_training(epochs=1)
