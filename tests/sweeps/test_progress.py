import io
import json
import time
from pathlib import Path

import pytest
from rich.console import Console

from fieldguide.core.params import load_params
from fieldguide.sweeps.progress import Progress
from fieldguide.sweeps.record import Record
from fieldguide.sweeps.sweep_file import load_sweep

BASE = load_params(Path(__file__).resolve().parents[2] / "params.yaml")


@pytest.fixture
def record(tmp_path):
    path = tmp_path / "search.yaml"
    definition = {
        "method": "random",
        "metric": {"name": "val/acc"},
        "parameters": {"train.seed": {"min": 0, "max": 2**32 - 1}},
        "early_terminate": {"type": "hyperband", "min_iter": 3, "eta": 100, "s": 1},
        "run_cap": 101,
    }
    path.write_text(json.dumps(definition))
    return Record(load_sweep(path, BASE), BASE)


def finish(record, progress, run, score, **facts):
    record.finish(run, **{"score": score, "epochs": run.stop_after or 24, "seconds": 2} | facts)
    progress.ended(run)


def test_on_a_terminal_the_last_line_says_what_is_left(record, monkeypatch):
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=200)
    monkeypatch.setattr("fieldguide.sweeps.progress.Console", lambda **_: console)
    progress = Progress(record)
    progress.start()
    record.next()
    progress.update(1)
    time.sleep(0.2)
    progress.stop()
    assert "1 running; 1 of 101 configurations begun" in text.getvalue()
    assert "Stopped; run the same command again to go on" in text.getvalue()


def test_lines_of_ended_runs_and_the_summary(record, capsys):
    progress = Progress(record)
    progress.start()
    first, second, third = (record.next() for _ in range(3))
    finish(record, progress, first, 0.25)
    finish(record, progress, second, 0.5, epochs=2)  # early stopping
    record.fail(third, "the settings are at fault", "its.log")
    progress.ended(third)
    progress.finish()
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[:4] == [
        "search: random search of 101 configurations, maximize val/acc",
        f"1 epoch 3 {first.name} val/acc 0.2500 2 s",
        f"2 done {second.name} val/acc 0.5000 2 s",
        f"3 failed {third.name} the settings are at fault; its.log",
    ]
    assert lines[5] == (
        "0 running; 3 of 101 configurations begun; trainings: 1 whole, 1 stopped at a rung, "
        f"1 failed; about 1 min left; best 0.5000 ({second.name})"
    )
    assert f"failed: {third.name}: the settings are at fault" in lines


def test_the_time_that_is_left_by_hand(record, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    progress = Progress(record)
    runs = [record.next() for _ in range(3)]
    now[0] += 120
    for run in runs[:2]:
        finish(record, progress, run, 0.5)
    # Two configurations a minute apart: 98 are to come.
    assert "about 98 min left" in progress._state(1)
